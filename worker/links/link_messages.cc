#include "worker/links/link_messages.h"

#include "absl/strings/str_cat.h"
#include "formats/byte_codec.h"

namespace longwave {
namespace {

using Type = LinkMessage::Type;

constexpr uint8_t kMagic = 0x53;  // 'S'

// Whether the fields of a message's type are in their ranges.
bool InRange(const LinkMessage& m) {
  if (m.type == Type::kCommunicator) {
    return m.link > 0 && (m.id.empty() || m.id.size() == kNcclIdBytes);
  }
  if (m.stream.empty() || static_cast<int64_t>(m.stream.size()) > kMostStreamName) return false;
  if (m.index < 0 || m.index >= kMostStreamTensors) return false;
  if (m.type == Type::kSubscribe) return m.link >= LinkMessage::kAwaitsNccl;
  if (m.type == Type::kTensor) return true;
  return m.link > 0 && m.sequence >= 0 && m.bytes > 0 && m.bytes <= kMostTensorBytes;
}

}  // namespace

std::string EncodeLink(const LinkMessage& message) {
  ByteWriter out;
  out.Put(kMagic);
  out.Put(static_cast<uint8_t>(message.type));
  if (message.type == Type::kCommunicator) {
    out.Put(message.link);
    out.PutString(message.id);
    return out.Take();
  }
  out.PutString(message.stream);
  out.Put(message.index);
  if (message.type != Type::kTensor) out.Put(message.link);
  if (message.type == Type::kByNccl) {
    out.Put(message.sequence);
    out.Put(message.bytes);
  }
  return out.Take();
}

absl::StatusOr<LinkMessage> DecodeLink(absl::string_view bytes) {
  ByteReader in(bytes);
  const uint8_t magic = in.Get<uint8_t>(), type = in.Get<uint8_t>();
  if (in.failed() || magic != kMagic || type > static_cast<uint8_t>(Type::kByNccl)) {
    return absl::InvalidArgumentError(absl::StrCat("not a link's message: ", bytes.size(),
                                                   " bytes that begin with ", magic, " ", type));
  }
  LinkMessage message;
  message.type = static_cast<Type>(type);
  if (message.type == Type::kCommunicator) {
    message.link = in.Get<int64_t>();
    message.id = in.GetString();
  } else {
    message.stream = in.GetString();
    message.index = in.Get<int64_t>();
    if (message.type != Type::kTensor) message.link = in.Get<int64_t>();
    if (message.type == Type::kByNccl) {
      message.sequence = in.Get<int64_t>();
      message.bytes = in.Get<int64_t>();
    }
  }
  const absl::Status whole = in.Finish();
  if (!whole.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("not a link's message: ", whole.message()));
  }
  if (!InRange(message)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not a link's message: type ", type, ", a stream's name of ", message.stream.size(),
        " bytes, tensor ", message.index, ", link ", message.link, ", an id of ", message.id.size(),
        " bytes, number ", message.sequence, " of ", message.bytes, " bytes"));
  }
  return message;
}

}  // namespace longwave

#include "worker/links/link_messages.h"

#include "absl/strings/str_cat.h"
#include "formats/byte_codec.h"

namespace longwave {
namespace {

constexpr uint8_t kMagic = 0x53;  // 'S'

}  // namespace

std::string EncodeLink(const LinkMessage& message) {
  ByteWriter out;
  out.Put(kMagic);
  out.Put(static_cast<uint8_t>(message.type));
  out.PutString(message.stream);
  out.Put(message.index);
  return out.Take();
}

absl::StatusOr<LinkMessage> DecodeLink(absl::string_view bytes) {
  ByteReader in(bytes);
  const uint8_t magic = in.Get<uint8_t>(), type = in.Get<uint8_t>();
  LinkMessage message;
  message.stream = in.GetString();
  message.index = in.Get<int64_t>();
  const absl::Status whole = in.Finish();
  if (!whole.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("not a link's message: ", whole.message()));
  }
  if (magic != kMagic || type > static_cast<uint8_t>(LinkMessage::Type::kTensor) ||
      static_cast<int64_t>(message.stream.size()) > kMostStreamName || message.index < 0 ||
      message.index >= kMostStreamTensors) {
    return absl::InvalidArgumentError(absl::StrCat(
        "not a link's message: it begins with ", magic, ", is of type ", type,
        ", for a stream's name of ", message.stream.size(), " bytes, tensor ", message.index));
  }
  message.type = static_cast<LinkMessage::Type>(type);
  return message;
}

}  // namespace longwave

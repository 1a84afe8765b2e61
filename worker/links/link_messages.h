// What workers say to each other, and its bytes; docs/protocol.md has the grammar.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

inline constexpr int64_t kMostStreamName = 512;         // bytes
inline constexpr int64_t kMostStreamTensors = 1 << 20;  // of a stream
inline constexpr int64_t kMostTensorBytes = int64_t{1} << 30;
inline constexpr size_t kNcclIdBytes = 128;

struct LinkMessage {
  enum class Type : uint8_t {
    kSubscribe,     // send me tensor `index` of the stream, and those after it, as they come
    kTensor,        // that tensor; its bytes are the next frame
    kCommunicator,  // to a subscriber: our communicator `link`, of this id; no id: it is gone
    kByNccl,        // that tensor, `bytes` long, is the `sequence`-th of communicator `link`
  };
  // Of a subscriber: its end of communicator `link` is up, or one of these.
  static constexpr int64_t kNoNccl = 0;       // it has none, and wants none
  static constexpr int64_t kWantsNccl = -1;   // it would have one
  static constexpr int64_t kAwaitsNccl = -2;  // its end is not up yet

  Type type = Type::kSubscribe;
  std::string stream;  // empty in kCommunicator
  int64_t index = 0;
  int64_t link = 0;
  std::string id = {};  // kCommunicator
  int64_t sequence = 0, bytes = 0;

  bool operator==(const LinkMessage&) const = default;
};

std::string EncodeLink(const LinkMessage& message);
// InvalidArgument: the bytes are no message of this protocol.
absl::StatusOr<LinkMessage> DecodeLink(absl::string_view bytes);

}  // namespace longwave

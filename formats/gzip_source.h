// Gzip unpacked as it streams by: any number of members (bgzip writes thousands), checksums
// checked. Format: RFC 1952. Zero bytes after the last member (tape padding) are passed over;
// others are not.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/byte_source.h"

namespace longwave {

inline constexpr int64_t kGzipMagicSize = 3;

// 1f 8b, and 08 for deflate, the only method there is.
inline bool StartsWithGzipMagic(absl::Span<const uint8_t> bytes) {
  return bytes.size() >= 3 && bytes[0] == 0x1f && bytes[1] == 0x8b && bytes[2] == 8;
}

// REQUIRES: `packed` stands at a member's start. FractionRead() counts packed bytes.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenGzip(std::unique_ptr<ByteSource> packed);

}  // namespace longwave

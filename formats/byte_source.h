// A stream of bytes: a file, standard input, or either of them through gzip (found by its magic).
//
// Thread safety: none. Errors: absl::Status with the path and the system's or zlib's message; after
// one the stream is of no further use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace longwave {

class ByteSource {
 public:
  static constexpr int64_t kMaxPeek = 64 << 10;

  // "-" is standard input. Gzip (one member or several) is unpacked; a truncated or corrupt stream
  // is an error when reached.
  static absl::StatusOr<std::unique_ptr<ByteSource>> Open(const std::string& path);
  // Over bytes in memory that the caller keeps alive, as they are. For tests and fuzzing.
  static std::unique_ptr<ByteSource> FromMemory(absl::Span<const uint8_t> bytes,
                                                const std::string& name);
  // `packed` unpacked where it starts with the gzip magic, else `packed` itself. Open() does this.
  static absl::StatusOr<std::unique_ptr<ByteSource>> Unpacked(std::unique_ptr<ByteSource> packed);
  virtual ~ByteSource() = default;

  // Reads until `out` is full or the end; returns how many bytes.
  virtual absl::StatusOr<int64_t> Read(absl::Span<uint8_t> out) = 0;
  // The next bytes without consuming them, at most `n` (fewer at the end), n <= kMaxPeek. The view
  // lives until the next call.
  virtual absl::StatusOr<absl::Span<const uint8_t>> Peek(int64_t n) = 0;
  // Bytes of the underlying file read so far over its size; -1 where unknown.
  virtual double FractionRead() const = 0;
  // The path, or "standard input".
  virtual const std::string& name() const = 0;
};

}  // namespace longwave

// NumPy's .npy format, versions 1.0 to 3.0, C order, little endian: streamed in, streamed out.
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
// Thread safety: none. Errors: absl::Status with the offending value and the path.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/atomic_file.h"
#include "formats/byte_source.h"

namespace longwave {

enum class NpyType { kFloat32, kInt32, kInt64 };

struct NpyHeader {
  NpyType type;
  std::vector<int64_t> shape;
  int64_t data_offset;  // bytes from the start of the file to the first element

  int64_t elements() const;  // product of shape; the parser has checked that its bytes fit in int64
};

// The longest header that is read, magic included. NumPy itself stops at 10000 bytes.
inline constexpr int64_t kMaxNpyHeader = 64 << 10;

// What NpyWriter writes: np.save's own size for shapes of a few dimensions.
inline constexpr int64_t kWrittenNpyHeader = 128;

bool StartsWithNpyMagic(absl::Span<const uint8_t> bytes);

// Parses magic, version and the header dictionary. `bytes` may be longer than the header. A Fortran
// order array, a big-endian or other dtype, a header beyond kMaxNpyHeader, or a product of the
// shape beyond int64 is an error. OutOfRange means: more bytes are needed.
absl::StatusOr<NpyHeader> ParseNpyHeader(absl::Span<const uint8_t> bytes);

// A version 1.0 header padded to `size` bytes with spaces. InvalidArgument where it does not fit.
absl::StatusOr<std::string> FormatNpyHeader(NpyType type, absl::Span<const int64_t> shape,
                                            int64_t size);

// Reads an array front to back. Rows of float32: for `transform`.
class NpyReader {
 public:
  // Here and in Read...: a source that ends before or after the data the header promises is an
  // error where that is found.
  static absl::StatusOr<std::unique_ptr<NpyReader>> Open(std::unique_ptr<ByteSource> source);
  const NpyHeader& header() const { return header_; }
  // REQUIRES: header().type == kFloat32. Fills `out`; fewer elements only at the array's end.
  absl::StatusOr<int64_t> ReadFloats(absl::Span<float> out);
  // REQUIRES: header().type is kInt32 or kInt64. An id beyond int32 is an error naming it.
  absl::StatusOr<int64_t> ReadIds(absl::Span<int32_t> out);
  // Of the source: see ByteSource.
  double FractionRead() const { return source_->FractionRead(); }
  const std::string& name() const { return source_->name(); }

 private:
  NpyReader(std::unique_ptr<ByteSource> source, NpyHeader header);
  // Reads `count` elements, fewer at the array's end, into `out`; returns how many.
  absl::StatusOr<int64_t> ReadElements(void* out, int64_t count);
  absl::Status CheckEnd();  // nothing follows the last element

  std::unique_ptr<ByteSource> source_;
  NpyHeader header_;
  int64_t read_ = 0;  // elements
};

// Writes an array whose shape is known only at the end. What is written stands under a temporary
// name until Commit(); a writer destroyed before that leaves nothing behind.
class NpyWriter {
 public:
  // `path`: the name the array will have unless Commit() gives another in the same folder.
  static absl::StatusOr<std::unique_ptr<NpyWriter>> Create(const std::string& path, NpyType type);
  // In a kept file, after the `elements` that it holds already.
  static absl::StatusOr<std::unique_ptr<NpyWriter>> InKept(std::unique_ptr<AtomicFile> file,
                                                           NpyType type, int64_t elements);
  absl::Status Append(absl::Span<const float> values);    // REQUIRES: kFloat32
  absl::Status Append(absl::Span<const int32_t> values);  // REQUIRES: kInt32
  // Writes the header, flushes to the disk and renames. The product of `shape` must be the number
  // of elements appended. final_path empty: the path of Create().
  absl::Status Commit(const std::vector<int64_t>& shape, const std::string& final_path = "");
  int64_t elements() const { return elements_; }
  AtomicFile& file() { return *file_; }

 private:
  NpyWriter(std::unique_ptr<AtomicFile> file, NpyType type);
  absl::Status CheckPipe(size_t bytes) const;
  std::unique_ptr<AtomicFile> file_;
  NpyType type_;
  int64_t elements_ = 0;
};

}  // namespace longwave

// A boundary: all that one chunk of a sequence hands to the next, as a file. docs/formats.md has
// the layout. It is taken up only by what it was made for: the same model, the same position, and
// not one bit changed.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "formats/sha256.h"

namespace longwave {

inline constexpr int64_t kMostBoundary = int64_t{1} << 34;  // bytes that are read as one

struct BoundaryTensor {
  std::string name;  // "layers.3.ssm"
  std::vector<int64_t> shape;
  std::vector<float> values;

  bool operator==(const BoundaryTensor&) const = default;
};

struct Boundary {
  std::string model_hash;     // 64 hexadecimal digits
  int64_t position = 0;       // tokens before it
  std::vector<double> carry;  // the task's: see ChunkTask::carry()
  std::vector<BoundaryTensor> tensors;

  bool operator==(const Boundary&) const = default;
};

// Makes a boundary piece by piece, so that each tensor can go to its place once it is known:
// Begin(), Tensor() for each, End(). Errors: InvalidArgument for what the layout cannot hold,
// naming it; the sink's.
class BoundaryWriter {
 public:
  using Sink = std::function<absl::Status(absl::string_view bytes)>;
  explicit BoundaryWriter(Sink sink) : sink_(std::move(sink)) {}

  absl::Status Begin(absl::string_view model_hash, int64_t position, int64_t tensors);
  // `values`: the bytes of as many float32 as the shape has.
  absl::Status Tensor(absl::string_view name, absl::Span<const int64_t> shape,
                      absl::string_view values);
  absl::Status End(absl::Span<const double> carry);

 private:
  absl::Status Put(absl::string_view bytes);
  const Sink sink_;
  Sha256 hash_;
  int64_t tensors_left_ = 0;
};

absl::StatusOr<std::string> FormatBoundary(const Boundary& boundary);
// DataLoss where the checksum is not that of the bytes; InvalidArgument for bytes that are no
// boundary.
absl::StatusOr<Boundary> ParseBoundary(absl::string_view bytes);
// FailedPrecondition, with both values, unless the boundary is of this model and position.
absl::Status CheckBoundary(const Boundary& boundary, const std::string& model_hash,
                           int64_t position);

}  // namespace longwave

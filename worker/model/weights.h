// Tensors of a model file as a model needs them: as float32 on the host, straight from the mapped
// file where they are aligned float32 and converted once otherwise; and where the model's operators
// read them, on a GPU as a copy in the model's dtype. Every tensor is checked for its shape and for
// non-finite values. Without a file the tensors are random.
//
// Thread safety: none while loading. Pointers live as long as the loader's `owned` list is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/safetensors.h"
#include "kernels/dtype.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"

namespace longwave {

class WeightLoader {
 public:
  // `stream`: of the GPU that the model runs on, with weights of `dtype`; null: the CPU. `file`
  // null: random tensors, the same for the same name and `seed`, of the sizes that trained ones
  // have.
  explicit WeightLoader(std::shared_ptr<const Safetensors> file, Stream* stream = nullptr,
                        Dtype dtype = Dtype::kFloat32, uint64_t seed = 0)
      : file_(std::move(file)), stream_(stream), dtype_(dtype), seed_(seed) {
    owned_.push_back(file_);
  }

  // ---- On the host, for what a layer prepares of them.
  // NotFound where the tensor is missing; InvalidArgument, naming both shapes, where its shape
  // differs, or where element i is not finite.
  absl::StatusOr<const float*> Load(const std::string& name, const std::vector<int64_t>& shape);
  // The same, as a copy to `out`: for tensors that are laid together.
  absl::Status LoadInto(const std::string& name, const std::vector<int64_t>& shape, float* out);

  // ---- Where operators read them.
  // Of dtype().
  absl::StatusOr<const void*> LoadWeight(const std::string& name,
                                         const std::vector<int64_t>& shape);
  // float32.
  absl::StatusOr<const float*> LoadBias(const std::string& name, int64_t width);
  // prefix + "weight" and prefix + "bias", (width) each, float32.
  absl::StatusOr<LayerNormWeights> LoadNorm(const std::string& prefix, int64_t width, double eps);
  // What a layer has prepared; `name` stands in the error where a value is beyond `dtype`.
  absl::StatusOr<const void*> Place(const std::string& name, std::vector<float> values,
                                    Dtype dtype);

  std::string path() const { return file_ == nullptr ? "random weights" : file_->path(); }
  Dtype dtype() const { return dtype_; }
  Stream* stream() const { return stream_; }
  int64_t parameters() const { return parameters_; }
  int64_t bytes() const { return bytes_; }  // where operators read them, the mapped file's included
  void CountBytes(int64_t bytes) { bytes_ += bytes; }  // of constants a layer prepared
  std::vector<std::shared_ptr<const void>> TakeOwned() { return std::move(owned_); }

 private:
  // The tensor, of this shape and a float type.
  absl::StatusOr<TensorView> Check(const std::string& name,
                                   const std::vector<int64_t>& shape) const;
  // Counts `data` of the tensor, where it is finite.
  absl::Status Accept(const std::string& name, const float* data, int64_t count);
  absl::StatusOr<const void*> LoadAs(const std::string& name, const std::vector<int64_t>& shape,
                                     Dtype dtype);
  absl::StatusOr<const void*> Upload(const std::string& name, const float* values, int64_t count,
                                     Dtype dtype);

  std::shared_ptr<const Safetensors> file_;
  Stream* stream_;
  Dtype dtype_;
  uint64_t seed_;
  std::vector<std::shared_ptr<const void>> owned_;
  std::vector<char> staging_;  // of an upload
  int64_t parameters_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace longwave

// Assigns the value of a StatusOr to `lhs`, or returns its error.
#define LONGWAVE_ASSIGN_OR_RETURN(lhs, expr)  \
  do {                                        \
    auto result = (expr);                     \
    if (!result.ok()) return result.status(); \
    lhs = *std::move(result);                 \
  } while (false)

// Tensors of a model file as float32: straight from the mapped file where they are aligned float32,
// converted once otherwise. Every tensor is checked for its shape and for non-finite values.
//
// Thread safety: none while loading. Pointers live as long as the loader's `owned` list is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "formats/safetensors.h"
#include "kernels/layer_norm.h"

namespace longwave {

class WeightLoader {
 public:
  explicit WeightLoader(std::shared_ptr<const Safetensors> file) : file_(std::move(file)) {
    owned_.push_back(file_);
  }

  // NotFound where the tensor is missing; InvalidArgument, naming both shapes, where its shape
  // differs, or where element i is not finite.
  absl::StatusOr<const float*> Load(const std::string& name, const std::vector<int64_t>& shape);
  // The same, as a copy to `out`: for tensors that are laid together.
  absl::Status LoadInto(const std::string& name, const std::vector<int64_t>& shape, float* out);
  // prefix + "weight" and prefix + "bias", (width) each.
  absl::StatusOr<LayerNormWeights> LoadNorm(const std::string& prefix, int64_t width, double eps);

  const std::string& path() const { return file_->path(); }
  int64_t parameters() const { return parameters_; }
  int64_t bytes() const { return bytes_; }             // in memory, the mapped file's included
  void CountBytes(int64_t bytes) { bytes_ += bytes; }  // of constants a layer prepared
  std::vector<std::shared_ptr<const void>> TakeOwned() { return std::move(owned_); }

 private:
  // The tensor, of this shape and a float type.
  absl::StatusOr<TensorView> Check(const std::string& name,
                                   const std::vector<int64_t>& shape) const;
  // Counts `data` of the tensor, where it is finite.
  absl::Status Accept(const std::string& name, const float* data, int64_t count);

  std::shared_ptr<const Safetensors> file_;
  std::vector<std::shared_ptr<const void>> owned_;
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

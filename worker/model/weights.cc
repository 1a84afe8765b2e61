#include "worker/model/weights.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

// The index of the first inf or NaN, or -1. Bits, so that the loop runs in vectors.
int64_t FirstNonFinite(const float* x, int64_t count) {
  constexpr int64_t kBlock = 1024;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = begin + kBlock < count ? begin + kBlock : count;
    uint32_t bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, sizeof(bits));
      bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (bad == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, sizeof(bits));
      if ((bits & 0x7f800000u) == 0x7f800000u) return i;
    }
  }
  return -1;
}

}  // namespace

absl::StatusOr<TensorView> WeightLoader::Check(const std::string& name,
                                               const std::vector<int64_t>& shape) const {
  absl::StatusOr<TensorView> tensor = file_->Find(name);
  if (!tensor.ok()) return tensor.status();
  if (tensor->shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": tensor '", name, "' has shape ",
                                                   ShapeString(tensor->shape), ", not ",
                                                   ShapeString(shape), " as config.json asks"));
  }
  const bool is_float = tensor->dtype == DType::kF32 || tensor->dtype == DType::kF16 ||
                        tensor->dtype == DType::kBF16 || tensor->dtype == DType::kF64;
  if (!is_float) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": tensor '", name, "' has type ",
                                                   Name(tensor->dtype),
                                                   ", not F32, F16, BF16 or F64"));
  }
  return tensor;
}

absl::Status WeightLoader::Accept(const std::string& name, const float* data, int64_t count) {
  if (const int64_t bad = FirstNonFinite(data, count); bad >= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": tensor '", name, "' has ", data[bad], " at element ", bad));
  }
  parameters_ += count;
  bytes_ += count * static_cast<int64_t>(sizeof(float));
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadInto(const std::string& name, const std::vector<int64_t>& shape,
                                    float* out) {
  const absl::StatusOr<TensorView> tensor = Check(name, shape);
  if (!tensor.ok()) return tensor.status();
  ConvertToFloat(*tensor, out);
  return Accept(name, out, tensor->elements());
}

absl::StatusOr<const float*> WeightLoader::Load(const std::string& name,
                                                const std::vector<int64_t>& shape) {
  const absl::StatusOr<TensorView> tensor = Check(name, shape);
  if (!tensor.ok()) return tensor.status();
  const float* data = reinterpret_cast<const float*>(tensor->data);
  if (tensor->dtype != DType::kF32 || reinterpret_cast<uintptr_t>(data) % alignof(float) != 0) {
    auto converted = std::make_shared<std::vector<float>>(tensor->elements());
    ConvertToFloat(*tensor, converted->data());
    data = converted->data();
    owned_.push_back(std::move(converted));
  }
  const absl::Status accepted = Accept(name, data, tensor->elements());
  if (!accepted.ok()) return accepted;
  return data;
}

absl::StatusOr<LayerNormWeights> WeightLoader::LoadNorm(const std::string& prefix, int64_t width,
                                                        double eps) {
  LayerNormWeights norm;
  norm.eps = static_cast<float>(eps);
  LONGWAVE_ASSIGN_OR_RETURN(norm.scale, Load(prefix + "weight", {width}));
  LONGWAVE_ASSIGN_OR_RETURN(norm.shift, Load(prefix + "bias", {width}));
  return norm;
}

}  // namespace longwave

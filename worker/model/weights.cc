#include "worker/model/weights.h"

#include <cmath>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "worker/model/random_weights.h"

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
  if (stream_ == nullptr) bytes_ += count * static_cast<int64_t>(sizeof(float));
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadInto(const std::string& name, const std::vector<int64_t>& shape,
                                    float* out) {
  if (file_ == nullptr) {
    const std::vector<float> values = RandomWeights(name, shape, seed_);
    std::memcpy(out, values.data(), values.size() * sizeof(float));
    return Accept(name, out, static_cast<int64_t>(values.size()));
  }
  const absl::StatusOr<TensorView> tensor = Check(name, shape);
  if (!tensor.ok()) return tensor.status();
  ConvertToFloat(*tensor, out);
  return Accept(name, out, tensor->elements());
}

absl::StatusOr<const float*> WeightLoader::Load(const std::string& name,
                                                const std::vector<int64_t>& shape) {
  std::shared_ptr<std::vector<float>> made;
  const float* data;
  int64_t count;
  if (file_ == nullptr) {
    made = std::make_shared<std::vector<float>>(RandomWeights(name, shape, seed_));
    count = static_cast<int64_t>(made->size());
  } else {
    const absl::StatusOr<TensorView> tensor = Check(name, shape);
    if (!tensor.ok()) return tensor.status();
    data = reinterpret_cast<const float*>(tensor->data);
    count = tensor->elements();
    if (tensor->dtype != DType::kF32 || reinterpret_cast<uintptr_t>(data) % alignof(float) != 0) {
      made = std::make_shared<std::vector<float>>(count);
      ConvertToFloat(*tensor, made->data());
    }
  }
  if (made != nullptr) {
    data = made->data();
    owned_.push_back(std::move(made));
  }
  const absl::Status accepted = Accept(name, data, count);
  if (!accepted.ok()) return accepted;
  return data;
}

absl::StatusOr<const void*> WeightLoader::Upload(const std::string& name, const float* values,
                                                 int64_t count, Dtype dtype) {
  constexpr float kMostHalf = 65504;
  for (int64_t i = 0; dtype == Dtype::kFloat16 && i < count; ++i) {
    if (!(std::abs(values[i]) <= kMostHalf)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path(), ": tensor '", name, "' has ", values[i], " at element ", i,
                       ", which float16 cannot hold (--dtype bfloat16 or float32 can)"));
    }
  }
  const int64_t bytes = count * SizeOf(dtype);
  absl::StatusOr<Array> array = Array::Allocate(stream_->device(), bytes);
  if (!array.ok()) return array.status();
  const void* host = values;
  if (dtype != Dtype::kFloat32) {
    staging_.resize(std::max(staging_.size(), static_cast<size_t>(bytes)));
    FromFloats(dtype, values, count, staging_.data());
    host = staging_.data();
  }
  const absl::Status copied = CopyIn(array->data(), host, bytes, *stream_);
  if (!copied.ok()) return copied;
  bytes_ += bytes;
  const void* data = array->data();
  owned_.push_back(std::make_shared<Array>(*std::move(array)));
  return data;
}

absl::StatusOr<const void*> WeightLoader::Place(const std::string& name, std::vector<float> values,
                                                Dtype dtype) {
  if (stream_ != nullptr) {
    return Upload(name, values.data(), static_cast<int64_t>(values.size()), dtype);
  }
  auto kept = std::make_shared<std::vector<float>>(std::move(values));
  const void* data = kept->data();
  owned_.push_back(std::move(kept));
  return data;
}

absl::StatusOr<const void*> WeightLoader::LoadAs(const std::string& name,
                                                 const std::vector<int64_t>& shape, Dtype dtype) {
  const size_t owned = owned_.size();
  const absl::StatusOr<const float*> host = Load(name, shape);
  if (!host.ok() || stream_ == nullptr) return host;
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  const absl::StatusOr<const void*> uploaded = Upload(name, *host, count, dtype);
  // A copy on the host has done its work.
  if (uploaded.ok()) owned_.erase(owned_.begin() + owned, owned_.end() - 1);
  return uploaded;
}

absl::StatusOr<const void*> WeightLoader::LoadWeight(const std::string& name,
                                                     const std::vector<int64_t>& shape) {
  return LoadAs(name, shape, dtype_);
}

absl::StatusOr<const float*> WeightLoader::LoadBias(const std::string& name, int64_t width) {
  const absl::StatusOr<const void*> bias = LoadAs(name, {width}, Dtype::kFloat32);
  if (!bias.ok()) return bias.status();
  return static_cast<const float*>(*bias);
}

absl::StatusOr<LayerNormWeights> WeightLoader::LoadNorm(const std::string& prefix, int64_t width,
                                                        double eps) {
  LayerNormWeights norm;
  norm.eps = static_cast<float>(eps);
  LONGWAVE_ASSIGN_OR_RETURN(norm.scale, LoadBias(prefix + "weight", width));
  LONGWAVE_ASSIGN_OR_RETURN(norm.shift, LoadBias(prefix + "bias", width));
  return norm;
}

}  // namespace longwave

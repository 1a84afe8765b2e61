// Mlp: x += fc2(activation(fc1(norm(x)))). On the CPU the inner array never leaves a thread's tile;
// fewer than 64 rows run as two Gemms, cut along their outputs, so that all threads have work. On a
// GPU it is a LayerNorm and two Gemms over tiles of at most kGpuRows rows.
//
// Thread safety: Run may be called from several threads with a Stream each; the result does not
// depend on the threads.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"

namespace longwave {

struct MlpDesc {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t inner = 0;
  Activation activation = Activation::kGeluTanh;
  Dtype dtype = Dtype::kFloat32;           // weights and products
  Dtype fc1_bias_dtype = Dtype::kFloat32;  // float32, or dtype, which saves a launch on a GPU

  static constexpr int64_t kGpuRows = 16384;

  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;  // for each thread of the CPU
  // Of Queue::Scratch: min(rows, kGpuRows) x (width + inner) of dtype, and the bias.
  int64_t gpu_scratch_bytes() const;
};

struct MlpArgs {
  float* x = nullptr;  // (rows, width), the residual stream, read and added to
  LayerNormWeights norm;
  const void* fc1_weight = nullptr;  // (inner, width)
  const void* fc1_bias = nullptr;    // (inner), of fc1_bias_dtype
  const void* fc2_weight = nullptr;  // (width, inner)
  const float* fc2_bias = nullptr;   // (width)
};

absl::Status RunMlp(const MlpDesc& desc, const MlpArgs& args, Stream& stream);

}  // namespace longwave

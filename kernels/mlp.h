// Mlp: x += fc2(activation(fc1(norm(x)))), the inner array never leaving a thread's tile. Fewer
// than 64 rows run as two Gemms, cut along their outputs, so that all threads have work.
//
// Thread safety: Run may be called from several threads with a Stream each; the result does not
// depend on the threads.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"

namespace longwave {

struct MlpDesc {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t inner = 0;
  Activation activation = Activation::kGeluTanh;

  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;  // for each thread
};

struct MlpArgs {
  float* x = nullptr;  // (rows, width), read and added to
  LayerNormWeights norm;
  const float* fc1_weight = nullptr;  // (inner, width)
  const float* fc1_bias = nullptr;    // (inner)
  const float* fc2_weight = nullptr;  // (width, inner)
  const float* fc2_bias = nullptr;    // (width)
};

absl::Status RunMlp(const MlpDesc& desc, const MlpArgs& args, Stream& stream);

}  // namespace longwave

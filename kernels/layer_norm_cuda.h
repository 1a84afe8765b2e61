// LayerNorm on a GPU.
#pragma once

#include "kernels/layer_norm.h"

namespace longwave {

// y packed, row r of x at x + r * x_stride. Types are the same, or x is float32.
absl::Status RunLayerNormCuda(const LayerNormWeights& weights, int64_t rows, int64_t width,
                              const void* x, int64_t x_stride, Dtype x_dtype, void* y,
                              Dtype y_dtype, Stream& stream);

}  // namespace longwave

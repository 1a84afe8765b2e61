// LayerNorm: y = (x - mean) / sqrt(variance + eps) * scale + shift over each row (Ba et al., 2016).
//
// On a GPU x and y are float32 or 16-bit each, sums float32; on the CPU both are float32.
//
// Thread safety: free functions without state.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/stream.h"

namespace longwave {

struct LayerNormWeights {
  const float* scale = nullptr;  // (width)
  const float* shift = nullptr;  // (width)
  float eps = 1e-5f;
};

// One thread: rows of `width`, row r of x at x + r * x_stride. y may be x.
void LayerNormRows(const LayerNormWeights& weights, int64_t rows, int64_t width, const float* x,
                   int64_t x_stride, float* y, int64_t y_stride);

// All of the device, packed rows. y may be x where their types are the same.
absl::Status RunLayerNorm(const LayerNormWeights& weights, int64_t rows, int64_t width,
                          const void* x, void* y, Stream& stream, Dtype x_dtype = Dtype::kFloat32,
                          Dtype y_dtype = Dtype::kFloat32);

}  // namespace longwave

// What stands between the operators of a layer over signals (S4D): an activation on channel-major
// data, GLU with the residual, and the transpose from token-major to channel-major.
//
// On the CPU every dtype is float32. Thread safety: free functions without state.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/gelu.h"
#include "kernels/stream.h"

namespace longwave {

// In place on `channels` channels of `length`, `stride` elements apart.
absl::Status RunActivate(Activation activation, int64_t channels, int64_t length, int64_t stride,
                         Dtype dtype, void* x, Stream& stream);

// x[r] = or += a sigmoid(b), with (a, b) the halves of z[r]. z (rows, 2 width) of `dtype`, x (rows,
// width) float32.
absl::Status RunGlu(int64_t rows, int64_t width, bool accumulate, Dtype dtype, const void* z,
                    float* x, Stream& stream);

// out (columns, rows), `stride` elements between its rows, = x (rows, columns) transposed.
absl::Status RunTranspose(int64_t rows, int64_t columns, Dtype x_dtype, const void* x,
                          Dtype out_dtype, void* out, int64_t stride, Stream& stream);

}  // namespace longwave

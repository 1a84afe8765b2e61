// signal_ops.h on a GPU.
#pragma once

#include "kernels/signal_ops.h"

namespace longwave {

absl::Status RunActivateCuda(Activation activation, int64_t channels, int64_t length,
                             int64_t stride, Dtype dtype, void* x, Stream& stream);
absl::Status RunGluCuda(int64_t rows, int64_t width, bool accumulate, Dtype dtype, const void* z,
                        float* x, Stream& stream);
absl::Status RunTransposeCuda(int64_t rows, int64_t columns, Dtype x_dtype, const void* x,
                              Dtype out_dtype, void* out, int64_t stride, Stream& stream);

}  // namespace longwave

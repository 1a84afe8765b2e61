#include "kernels/layer_norm.h"

#include <algorithm>

#include "kernels/checks.h"
#include "kernels/layer_norm_cuda.h"

namespace longwave {

absl::Status RunLayerNorm(const LayerNormWeights& weights, int64_t rows, int64_t width,
                          const void* x, void* y, Stream& stream, Dtype x_dtype, Dtype y_dtype) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LayerNorm", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LayerNorm", "width", width, 1, 1 << 24));
  if (stream.device().is_gpu()) {
    return RunLayerNormCuda(weights, rows, width, x, width, x_dtype, y, y_dtype, stream);
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("LayerNorm", "x", x_dtype));
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("LayerNorm", "y", y_dtype));
  const float* from = static_cast<const float*>(x);
  float* to = static_cast<float*>(y);
  constexpr int64_t kRows = 256;
  stream.pool().ParallelFor((rows + kRows - 1) / kRows, [&](int64_t i, int) {
    const int64_t row = i * kRows;
    LayerNormRows(weights, std::min(kRows, rows - row), width, from + row * width, width,
                  to + row * width, width);
  });
  return absl::OkStatus();
}

}  // namespace longwave

#include "kernels/layer_norm.h"

#include <algorithm>

#include "kernels/checks.h"

namespace longwave {

absl::Status RunLayerNorm(const LayerNormWeights& weights, int64_t rows, int64_t width,
                          const float* x, float* y, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LayerNorm", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LayerNorm", "width", width, 1, 1 << 24));
  constexpr int64_t kRows = 256;
  stream.pool().ParallelFor((rows + kRows - 1) / kRows, [&](int64_t i, int) {
    const int64_t row = i * kRows;
    LayerNormRows(weights, std::min(kRows, rows - row), width, x + row * width, width,
                  y + row * width, width);
  });
  return absl::OkStatus();
}

}  // namespace longwave

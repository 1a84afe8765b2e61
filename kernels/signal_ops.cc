#include "kernels/signal_ops.h"

#include <algorithm>

#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/signal_ops_cuda.h"

namespace longwave {

absl::Status RunActivate(Activation activation, int64_t channels, int64_t length, int64_t stride,
                         Dtype dtype, void* x, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Activate", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Activate", "length", length, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Activate", "stride", stride, length));
  if (activation == Activation::kNone) return absl::OkStatus();
  if (stream.device().is_gpu()) {
    return RunActivateCuda(activation, channels, length, stride, dtype, x, stream);
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Activate", "dtype", dtype));
  float* data = static_cast<float*>(x);
  stream.pool().ParallelFor(
      channels, [&](int64_t c, int) { Activate(activation, data + c * stride, length); });
  return absl::OkStatus();
}

absl::Status RunGlu(int64_t rows, int64_t width, bool accumulate, Dtype dtype, const void* z,
                    float* x, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Glu", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Glu", "width", width, 1, 1 << 24));
  if (stream.device().is_gpu()) return RunGluCuda(rows, width, accumulate, dtype, z, x, stream);
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Glu", "dtype", dtype));
  const float* halves = static_cast<const float*>(z);
  constexpr int64_t kRows = 64;
  stream.pool().ParallelFor((rows + kRows - 1) / kRows, [&](int64_t i, int worker) {
    float* gated = accumulate ? stream.Scratch(worker, width) : nullptr;
    for (int64_t r = i * kRows; r < std::min(rows, (i + 1) * kRows); ++r) {
      const float* row = halves + r * 2 * width;
      float* out = x + r * width;
      Glu(row, row + width, accumulate ? gated : out, width);
      if (accumulate) Add(gated, out, width);
    }
  });
  return absl::OkStatus();
}

absl::Status RunTranspose(int64_t rows, int64_t columns, Dtype x_dtype, const void* x,
                          Dtype out_dtype, void* out, int64_t stride, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Transpose", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Transpose", "columns", columns, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Transpose", "stride", stride, rows));
  if (stream.device().is_gpu()) {
    return RunTransposeCuda(rows, columns, x_dtype, x, out_dtype, out, stride, stream);
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Transpose", "x", x_dtype));
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Transpose", "out", out_dtype));
  const float* from = static_cast<const float*>(x);
  float* to = static_cast<float*>(out);
  constexpr int64_t kTile = 64;  // stays in cache
  stream.pool().ParallelFor((rows + kTile - 1) / kTile, [&](int64_t i, int) {
    const int64_t end = std::min(rows, (i + 1) * kTile);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = i * kTile; r < end; ++r) to[c * stride + r] = from[r * columns + c];
    }
  });
  return absl::OkStatus();
}

}  // namespace longwave

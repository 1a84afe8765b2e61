// signal_ops.h on a GPU, all at the memory's speed.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/gemm_cuda.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/signal_ops_cuda.h"

namespace longwave {
namespace {

template <typename T>
__global__ void __launch_bounds__(256)
    Gated(int64_t rows, int64_t width, bool accumulate, const T* z, float* x, bool vectors) {
  const int64_t groups = (width + 7) / 8, step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * groups; i += step) {
    const int64_t row = i / groups, column = i % groups * 8;
    const T* a = z + row * 2 * width + column;
    float* out = x + row * width + column;
    const int64_t count = std::min(int64_t{8}, width - column);
    float left[8], right[8], sum[8] = {};
    gpu::LoadUpTo8(a, count, vectors, left);
    gpu::LoadUpTo8(a + width, count, vectors, right);
    if (accumulate) gpu::LoadUpTo8(out, count, vectors, sum);
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) sum[j] += left[j] * gpu::Sigmoid(right[j]);
    gpu::StoreUpTo8(out, count, vectors, sum);
  }
}

// A tile of 64 x 64 through shared memory, whose odd row length keeps columns off one bank.
constexpr int kTile = 64;
template <typename TX, typename TOut>
__global__ void __launch_bounds__(256)
    Transpose(int64_t rows, int64_t columns, const TX* x, TOut* out, int64_t stride) {
  float* tile = reinterpret_cast<float*>(gpu::DynamicShared());  // (64, 65)
  const int64_t row_tiles = (rows + kTile - 1) / kTile;
  const int64_t row = int64_t{blockIdx.x} % row_tiles * kTile;
  const int64_t column = int64_t{blockIdx.x} / row_tiles * kTile;
  const int warp = gpu::WarpOfBlock(), lane = gpu::Lane();
  LONGWAVE_UNROLL for (int i = 0; i < kTile; i += 8) {
    const int64_t r = row + i + warp;
    LONGWAVE_UNROLL for (int j = 0; j < kTile; j += 32) {
      const int64_t c = column + j + lane;
      if (r < rows && c < columns) {
        tile[(i + warp) * (kTile + 1) + j + lane] = gpu::ToFloat(x[r * columns + c]);
      }
    }
  }
  gpu::SyncBlock();
  LONGWAVE_UNROLL for (int i = 0; i < kTile; i += 8) {
    const int64_t c = column + i + warp;
    LONGWAVE_UNROLL for (int j = 0; j < kTile; j += 32) {
      const int64_t r = row + j + lane;
      if (r < rows && c < columns) {
        out[c * stride + r] = gpu::FromFloat<TOut>(tile[(j + lane) * (kTile + 1) + i + warp]);
      }
    }
  }
}

}  // namespace

absl::Status RunActivateCuda(Activation activation, int64_t channels, int64_t length,
                             int64_t stride, Dtype dtype, void* x, Stream& stream) {
  return RunBiasActivationCuda({.x = x,
                                .dtype = dtype,
                                .major = channels,
                                .minor = length,
                                .stride = stride,
                                .activation = activation},
                               stream);
}

absl::Status RunGluCuda(int64_t rows, int64_t width, bool accumulate, Dtype dtype, const void* z,
                        float* x, Stream& stream) {
  const bool vectors = gpu::Aligned16(z, width * SizeOf(dtype)) &&
                       gpu::Aligned16(x, width * static_cast<int64_t>(sizeof(float)));
  const int64_t blocks = (rows * ((width + 7) / 8) + 255) / 256;
  const dim3 grid(static_cast<unsigned>(
      std::min<int64_t>(blocks, 16 * std::max(1, stream.device().multiprocessors))));
  return gpu::WithType(dtype, [&](auto type) {
    using T = decltype(type);
    return gpu::Launch("Glu", absl::StrCat("(rows=", rows, " width=", width, ")"), Gated<T>, grid,
                       256, 0, stream.queue().stream(), rows, width, accumulate,
                       static_cast<const T*>(z), x, vectors);
  });
}

absl::Status RunTransposeCuda(int64_t rows, int64_t columns, Dtype x_dtype, const void* x,
                              Dtype out_dtype, void* out, int64_t stride, Stream& stream) {
  const int64_t tiles = (rows + kTile - 1) / kTile * ((columns + kTile - 1) / kTile);
  return gpu::WithTypes("Transpose", out_dtype, x_dtype, [&](auto out_type, auto x_type) {
    using TX = decltype(x_type);
    using TOut = decltype(out_type);
    return gpu::Launch("Transpose", absl::StrCat("(rows=", rows, " columns=", columns, ")"),
                       Transpose<TX, TOut>, dim3(static_cast<unsigned>(tiles)), 256,
                       kTile * (kTile + 1) * 4, stream.queue().stream(), rows, columns,
                       static_cast<const TX*>(x), static_cast<TOut*>(out), stride);
  });
}

}  // namespace longwave

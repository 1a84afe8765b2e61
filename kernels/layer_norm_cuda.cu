// LayerNorm on a GPU: a warp for each row, the whole row in registers: read once with 16-byte
// loads, mean, then the squares about it, written once. Widths that registers do not hold, or that
// 16-byte loads do not fit, go by a block for each row that reads it three times, from cache.
// Memory's speed: H3-125M's rows of 768 (float32 in, 16 bits out) move 4.6 KB each.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/layer_norm_cuda.h"

namespace longwave {
namespace {

struct LayerNormParams {
  const void* x;
  void* y;
  const float *scale, *shift;
  float eps;
  int64_t rows, x_stride;
  int width;
};

LONGWAVE_DEVICE float SumOfWarp(float v) {
  LONGWAVE_UNROLL for (int step = 16; step > 0; step /= 2) v += gpu::ShuffleXor(v, step);
  return v;
}

template <typename T>
LONGWAVE_DEVICE void Load4(const T* p, float (&v)[4]) {
  if constexpr (sizeof(T) == 4) {
    const float4 four = *reinterpret_cast<const float4*>(p);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  } else {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    const float2 low = gpu::Unpack(bits.x, T()), high = gpu::Unpack(bits.y, T());
    v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
  }
}
template <typename T>
LONGWAVE_DEVICE void Store4(T* p, const float (&v)[4]) {
  if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    *reinterpret_cast<uint2*>(p) =
        make_uint2(gpu::Pack(v[0], v[1], T()), gpu::Pack(v[2], v[3], T()));
  }
}

// Four values a lane in each of kSteps steps: widths up to 128 kSteps, multiples of 4.
template <typename TX, typename TY, int kSteps>
__global__ void __launch_bounds__(128) NormRow(const LayerNormParams p) {
  const int64_t row = int64_t{blockIdx.x} * 4 + gpu::WarpOfBlock();
  if (row >= p.rows) return;
  const TX* x = static_cast<const TX*>(p.x) + row * p.x_stride;
  TY* y = static_cast<TY*>(p.y) + row * p.width;
  float v[kSteps][4];
  LONGWAVE_UNROLL for (int s = 0; s < kSteps; ++s) {
    const int i = (s * 32 + gpu::Lane()) * 4;
    LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) v[s][j] = 0;
    if (i < p.width) Load4(x + i, v[s]);
  }
  float sum = 0;
  LONGWAVE_UNROLL for (int s = 0; s < kSteps; ++s) {
    sum += (v[s][0] + v[s][1]) + (v[s][2] + v[s][3]);
  }
  const float mean = SumOfWarp(sum) / static_cast<float>(p.width);
  float squares = 0;
  LONGWAVE_UNROLL for (int s = 0; s < kSteps; ++s) {
    const int i = (s * 32 + gpu::Lane()) * 4;
    LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) v[s][j] -= mean;
    if (i < p.width) {
      LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) squares += v[s][j] * v[s][j];
    }
  }
  const float factor = rsqrtf(SumOfWarp(squares) / static_cast<float>(p.width) + p.eps);
  LONGWAVE_UNROLL for (int s = 0; s < kSteps; ++s) {
    const int i = (s * 32 + gpu::Lane()) * 4;
    if (i < p.width) {
      float scale[4], shift[4];
      Load4(p.scale + i, scale);
      Load4(p.shift + i, shift);
      LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) v[s][j] = v[s][j] * factor * scale[j] + shift[j];
      Store4(y + i, v[s]);
    }
  }
}

// `shared`: a float for each warp. The same result in all threads.
LONGWAVE_DEVICE float SumOfBlock(float v, float* shared) {
  v = SumOfWarp(v);
  gpu::SyncBlock();  // what stood in `shared` has been read
  if (gpu::Lane() == 0) shared[gpu::WarpOfBlock()] = v;
  gpu::SyncBlock();
  float sum = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) sum += shared[i];
  return sum;
}

template <typename TX, typename TY>
__global__ void __launch_bounds__(256) NormAnyRow(const LayerNormParams p) {
  float* shared = reinterpret_cast<float*>(gpu::DynamicShared());
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const TX* x = static_cast<const TX*>(p.x) + row * p.x_stride;
    TY* y = static_cast<TY*>(p.y) + row * p.width;
    const int first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
    float sum = 0;
    for (int i = first; i < p.width; i += step) sum += gpu::ToFloat(x[i]);
    const float mean = SumOfBlock(sum, shared) / static_cast<float>(p.width);
    float squares = 0;
    for (int i = first; i < p.width; i += step) {
      const float v = gpu::ToFloat(x[i]) - mean;
      squares += v * v;
    }
    const float factor = rsqrtf(SumOfBlock(squares, shared) / static_cast<float>(p.width) + p.eps);
    for (int i = first; i < p.width; i += step) {
      const float v = (gpu::ToFloat(x[i]) - mean) * factor;
      y[i] = gpu::FromFloat<TY>(v * p.scale[i] + p.shift[i]);
    }
  }
}

template <typename TX, typename TY>
absl::Status RunTyped(const LayerNormParams& p, Stream& stream) {
  const std::string sizes = absl::StrCat("(rows=", p.rows, " width=", p.width, ")");
  // 4 values of 16 bits are 8 bytes.
  const auto aligned = [](const void* data, int64_t row_bytes, size_t size) {
    return reinterpret_cast<uintptr_t>(data) % (4 * size) == 0 &&
           row_bytes % static_cast<int64_t>(4 * size) == 0;
  };
  const bool vectors = p.width % 4 == 0 && aligned(p.x, p.x_stride * sizeof(TX), sizeof(TX)) &&
                       aligned(p.y, p.width * sizeof(TY), sizeof(TY)) && gpu::Aligned16(p.scale) &&
                       gpu::Aligned16(p.shift);
  if (!vectors || p.width > 2560) {
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(p.rows, 1 << 20)));
    return gpu::Launch("LayerNorm", sizes, NormAnyRow<TX, TY>, grid, 256, 8 * sizeof(float),
                       stream.queue().stream(), p);
  }
  const auto launch = [&](auto kernel) {
    return gpu::Launch("LayerNorm", sizes, kernel, dim3(static_cast<unsigned>((p.rows + 3) / 4)),
                       128, 0, stream.queue().stream(), p);
  };
  if (p.width <= 256) return launch(NormRow<TX, TY, 2>);
  if (p.width <= 768) return launch(NormRow<TX, TY, 6>);
  if (p.width <= 1024) return launch(NormRow<TX, TY, 8>);
  if (p.width <= 2048) return launch(NormRow<TX, TY, 16>);
  return launch(NormRow<TX, TY, 20>);
}

}  // namespace

absl::Status RunLayerNormCuda(const LayerNormWeights& weights, int64_t rows, int64_t width,
                              const void* x, int64_t x_stride, Dtype x_dtype, void* y,
                              Dtype y_dtype, Stream& stream) {
  const LayerNormParams p{x,           y,    weights.scale, weights.shift,
                          weights.eps, rows, x_stride,      static_cast<int>(width)};
  return gpu::WithTypes("LayerNorm", y_dtype, x_dtype, [&](auto y_type, auto x_type) {
    return RunTyped<decltype(x_type), decltype(y_type)>(p, stream);
  });
}

}  // namespace longwave

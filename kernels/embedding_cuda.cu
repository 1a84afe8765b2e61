// Embedding lookup, the largest logit, and counters on a GPU.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/embedding_cuda.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"

namespace longwave {
namespace {

// A block of four warps copies four rows at a time, a warp each.
template <typename T>
__global__ void __launch_bounds__(128)
    Lookup(int64_t rows, int64_t width, int64_t vocab, const T* table, const int32_t* tokens,
           float* x, bool vectors) {
  const int64_t row = int64_t{blockIdx.x} * 4 + gpu::WarpOfBlock();
  if (row >= rows) return;
  const int64_t token = tokens[row];
  const bool known = token >= 0 && token < vocab;
  const T* from = table + (known ? token : 0) * width;
  float* to = x + row * width;
  for (int64_t i = gpu::Lane() * 8; i < width; i += 256) {
    const int64_t count = std::min(int64_t{8}, width - i);
    float v[8];
    gpu::LoadUpTo8(from + i, count, vectors, v);
    if (!known) {
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) v[j] = NAN;
    }
    gpu::StoreUpTo8(to + i, count, vectors, v);
  }
}

// One block for a row. Of equal logits the first wins.
__global__ void __launch_bounds__(1024) Largest(int64_t vocab, const ArgmaxArgs args) {
  float* values = reinterpret_cast<float*>(gpu::DynamicShared());  // (warps)
  int* tokens = reinterpret_cast<int*>(values + 32);
  const int64_t row = blockIdx.x;
  const float* logits = args.logits + row * args.stride;
  float best = -INFINITY;
  int token = 0x7fffffff;
  const auto offer = [&](float value, int of) {
    if (value > best || (value == best && of < token)) {
      best = value;
      token = of;
    }
  };
  for (int64_t i = threadIdx.x; i < vocab; i += blockDim.x) offer(logits[i], static_cast<int>(i));
  LONGWAVE_UNROLL for (int step = 16; step > 0; step /= 2) {
    offer(gpu::ShuffleXor(best, step), gpu::ShuffleXor(token, step));
  }
  if (gpu::Lane() == 0) {
    values[gpu::WarpOfBlock()] = best;
    tokens[gpu::WarpOfBlock()] = token;
  }
  gpu::SyncBlock();
  if (threadIdx.x != 0) return;
  for (int i = 0; i < static_cast<int>(blockDim.x) / 32; ++i) offer(values[i], tokens[i]);
  if (token == 0x7fffffff) token = 0;  // all NaN
  args.tokens[row] = token;
  if (args.history != nullptr) args.history[row * args.history_stride + *args.step] = token;
}

__global__ void Advance(int64_t* counter, int64_t by) {
  if (threadIdx.x == 0) *counter += by;
}

}  // namespace

absl::Status RunEmbeddingCuda(int64_t rows, int64_t width, int64_t vocab, Dtype dtype,
                              const void* table, const int32_t* tokens, float* x, Stream& stream) {
  return gpu::WithType(dtype, [&](auto type) {
    using T = decltype(type);
    const bool vectors = gpu::Aligned16(table, width * SizeOf(dtype)) &&
                         gpu::Aligned16(x, width * static_cast<int64_t>(sizeof(float)));
    return gpu::Launch("Embedding", absl::StrCat("(rows=", rows, " width=", width, ")"), Lookup<T>,
                       dim3(static_cast<unsigned>((rows + 3) / 4)), 128, 0, stream.queue().stream(),
                       rows, width, vocab, static_cast<const T*>(table), tokens, x, vectors);
  });
}

absl::Status RunArgmaxCuda(int64_t rows, int64_t vocab, const ArgmaxArgs& args, Stream& stream) {
  const int threads = static_cast<int>(std::clamp<int64_t>((vocab + 31) / 32 * 32, 32, 1024));
  return gpu::Launch("Argmax", absl::StrCat("(rows=", rows, " vocab=", vocab, ")"), Largest,
                     dim3(static_cast<unsigned>(rows)), threads, 256, stream.queue().stream(),
                     vocab, args);
}

absl::Status RunAdvanceCuda(int64_t* counter, int64_t by, Stream& stream) {
  return gpu::Launch("Advance", "a counter", Advance, dim3(1), 32, 0, stream.queue().stream(),
                     counter, by);
}

}  // namespace longwave

// TokenLoss on a GPU: the logits of a tile of rows and a slice of the vocabulary by cuBLASLt into
// scratch that stays in the second-level cache; then one pass over the tile, a block for each row,
// that carries (max, sum of exponentials, the target's logit) from slice to slice.
// Bound by the product: 2 x rows x width x vocab; the pass reads 4 bytes a logit from the cache.
#include <algorithm>
#include <cmath>

#include "kernels/checks.h"
#include "kernels/gemm_cuda.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/token_loss_cuda.h"

namespace longwave {
namespace {

constexpr int kThreads = 128;

struct SliceParams {
  const float* logits;  // (rows, count), `stride` between rows, each row aligned to 16 bytes
  int64_t stride;
  int count;
  int64_t first_token;  // of the slice
  const int32_t* targets;
  float *max, *sum, *target;  // (rows): carried
  float* nll;
  bool first, last;  // slice
};

// exp(from - to), right also where both are -infinity.
LONGWAVE_DEVICE float Fade(float from, float to) { return from == to ? 1.0f : __expf(from - to); }

__global__ void __launch_bounds__(kThreads) SliceLoss(const SliceParams p) {
  float* shared = reinterpret_cast<float*>(gpu::DynamicShared());  // (warps, 2)
  const int64_t row = blockIdx.x;
  const float* logits = p.logits + row * p.stride;
  const int thread = static_cast<int>(threadIdx.x);
  float best = -INFINITY, sum = 0;
  constexpr int kEach = 4;  // loads in flight
  for (int base = 0; base < p.count; base += kThreads * 4 * kEach) {
    float v[kEach][4];
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      const int at = base + (i * kThreads + thread) * 4;
      if (at + 4 <= p.count) {
        const float4 four = *reinterpret_cast<const float4*>(logits + at);
        v[i][0] = four.x, v[i][1] = four.y, v[i][2] = four.z, v[i][3] = four.w;
      } else {
        LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) {
          v[i][j] = at + j < p.count ? logits[at + j] : -INFINITY;
        }
      }
    }
    float larger = best;
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) larger = fmaxf(larger, v[i][j]);
    }
    if (larger == -INFINITY) larger = best;
    sum *= Fade(best, larger);
    best = larger;
    if (best == -INFINITY) continue;  // nothing here yet
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) sum += __expf(v[i][j] - best);
    }
  }
  LONGWAVE_UNROLL for (int step = 16; step > 0; step /= 2) {
    const float other = gpu::ShuffleXor(best, step), other_sum = gpu::ShuffleXor(sum, step);
    const float larger = fmaxf(best, other);
    sum = sum * Fade(best, larger) + other_sum * Fade(other, larger);
    best = larger;
  }
  if (gpu::Lane() == 0) {
    shared[2 * gpu::WarpOfBlock()] = best;
    shared[2 * gpu::WarpOfBlock() + 1] = sum;
  }
  gpu::SyncBlock();
  if (thread != 0) return;
  float target = NAN;  // stays where the target is no token
  if (!p.first) {
    best = p.max[row];
    sum = p.sum[row];
    target = p.target[row];
  } else {
    best = -INFINITY;
    sum = 0;
  }
  LONGWAVE_UNROLL for (int i = 0; i < kThreads / 32; ++i) {
    const float larger = fmaxf(best, shared[2 * i]);
    sum = sum * Fade(best, larger) + shared[2 * i + 1] * Fade(shared[2 * i], larger);
    best = larger;
  }
  const int64_t wanted = p.targets[row] - p.first_token;
  if (wanted >= 0 && wanted < p.count) target = logits[wanted];
  if (p.last) {
    p.nll[row] = (best - target) + logf(sum);
  } else {
    p.max[row] = best;
    p.sum[row] = sum;
    p.target[row] = target;
  }
}

}  // namespace

absl::Status RunTokenLossCuda(const TokenLossDesc& desc, const TokenLossArgs& args,
                              Stream& stream) {
  const TokenLossCudaPlan plan = PlanTokenLossCuda(desc);
  const absl::StatusOr<void*> scratch = stream.queue().Scratch(plan.scratch_bytes);
  if (!scratch.ok()) return scratch.status();
  SliceParams p;
  p.logits = static_cast<const float*>(*scratch);
  p.stride = plan.vocab;
  p.max = reinterpret_cast<float*>(static_cast<char*>(*scratch) + plan.logit_bytes);
  p.sum = p.max + plan.rows;
  p.target = p.sum + plan.rows;
  const int64_t row_bytes = desc.width * SizeOf(desc.dtype);
  for (int64_t row = 0; row < desc.rows; row += plan.rows) {
    GemmDesc product{.rows = std::min(plan.rows, desc.rows - row), .in = desc.width};
    product.dtype = product.in_dtype = desc.dtype;
    p.targets = args.targets + row;
    p.nll = args.nll + row;
    for (int64_t token = 0; token < desc.vocab; token += plan.vocab) {
      product.out = std::min(plan.vocab, desc.vocab - token);
      LONGWAVE_RETURN_IF_ERROR(
          RunGemmCuda(product,
                      {.x = static_cast<const char*>(args.hidden) + row * row_bytes,
                       .x_stride = desc.width,
                       .weight = static_cast<const char*>(args.embedding) + token * row_bytes,
                       .out = *scratch,
                       .out_stride = plan.vocab},
                      nullptr, stream));
      p.count = static_cast<int>(product.out);
      p.first_token = token;
      p.first = token == 0;
      p.last = token + plan.vocab >= desc.vocab;
      LONGWAVE_RETURN_IF_ERROR(gpu::Launch("TokenLoss", desc.ToString(), SliceLoss,
                                           dim3(static_cast<unsigned>(product.rows)), kThreads,
                                           kThreads / 32 * 8, stream.queue().stream(), p));
    }
  }
  return absl::OkStatus();
}

}  // namespace longwave

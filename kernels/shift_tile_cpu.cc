#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/shift_tile_cpu.cc"
#include <algorithm>
#include <cstring>

#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/shift_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longwave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using V = hn::Vec<Tag>;
constexpr Tag kTag;

int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(kTag)); }

// MR blocks of S tokens: one vector of sums each, enough of them to hide a multiply-add's latency.
template <int MR>
HWY_INLINE void Rows(const float* matrix, int64_t depth, const float* u, float* y) {
  const int64_t S = Lanes();
  V sum[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) sum[r] = hn::Zero(kTag);
  for (int64_t t = 0; t < depth; ++t) {
    const V b = hn::Load(kTag, matrix + t * S);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) sum[r] = hn::MulAdd(hn::Set(kTag, u[r * S + t]), b, sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r) hn::StoreU(sum[r], kTag, y + r * S);
}

void Run(const float* matrix, const float* h, int64_t taps, const float* u, int64_t count,
         float* y) {
  const int64_t S = Lanes();
  if (count < S) {  // a few tokens: not worth a block
    for (int64_t t = 0; t < count; ++t) {
      float sum = 0;
      for (int64_t i = 0; i < taps; ++i) sum += h[i] * u[t - i];
      y[t] = sum;
    }
    return;
  }
  const float* first = u - (taps - 1);
  const int64_t blocks = (count + S - 1) / S, depth = S + taps - 1;
  int64_t r = 0;
  for (; r + 12 <= blocks; r += 12) Rows<12>(matrix, depth, first + r * S, y + r * S);
  for (; r + 4 <= blocks; r += 4) Rows<4>(matrix, depth, first + r * S, y + r * S);
  for (; r < blocks; ++r) Rows<1>(matrix, depth, first + r * S, y + r * S);
}

}  // namespace HWY_NAMESPACE
}  // namespace longwave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longwave {
HWY_EXPORT(Lanes);
HWY_EXPORT(Run);

int64_t ShiftMatrixFloats(int64_t taps) { return (taps + kShiftPad) * kShiftPad; }

void ShiftBuildMatrix(const float* h, int64_t taps, int64_t length, float* matrix) {
  const int64_t S = HWY_DYNAMIC_DISPATCH(Lanes)();
  if (length < S) return;
  for (int64_t t = 0; t < S + taps - 1; ++t) {
    for (int64_t j = 0; j < S; ++j) {
      const int64_t lag = taps - 1 + j - t;
      matrix[t * S + j] = lag >= 0 && lag < taps ? h[lag] : 0.0f;
    }
  }
}

void ShiftRun(const float* matrix, const float* h, int64_t taps, const float* u, int64_t count,
              float* y) {
  HWY_DYNAMIC_DISPATCH(Run)(matrix, h, taps, u, count, y);
}

void ShiftAdvance(const float* u, int64_t taps, int64_t before, int64_t count, float* history) {
  const int64_t halo = taps - 1;
  std::memmove(history, history + before, sizeof(float) * static_cast<size_t>(halo));
  std::copy_n(u, count, history + halo);
  std::fill_n(history + halo + count, kShiftPad, 0.0f);
}

}  // namespace longwave
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/ssm_tile_cpu.cc"
#include <algorithm>

#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/ssm_tile.h"

HWY_BEFORE_NAMESPACE();
namespace longwave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using V = hn::Vec<Tag>;
constexpr Tag kTag;

// Register tile: MR rows x two vectors. 12 x 2 of AVX-512's 32 registers, 6 x 2 of AVX2's 16.
constexpr int kRows = HWY_TARGET <= HWY_AVX3 ? 12 : 6;

HWY_INLINE size_t L() { return hn::Lanes(kTag); }

// acc += A (MR, k) B (k, two vectors)
template <int MR>
HWY_INLINE void Multiply(int64_t k, const float* HWY_RESTRICT a, int64_t lda,
                         const float* HWY_RESTRICT b, int64_t ldb, V (&lo)[MR], V (&hi)[MR]) {
  for (int64_t t = 0; t < k; ++t) {
    const V b_lo = hn::Load(kTag, b + t * ldb);
    const V b_hi = hn::Load(kTag, b + t * ldb + L());
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const V x = hn::Set(kTag, a[r * lda + t]);
      lo[r] = hn::MulAdd(x, b_lo, lo[r]);
      hi[r] = hn::MulAdd(x, b_hi, hi[r]);
    }
  }
}

// The same into the second vector alone: K's triangle.
template <int MR>
HWY_INLINE void MultiplyHigh(int64_t k, const float* HWY_RESTRICT a, int64_t lda,
                             const float* HWY_RESTRICT b, int64_t ldb, V (&hi)[MR]) {
  for (int64_t t = 0; t < k; ++t) {
    const V b_hi = hn::Load(kTag, b + t * ldb + L());
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      hi[r] = hn::MulAdd(hn::Set(kTag, a[r * lda + t]), b_hi, hi[r]);
    }
  }
}

template <int MR>
HWY_INLINE void ProjectInRows(const SsmTileFilter& f, const float* u, float* s) {
  const int64_t width = 2 * f.padded;
  for (int64_t column = 0; column < width; column += 2 * L()) {
    V lo[MR], hi[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) lo[r] = hi[r] = hn::Zero(kTag);
    Multiply<MR>(kSsmBlock, u, kSsmBlock, f.v + column, width, lo, hi);
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      hn::Store(lo[r], kTag, s + r * width + column);
      hn::Store(hi[r], kTag, s + r * width + column + L());
    }
  }
}

template <int MR>
HWY_INLINE void ProjectOutRows(const SsmTileFilter& f, const float* x, const float* u, float* y) {
  const int64_t width = 2 * f.padded;
  const int64_t lanes = static_cast<int64_t>(L());
  for (int64_t column = 0; column < kSsmBlock; column += 2 * lanes) {
    V lo[MR], hi[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      if (u == nullptr) {
        lo[r] = hn::LoadU(kTag, y + r * kSsmBlock + column);
        hi[r] = hn::LoadU(kTag, y + r * kSsmBlock + column + lanes);
      } else {
        lo[r] = hi[r] = hn::Zero(kTag);
      }
    }
    Multiply<MR>(width, x, width, f.w + column, kSsmBlock, lo, hi);
    if (u != nullptr) {
      // Column j needs tokens t <= j alone.
      const int64_t both = column + lanes;
      Multiply<MR>(both, u, kSsmBlock, f.k + column, kSsmBlock, lo, hi);
      MultiplyHigh<MR>(lanes, u + both, kSsmBlock, f.k + both * kSsmBlock + column, kSsmBlock, hi);
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      hn::StoreU(lo[r], kTag, y + r * kSsmBlock + column);
      hn::StoreU(hi[r], kTag, y + r * kSsmBlock + column + lanes);
    }
  }
}

void ProjectIn(const SsmTileFilter& f, int64_t rows, const float* u, float* s) {
  const int64_t width = 2 * f.padded;
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) ProjectInRows<kRows>(f, u + r * kSsmBlock, s + r * width);
  for (; r + 4 <= rows; r += 4) ProjectInRows<4>(f, u + r * kSsmBlock, s + r * width);
  for (; r < rows; ++r) ProjectInRows<1>(f, u + r * kSsmBlock, s + r * width);
}

void ProjectOut(const SsmTileFilter& f, int64_t rows, const float* x, const float* u, float* y) {
  const int64_t width = 2 * f.padded;
  const auto at = [&](int64_t r) { return u == nullptr ? nullptr : u + r * kSsmBlock; };
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    ProjectOutRows<kRows>(f, x + r * width, at(r), y + r * kSsmBlock);
  }
  for (; r + 4 <= rows; r += 4) ProjectOutRows<4>(f, x + r * width, at(r), y + r * kSsmBlock);
  for (; r < rows; ++r) ProjectOutRows<1>(f, x + r * width, at(r), y + r * kSsmBlock);
}

// The vectors n of a factor, and the product with a state added to `re`, `im`.
struct Factor {
  V re, im, re_low, im_low;
};

HWY_INLINE Factor LoadFactor(const SsmFactor& f, int64_t n) {
  return {hn::Load(kTag, f.re + n), hn::Load(kTag, f.im + n), hn::Load(kTag, f.re_low + n),
          hn::Load(kTag, f.im_low + n)};
}

HWY_INLINE void MultiplyAdd(const Factor& a, V x_re, V x_im, V& re, V& im) {
  re = hn::MulAdd(a.re_low, x_re, hn::NegMulAdd(a.im_low, x_im, re));
  im = hn::MulAdd(a.re_low, x_im, hn::MulAdd(a.im_low, x_re, im));
  re = hn::MulAdd(a.re, x_re, hn::NegMulAdd(a.im, x_im, re));
  im = hn::MulAdd(a.re, x_im, hn::MulAdd(a.im, x_re, im));
}

void Scan(const SsmTileFilter& f, int64_t rows, bool with_input, float* s, float* state) {
  const int64_t P = f.padded;
  for (int64_t n = 0; n < P; n += L()) {
    const Factor a = LoadFactor(f.block, n);
    V re = hn::Load(kTag, state + n), im = hn::Load(kTag, state + P + n);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = s + r * 2 * P + n;
      V next_re = with_input ? hn::Load(kTag, row) : hn::Zero(kTag);
      V next_im = with_input ? hn::Load(kTag, row + P) : hn::Zero(kTag);
      hn::Store(re, kTag, row);
      hn::Store(im, kTag, row + P);
      MultiplyAdd(a, re, im, next_re, next_im);
      re = next_re;
      im = next_im;
    }
    hn::Store(re, kTag, state + n);
    hn::Store(im, kTag, state + P + n);
  }
}

// The recurrence over kVectors vectors of pairs from `first` on, the state in registers; y null, y
// = or, where `accumulate`, y +=.
template <int kVectors>
HWY_INLINE void StepPairs(const SsmTileFilter& f, int64_t first, int64_t count, const float* u,
                          bool accumulate, float* y, float* state) {
  const int64_t P = f.padded;
  V re[kVectors], im[kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    re[i] = hn::Load(kTag, state + first + i * L());
    im[i] = hn::Load(kTag, state + P + first + i * L());
  }
  for (int64_t t = 0; t < count; ++t) {
    const V in = hn::Set(kTag, u[t]);
    V sum = hn::Zero(kTag);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const int64_t n = first + i * static_cast<int64_t>(L());
      V next_re = hn::Mul(hn::Load(kTag, f.b_re + n), in);
      V next_im = hn::Mul(hn::Load(kTag, f.b_im + n), in);
      MultiplyAdd(LoadFactor(f.a, n), re[i], im[i], next_re, next_im);
      re[i] = next_re;
      im[i] = next_im;
      sum = hn::MulAdd(hn::Load(kTag, f.c_re + n), re[i], sum);
      sum = hn::MulAdd(hn::Load(kTag, f.c_im + n), im[i], sum);
    }
    if (y != nullptr) {
      y[t] = hn::GetLane(hn::SumOfLanes(kTag, sum)) + (accumulate ? y[t] : f.d * u[t]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    hn::Store(re[i], kTag, state + first + i * L());
    hn::Store(im[i], kTag, state + P + first + i * L());
  }
}

void Step(const SsmTileFilter& f, int64_t count, const float* u, float* y, float* state) {
  const int64_t vectors = f.padded / static_cast<int64_t>(L());
  int64_t i = 0;
  for (; i + 2 <= vectors; i += 2) {
    StepPairs<2>(f, i * L(), count, u, i > 0, y, state);
  }
  if (i < vectors) StepPairs<1>(f, i * L(), count, u, i > 0, y, state);
}

}  // namespace HWY_NAMESPACE
}  // namespace longwave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longwave {
HWY_EXPORT(ProjectIn);
HWY_EXPORT(ProjectOut);
HWY_EXPORT(Scan);
HWY_EXPORT(Step);

void SsmProjectIn(const SsmTileFilter& filter, int64_t rows, const float* u, float* s) {
  HWY_DYNAMIC_DISPATCH(ProjectIn)(filter, rows, u, s);
}

void SsmProjectOut(const SsmTileFilter& filter, int64_t rows, const float* x, const float* u,
                   float* y) {
  HWY_DYNAMIC_DISPATCH(ProjectOut)(filter, rows, x, u, y);
}

void SsmScan(const SsmTileFilter& filter, int64_t rows, bool with_input, float* s, float* state) {
  HWY_DYNAMIC_DISPATCH(Scan)(filter, rows, with_input, s, state);
}

void SsmStep(const SsmTileFilter& filter, int64_t count, const float* u, float* y, float* state) {
  HWY_DYNAMIC_DISPATCH(Step)(filter, count, u, y, state);
}

void SsmRunTokens(const SsmTileFilter& filter, bool dual, int64_t count, const float* u, float* y,
                  float* state, float* scratch) {
  int64_t done = 0;
  while (dual && count - done >= kSsmBlock) {
    const int64_t rows = std::min(kSsmTileBlocks, (count - done) / kSsmBlock);
    SsmProjectIn(filter, rows, u + done, scratch);
    SsmScan(filter, rows, /*with_input=*/true, scratch, state);
    if (y != nullptr) SsmProjectOut(filter, rows, scratch, u + done, y + done);
    done += rows * kSsmBlock;
  }
  SsmStep(filter, count - done, u + done, y == nullptr ? nullptr : y + done, state);
}

}  // namespace longwave
#endif

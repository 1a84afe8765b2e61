#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fft_conv.cc"
#include "kernels/fft_conv.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef LONGWAVE_KERNELS_FFT_CONV_ROOTS_
#define LONGWAVE_KERNELS_FFT_CONV_ROOTS_
namespace longwave {

// Tables as the transforms see them; tables[l] is (2, count): real parts then imaginary parts.
struct FftConv::Roots {
  int64_t n;
  int vertical;  // levels above the last log2(lanes)
  const float* const* level;
  const float* const* last;
};

}  // namespace longwave
#endif

HWY_BEFORE_NAMESPACE();
namespace longwave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using V = hn::Vec<Tag>;
constexpr Tag kTag;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(kTag));
constexpr int64_t kInCache = 8192;  // elements that one thread's second-level cache holds with ease

struct C {  // a vector of complex numbers
  V re, im;
};

HWY_INLINE C LoadC(const float* re, const float* im) {
  return {hn::Load(kTag, re), hn::Load(kTag, im)};
}
HWY_INLINE void StoreC(C x, float* re, float* im) {
  hn::Store(x.re, kTag, re);
  hn::Store(x.im, kTag, im);
}
HWY_INLINE C SetC(float re, float im) { return {hn::Set(kTag, re), hn::Set(kTag, im)}; }
HWY_INLINE C AddC(C a, C b) { return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)}; }
HWY_INLINE C SubC(C a, C b) { return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)}; }
HWY_INLINE C MulC(C a, C b) {
  return {hn::NegMulAdd(a.im, b.im, hn::Mul(a.re, b.re)),
          hn::MulAdd(a.re, b.im, hn::Mul(a.im, b.re))};
}
HWY_INLINE C MulConjC(C a, C b) {  // a conj(b)
  return {hn::MulAdd(a.im, b.im, hn::Mul(a.re, b.re)),
          hn::NegMulAdd(a.re, b.im, hn::Mul(a.im, b.re))};
}
HWY_INLINE C AddIC(C a, C b) { return {hn::Sub(a.re, b.im), hn::Add(a.im, b.re)}; }  // a + i b
HWY_INLINE C SubIC(C a, C b) { return {hn::Add(a.re, b.im), hn::Sub(a.im, b.re)}; }  // a - i b

HWY_INLINE C Root(const FftConv::Roots& roots, int level, int64_t block) {
  const float* table = roots.level[level];
  return SetC(table[block], table[(int64_t{1} << level) + block]);
}

// One block of m elements: one level down, or two.
HWY_INLINE void Down2(float* re, float* im, int64_t m, C w) {
  const int64_t h = m / 2;
  for (int64_t j = 0; j < h; j += kLanes) {
    const C a = LoadC(re + j, im + j), b = MulC(LoadC(re + h + j, im + h + j), w);
    StoreC(AddC(a, b), re + j, im + j);
    StoreC(SubC(a, b), re + h + j, im + h + j);
  }
}

HWY_INLINE void Up2(float* re, float* im, int64_t m, C w) {
  const int64_t h = m / 2;
  for (int64_t j = 0; j < h; j += kLanes) {
    const C p = LoadC(re + j, im + j), q = LoadC(re + h + j, im + h + j);
    StoreC(AddC(p, q), re + j, im + j);
    StoreC(MulConjC(SubC(p, q), w), re + h + j, im + h + j);
  }
}

// w1 is the block's constant, w2 its first child's; the second child's is i w2.
HWY_INLINE void Down4(float* re, float* im, int64_t m, C w1, C w2) {
  const int64_t h = m / 4;
  for (int64_t j = 0; j < h; j += kLanes) {
    const C a0 = LoadC(re + j, im + j), a1 = LoadC(re + h + j, im + h + j);
    const C t2 = MulC(LoadC(re + 2 * h + j, im + 2 * h + j), w1);
    const C t3 = MulC(LoadC(re + 3 * h + j, im + 3 * h + j), w1);
    const C b0 = AddC(a0, t2), b2 = SubC(a0, t2);
    const C b1 = MulC(AddC(a1, t3), w2), b3 = MulC(SubC(a1, t3), w2);
    StoreC(AddC(b0, b1), re + j, im + j);
    StoreC(SubC(b0, b1), re + h + j, im + h + j);
    StoreC(AddIC(b2, b3), re + 2 * h + j, im + 2 * h + j);
    StoreC(SubIC(b2, b3), re + 3 * h + j, im + 3 * h + j);
  }
}

HWY_INLINE void Up4(float* re, float* im, int64_t m, C w1, C w2) {
  const int64_t h = m / 4;
  for (int64_t j = 0; j < h; j += kLanes) {
    const C c0 = LoadC(re + j, im + j), c1 = LoadC(re + h + j, im + h + j);
    const C c2 = LoadC(re + 2 * h + j, im + 2 * h + j);
    const C c3 = LoadC(re + 3 * h + j, im + 3 * h + j);
    const C b0 = AddC(c0, c1), b1 = MulConjC(SubC(c0, c1), w2);
    const C b2 = AddC(c2, c3), t = MulConjC(SubC(c2, c3), w2);  // b3 = -i t
    StoreC(AddC(b0, b2), re + j, im + j);
    StoreC(SubIC(b1, t), re + h + j, im + h + j);
    StoreC(MulConjC(SubC(b0, b2), w1), re + 2 * h + j, im + 2 * h + j);
    StoreC(MulConjC(AddIC(b1, t), w1), re + 3 * h + j, im + 3 * h + j);
  }
}

// The vertical levels below block `block` of `level`, which has m elements: depth first while a
// block is larger than the cache, level by level below that.
void Down(const FftConv::Roots& roots, float* re, float* im, int64_t m, int level, int64_t block) {
  if (level == roots.vertical) return;
  if (m > kInCache && level + 2 <= roots.vertical) {
    Down4(re, im, m, Root(roots, level, block), Root(roots, level + 1, 2 * block));
    for (int64_t i = 0; i < 4; ++i) {
      Down(roots, re + i * m / 4, im + i * m / 4, m / 4, level + 2, 4 * block + i);
    }
    return;
  }
  int64_t blocks = 1, size = m;
  for (; level + 2 <= roots.vertical; level += 2, blocks *= 4, size /= 4, block *= 4) {
    for (int64_t b = 0; b < blocks; ++b) {
      Down4(re + b * size, im + b * size, size, Root(roots, level, block + b),
            Root(roots, level + 1, 2 * (block + b)));
    }
  }
  if (level < roots.vertical) {
    for (int64_t b = 0; b < blocks; ++b) {
      Down2(re + b * size, im + b * size, size, Root(roots, level, block + b));
    }
  }
}

void Up(const FftConv::Roots& roots, float* re, float* im, int64_t m, int level, int64_t block) {
  if (level == roots.vertical) return;
  if (m > kInCache && level + 2 <= roots.vertical) {
    for (int64_t i = 0; i < 4; ++i) {
      Up(roots, re + i * m / 4, im + i * m / 4, m / 4, level + 2, 4 * block + i);
    }
    Up4(re, im, m, Root(roots, level, block), Root(roots, level + 1, 2 * block));
    return;
  }
  const int depth = roots.vertical - level;
  int l = roots.vertical;
  if (depth % 2 == 1) {
    --l;
    const int64_t blocks = int64_t{1} << (l - level), size = m / blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      Up2(re + b * size, im + b * size, size, Root(roots, l, (block << (l - level)) + b));
    }
  }
  while (l > level) {
    l -= 2;
    const int64_t blocks = int64_t{1} << (l - level), size = m / blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t index = (block << (l - level)) + b;
      Up4(re + b * size, im + b * size, size, Root(roots, l, index), Root(roots, l + 1, 2 * index));
    }
  }
}

// Lanes x lanes elements: x[j] lane b <-> x[b] lane j.
HWY_INLINE void Transpose(V (&x)[kLanes]) {
  const hn::RepartitionToWide<Tag> wide;
#pragma GCC unroll 4
  for (int g = 0; g < kLanes; g += 4) {
    const auto lower = [&](V a, V b)
                           HWY_ATTR { return hn::BitCast(wide, hn::InterleaveLower(kTag, a, b)); };
    const auto upper = [&](V a, V b)
                           HWY_ATTR { return hn::BitCast(wide, hn::InterleaveUpper(kTag, a, b)); };
    const auto t0 = lower(x[g], x[g + 1]), t1 = upper(x[g], x[g + 1]);
    const auto t2 = lower(x[g + 2], x[g + 3]), t3 = upper(x[g + 2], x[g + 3]);
    x[g] = hn::BitCast(kTag, hn::InterleaveLower(wide, t0, t2));
    x[g + 1] = hn::BitCast(kTag, hn::InterleaveUpper(wide, t0, t2));
    x[g + 2] = hn::BitCast(kTag, hn::InterleaveLower(wide, t1, t3));
    x[g + 3] = hn::BitCast(kTag, hn::InterleaveUpper(wide, t1, t3));
  }
#if HWY_TARGET != HWY_SSE4 && HWY_TARGET != HWY_SSSE3 && HWY_TARGET != HWY_NEON
  // Blocks of 128 bits between groups of four vectors.
  const auto even = [](V a, V b)
                        HWY_ATTR { return hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), a); };
  const auto odd = [](V a, V b)
                       HWY_ATTR { return hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(a)); };
  if constexpr (kLanes == 8) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V a = x[j], b = x[4 + j];
      x[j] = even(a, b);
      x[4 + j] = odd(a, b);
    }
  } else if constexpr (kLanes == 16) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V p0 = even(x[j], x[4 + j]), p1 = odd(x[j], x[4 + j]);
      const V q0 = even(x[8 + j], x[12 + j]), q1 = odd(x[8 + j], x[12 + j]);
      x[j] = hn::ConcatLowerLower(kTag, q0, p0);
      x[4 + j] = hn::ConcatLowerLower(kTag, q1, p1);
      x[8 + j] = hn::ConcatUpperUpper(kTag, q0, p0);
      x[12 + j] = hn::ConcatUpperUpper(kTag, q1, p1);
    }
  }
#endif
}

// Even-numbered children's constants relative to the first one's: exp(2 pi i / 16 * {0, 2, 1, 3}).
constexpr float kFactorRe[4] = {1.0f, 0.70710678118654752f, 0.92387953251128676f,
                                0.38268343236508977f};
constexpr float kFactorIm[4] = {0.0f, 0.70710678118654752f, 0.38268343236508977f,
                                0.92387953251128676f};

HWY_INLINE C LastRoot(const FftConv::Roots& roots, int s, int pair, int64_t first) {
  const float* table = roots.last[s];
  const C w = LoadC(table + first, table + roots.n / kLanes + first);
  return pair == 0 ? w : MulC(w, SetC(kFactorRe[pair], kFactorIm[pair]));
}

// One level across lanes, blocks of 2 * kHalf vectors, and those below it (above it for Up).
template <int kHalf, int kLevel>
HWY_INLINE void DownLevels(const FftConv::Roots& roots, int64_t first, V (&x)[kLanes],
                           V (&y)[kLanes]) {
#pragma GCC unroll 8
  for (int k = 0; k < kLanes / (2 * kHalf); ++k) {
    const C w = LastRoot(roots, kLevel, k / 2, first);
#pragma GCC unroll 8
    for (int j = 0; j < kHalf; ++j) {
      const int p = 2 * kHalf * k + j, q = p + kHalf;
      const C a{x[p], y[p]}, b = MulC({x[q], y[q]}, w);
      const C sum = k % 2 ? AddIC(a, b) : AddC(a, b), difference = k % 2 ? SubIC(a, b) : SubC(a, b);
      x[p] = sum.re, y[p] = sum.im;
      x[q] = difference.re, y[q] = difference.im;
    }
  }
  if constexpr (kHalf > 1) DownLevels<kHalf / 2, kLevel + 1>(roots, first, x, y);
}

template <int kHalf, int kLevel>
HWY_INLINE void UpLevels(const FftConv::Roots& roots, int64_t first, V (&x)[kLanes],
                         V (&y)[kLanes]) {
  if constexpr (kHalf > 1) UpLevels<kHalf / 2, kLevel + 1>(roots, first, x, y);
#pragma GCC unroll 8
  for (int k = 0; k < kLanes / (2 * kHalf); ++k) {
    const C w = LastRoot(roots, kLevel, k / 2, first);
#pragma GCC unroll 8
    for (int j = 0; j < kHalf; ++j) {
      const int p = 2 * kHalf * k + j, q = p + kHalf;
      const C a{x[p], y[p]}, b{x[q], y[q]};
      const C sum = AddC(a, b), t = MulConjC(SubC(a, b), w);
      x[p] = sum.re, y[p] = sum.im;
      // For the second of a pair of children the constant is i w: times -i.
      x[q] = k % 2 ? t.im : t.re;
      y[q] = k % 2 ? hn::Neg(t.re) : t.im;
    }
  }
}

// The levels across lanes, for kLanes blocks of kLanes elements at once.
HWY_INLINE void DownLast(const FftConv::Roots& roots, int64_t first, float* re, float* im) {
  V x[kLanes], y[kLanes];
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) x[j] = hn::Load(kTag, re + j * kLanes);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) y[j] = hn::Load(kTag, im + j * kLanes);
  Transpose(x);
  Transpose(y);
  DownLevels<kLanes / 2, 0>(roots, first, x, y);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) StoreC({x[j], y[j]}, re + j * kLanes, im + j * kLanes);
}

HWY_INLINE void UpLast(const FftConv::Roots& roots, int64_t first, float* re, float* im) {
  V x[kLanes], y[kLanes];
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) {
    const C v = LoadC(re + j * kLanes, im + j * kLanes);
    x[j] = v.re, y[j] = v.im;
  }
  UpLevels<kLanes / 2, 0>(roots, first, x, y);
  Transpose(x);
  Transpose(y);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) hn::Store(x[j], kTag, re + j * kLanes);
#pragma GCC unroll 16
  for (int j = 0; j < kLanes; ++j) hn::Store(y[j], kTag, im + j * kLanes);
}

int LaneCount() { return kLanes; }

void ForwardTransform(const FftConv::Roots& roots, float* re, float* im) {
  Down(roots, re, im, roots.n, 0, 0);
  for (int64_t i = 0; i < roots.n; i += kLanes * kLanes) {
    DownLast(roots, i / kLanes, re + i, im + i);
  }
}

void InverseTransform(const FftConv::Roots& roots, float* re, float* im) {
  for (int64_t i = 0; i < roots.n; i += kLanes * kLanes) {
    UpLast(roots, i / kLanes, re + i, im + i);
  }
  Up(roots, re, im, roots.n, 0, 0);
}

// sum = taps * x, or sum += taps * x.
void ProductT(int64_t n, const float* taps, const float* x, bool accumulate, float* sum) {
  for (int64_t j = 0; j < n; j += kLanes) {
    C product = MulC(LoadC(taps + j, taps + n + j), LoadC(x + j, x + n + j));
    if (accumulate) product = AddC(product, LoadC(sum + j, sum + n + j));
    StoreC(product, sum + j, sum + n + j);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace longwave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longwave {
HWY_EXPORT(LaneCount);
HWY_EXPORT(ForwardTransform);
HWY_EXPORT(InverseTransform);
HWY_EXPORT(ProductT);

namespace {

using Table = AlignedFloats;

// exp(pi i theta[stride * b]) for b < count, as (2, count).
Table MakeTable(const std::vector<double>& theta, int64_t stride, int64_t count) {
  Table table = AllocateFloats(2 * count);
  for (int64_t b = 0; b < count; ++b) {
    const double angle = M_PI * theta[b * stride];
    table[b] = static_cast<float>(std::cos(angle));
    table[count + b] = static_cast<float>(std::sin(angle));
  }
  return table;
}

int Log2(int64_t n) {
  int result = 0;
  while ((int64_t{1} << result) < n) ++result;
  return result;
}

struct Pointers {
  const float* level[64];
  const float* last[8];
};

template <typename Tables>
FftConv::Roots MakeRoots(int64_t n, const Tables& levels, const Tables& last, Pointers* out) {
  for (size_t l = 0; l < levels.size(); ++l) out->level[l] = levels[l].get();
  for (size_t s = 0; s < last.size(); ++s) out->last[s] = last[s].get();
  return {n, static_cast<int>(levels.size()), out->level, out->last};
}

}  // namespace

bool IsFftConvBlock(int64_t n) {
  return n >= kFftConvSmallest && n <= int64_t{1} << 40 && (n & (n - 1)) == 0;
}

FftConv::FftConv(int64_t n) : n_(n), lanes_(HWY_DYNAMIC_DISPATCH(LaneCount)()) {
  // X^m - exp(2 pi i theta) splits into X^(m/2) -+ exp(pi i theta): children theta/2, theta/2 +
  // 1/2.
  const int vertical = Log2(n / lanes_);
  std::vector<double> theta = {0.25};
  for (int level = 0; level < Log2(n); ++level) {
    const int64_t blocks = static_cast<int64_t>(theta.size());
    if (level < vertical) {
      levels_.push_back(MakeTable(theta, 1, blocks));
    } else {
      last_.push_back(MakeTable(theta, int64_t{1} << (level - vertical), n / lanes_));
    }
    std::vector<double> next(2 * theta.size());
    for (int64_t b = 0; b < blocks; ++b) {
      next[2 * b] = theta[b] / 2;
      next[2 * b + 1] = theta[b] / 2 + 0.5;
    }
    theta = std::move(next);
  }
}

const FftConv& FftConv::Shared(int64_t n) {
  static std::mutex* mutex = new std::mutex;
  static auto* made = new std::map<int64_t, std::unique_ptr<const FftConv>>;
  std::lock_guard<std::mutex> lock(*mutex);
  std::unique_ptr<const FftConv>& fft = (*made)[n];
  if (fft == nullptr) fft = std::make_unique<const FftConv>(n);
  return *fft;
}

void FftConv::Forward(const float* real, int64_t count, float* spectrum) const {
  std::copy_n(real, count, spectrum);
  std::fill(spectrum + count, spectrum + 2 * n_, 0.0f);
  Pointers pointers;
  const Roots roots = MakeRoots(n_, levels_, last_, &pointers);
  HWY_DYNAMIC_DISPATCH(ForwardTransform)(roots, spectrum, spectrum + n_);
}

void FftConv::Inverse(float* spectrum) const {
  Pointers pointers;
  const Roots roots = MakeRoots(n_, levels_, last_, &pointers);
  HWY_DYNAMIC_DISPATCH(InverseTransform)(roots, spectrum, spectrum + n_);
}

void FftConv::ScaleTaps(float* spectrum) const {
  const float scale = 1.0f / static_cast<float>(n_);
  for (int64_t j = 0; j < 2 * n_; ++j) spectrum[j] *= scale;
}

void FftConv::Product(const float* taps, const float* spectrum, bool accumulate, float* sum) const {
  HWY_DYNAMIC_DISPATCH(ProductT)(n_, taps, spectrum, accumulate, sum);
}

}  // namespace longwave
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cc"
// foreach_target.h comes first: it includes this file once for each target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

#include "kernels/elementwise.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"

HWY_BEFORE_NAMESPACE();
namespace longwave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using V = hn::Vec<Tag>;
constexpr Tag kTag;
HWY_INLINE int64_t L() { return static_cast<int64_t>(hn::Lanes(kTag)); }

// Calls body(i, load, store) over [0, count) a vector at a time; the rest goes through a padded
// copy, so that a value does not depend on its place.
template <class F>
HWY_INLINE void Map(const float* a, const float* b, float* out, int64_t count, F f) {
  int64_t i = 0;
  for (; i + L() <= count; i += L()) {
    const V x = hn::LoadU(kTag, a + i);
    hn::StoreU(f(x, b == nullptr ? x : hn::LoadU(kTag, b + i), hn::LoadU(kTag, out + i)), kTag,
               out + i);
  }
  if (i == count) return;
  HWY_ALIGN float x[64] = {}, y[64] = {}, z[64] = {};
  for (int64_t j = i; j < count; ++j) {
    x[j - i] = a[j];
    y[j - i] = b == nullptr ? a[j] : b[j];
    z[j - i] = out[j];
  }
  hn::Store(f(hn::Load(kTag, x), hn::Load(kTag, y), hn::Load(kTag, z)), kTag, z);
  for (int64_t j = i; j < count; ++j) out[j] = z[j - i];
}

void MultiplyT(const float* a, const float* b, float* out, int64_t n) {
  Map(a, b, out, n, [](V x, V y, V) HWY_ATTR { return hn::Mul(x, y); });
}
void MultiplyAddT(const float* a, const float* b, float* out, int64_t n) {
  Map(a, b, out, n, [](V x, V y, V z) HWY_ATTR { return hn::MulAdd(x, y, z); });
}
void AddT(const float* bias, float* x, int64_t n) {
  Map(bias, nullptr, x, n, [](V b, V, V z) HWY_ATTR { return hn::Add(b, z); });
}
void ScaleT(float factor, float* x, int64_t n) {
  const V f = hn::Set(kTag, factor);
  Map(x, nullptr, x, n, [f](V v, V, V) HWY_ATTR { return hn::Mul(v, f); });
}

// Highway's Exp gives 0 for NaN; a NaN must not disappear.
HWY_INLINE V Exp(V x) { return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(kTag, x)); }

// 1 / (1 + exp(-z)); exp's argument stays within float32's range. Min hands on its second argument
// where one is NaN.
HWY_INLINE V Sigmoid(V z) {
  const V e = Exp(hn::Min(hn::Set(kTag, 88.0f), hn::Neg(z)));
  return hn::Div(hn::Set(kTag, 1.0f), hn::Add(hn::Set(kTag, 1.0f), e));
}

// 0.5 (1 + tanh(w)) = sigmoid(2 w), w = sqrt(2/pi) (x + 0.044715 x^3)
HWY_INLINE V GeluTanh(V x) {
  const V x2 = hn::Mul(x, x);
  const V inner = hn::MulAdd(x2, hn::Set(kTag, 2 * 0.7978845608028654f * 0.044715f),
                             hn::Set(kTag, 2 * 0.7978845608028654f));
  // Beyond |x| = 1e6 the gate is 0 or 1; the bound keeps x^3 finite.
  const V bounded = hn::Min(hn::Max(x, hn::Set(kTag, -1e6f)), hn::Set(kTag, 1e6f));
  return hn::Mul(x, Sigmoid(hn::Mul(bounded, hn::Min(inner, hn::Set(kTag, 1e12f)))));
}

// erf by a rational minimax approximation on [-4, 4] (as in Eigen), within 2 ulp of 1 beyond.
HWY_INLINE V Erf(V x) {
  x = hn::Min(hn::Max(x, hn::Set(kTag, -4.0f)), hn::Set(kTag, 4.0f));
  const V x2 = hn::Mul(x, x);
  const auto c = [](float v) HWY_ATTR { return hn::Set(kTag, v); };
  V p = c(-2.72614225801306e-10f);
  p = hn::MulAdd(p, x2, c(2.77068142495902e-08f));
  p = hn::MulAdd(p, x2, c(-2.10102402082508e-06f));
  p = hn::MulAdd(p, x2, c(-5.69250639462346e-05f));
  p = hn::MulAdd(p, x2, c(-7.34990630326855e-04f));
  p = hn::MulAdd(p, x2, c(-2.95459980854025e-03f));
  p = hn::MulAdd(p, x2, c(-1.60960333262415e-02f));
  V q = c(-1.45660718464996e-05f);
  q = hn::MulAdd(q, x2, c(-2.13374055278905e-04f));
  q = hn::MulAdd(q, x2, c(-1.68282697438203e-03f));
  q = hn::MulAdd(q, x2, c(-7.37332916720468e-03f));
  q = hn::MulAdd(q, x2, c(-1.42647390514189e-02f));
  return hn::Div(hn::Mul(x, p), q);
}

HWY_INLINE V GeluErf(V x) {
  const V half = hn::Mul(x, hn::Set(kTag, 0.5f));
  return hn::MulAdd(half, Erf(hn::Mul(x, hn::Set(kTag, 0.7071067811865476f))), half);
}

void ActivateT(Activation activation, float* x, int64_t n) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kGeluTanh:
      Map(x, nullptr, x, n, [](V v, V, V) HWY_ATTR { return GeluTanh(v); });
      return;
    case Activation::kGeluErf:
      Map(x, nullptr, x, n, [](V v, V, V) HWY_ATTR { return GeluErf(v); });
      return;
  }
}

void GluT(const float* a, const float* b, float* out, int64_t n) {
  Map(a, b, out, n, [](V x, V y, V) HWY_ATTR { return hn::Mul(x, Sigmoid(y)); });
}

float MaxT(const float* x, int64_t n) {
  V best = hn::Set(kTag, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + L() <= n; i += L()) best = hn::Max(best, hn::LoadU(kTag, x + i));
  float result = hn::GetLane(hn::MaxOfLanes(kTag, best));
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

float ExpSumT(float* x, int64_t n, float max, bool write) {
  const V shift = hn::Set(kTag, max);
  V sum = hn::Zero(kTag);
  int64_t i = 0;
  for (; i + L() <= n; i += L()) {
    const V e = Exp(hn::Sub(hn::LoadU(kTag, x + i), shift));
    if (write) hn::StoreU(e, kTag, x + i);
    sum = hn::Add(sum, e);
  }
  float result = hn::GetLane(hn::SumOfLanes(kTag, sum));
  for (; i < n; ++i) {
    const float e = hn::GetLane(Exp(hn::Set(kTag, x[i] - max)));
    if (write) x[i] = e;
    result += e;
  }
  return result;
}

void LayerNormT(const LayerNormWeights& w, int64_t rows, int64_t width, const float* x,
                int64_t x_stride, float* y, int64_t y_stride) {
  const float inverse = 1.0f / static_cast<float>(width);
  const int64_t whole = width / L() * L();
  for (int64_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    V sum = hn::Zero(kTag);
    for (int64_t i = 0; i < whole; i += L()) sum = hn::Add(sum, hn::LoadU(kTag, x + i));
    float mean = hn::GetLane(hn::SumOfLanes(kTag, sum));
    for (int64_t i = whole; i < width; ++i) mean += x[i];
    mean *= inverse;
    const V m = hn::Set(kTag, mean);
    sum = hn::Zero(kTag);
    for (int64_t i = 0; i < whole; i += L()) {
      const V centred = hn::Sub(hn::LoadU(kTag, x + i), m);
      sum = hn::MulAdd(centred, centred, sum);
    }
    float variance = hn::GetLane(hn::SumOfLanes(kTag, sum));
    for (int64_t i = whole; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / std::sqrt(variance * inverse + w.eps);
    const V s = hn::Set(kTag, scale);
    for (int64_t i = 0; i < whole; i += L()) {
      const V centred = hn::Mul(hn::Sub(hn::LoadU(kTag, x + i), m), s);
      hn::StoreU(hn::MulAdd(centred, hn::LoadU(kTag, w.scale + i), hn::LoadU(kTag, w.shift + i)),
                 kTag, y + i);
    }
    for (int64_t i = whole; i < width; ++i) y[i] = (x[i] - mean) * scale * w.scale[i] + w.shift[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace longwave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longwave {
HWY_EXPORT(MultiplyT);
HWY_EXPORT(MultiplyAddT);
HWY_EXPORT(AddT);
HWY_EXPORT(ScaleT);
HWY_EXPORT(ActivateT);
HWY_EXPORT(GluT);
HWY_EXPORT(MaxT);
HWY_EXPORT(ExpSumT);
HWY_EXPORT(LayerNormT);

void Multiply(const float* a, const float* b, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(MultiplyT)(a, b, out, count);
}
void MultiplyAdd(const float* a, const float* b, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(MultiplyAddT)(a, b, out, count);
}
void Add(const float* bias, float* x, int64_t count) { HWY_DYNAMIC_DISPATCH(AddT)(bias, x, count); }
void Scale(float factor, float* x, int64_t count) {
  HWY_DYNAMIC_DISPATCH(ScaleT)(factor, x, count);
}
float MaxOf(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(MaxT)(x, count); }
float ExpSum(float* x, int64_t count, float max, bool write) {
  return HWY_DYNAMIC_DISPATCH(ExpSumT)(x, count, max, write);
}
void Activate(Activation activation, float* x, int64_t count) {
  HWY_DYNAMIC_DISPATCH(ActivateT)(activation, x, count);
}
void Glu(const float* a, const float* b, float* out, int64_t count) {
  HWY_DYNAMIC_DISPATCH(GluT)(a, b, out, count);
}
void LayerNormRows(const LayerNormWeights& weights, int64_t rows, int64_t width, const float* x,
                   int64_t x_stride, float* y, int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(LayerNormT)(weights, rows, width, x, x_stride, y, y_stride);
}

const char* Name(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return "none";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    case Activation::kGeluErf:
      return "gelu_erf";
  }
  return "?";
}

std::string CpuTargetName() {
  return hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets());
}

}  // namespace longwave
#endif

#include "kernels/gelu.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::Floats;
using reference::Guarded;
using reference::Normal;

constexpr Activation kActivations[] = {Activation::kNone, Activation::kGeluTanh,
                                       Activation::kGeluErf};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Zeros, subnormals, every magnitude up to the largest, both signs, and densely where they bend.
Floats WideRange() {
  Floats x = {0.0f, -0.0f};
  using Limits = std::numeric_limits<float>;
  for (const float edge : {Limits::denorm_min(), 1e-40f, Limits::min(), 1.0f, 87.0f, 88.0f, 88.8f,
                           89.0f, 103.0f, 104.0f, 1e18f, 1e19f, Limits::max()}) {
    x.push_back(edge);
    x.push_back(-edge);
  }
  for (int exponent = -149; exponent < 128; ++exponent) {
    for (const float mantissa : {1.0f, 1.37f, -1.0f, -1.71f})
      x.push_back(std::ldexp(mantissa, exponent));
  }
  for (int i = -13000; i <= 13000; ++i) x.push_back(static_cast<float>(i) * 1e-3f);
  return x;
}

// Each element, not a norm: within 1e-6 of the argument's size. Far down the negative side the
// definition by tanh cancels in float32, so nothing can be asked relative to the result there.
void ExpectCorrect(const Floats& actual, const Floats& x, Activation activation) {
  ASSERT_EQ(actual.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = reference::Activate(activation, x[i]);
    const double bound =
        activation == Activation::kNone
            ? 0
            : 1e-6 * std::abs(static_cast<double>(x[i])) + std::numeric_limits<float>::min();
    ASSERT_LE(std::abs(actual[i] - expected), bound)
        << Name(activation) << "(" << x[i] << ") gave " << actual[i] << ", expected " << expected;
  }
}

TEST(GeluTest, WideRange) {
  const Floats x = WideRange();
  for (const Activation activation : kActivations) {
    Guarded buffer(x);
    Activate(activation, buffer.data(), static_cast<int64_t>(x.size()));
    EXPECT_TRUE(buffer.Intact());
    ExpectCorrect(buffer.Packed(), x, activation);
  }
}

TEST(GeluTest, IsAccurateInTheNorm) {
  const Floats x = Normal(1, 10000, 2);
  for (const Activation activation : kActivations) {
    Floats y = x;
    Activate(activation, y.data(), static_cast<int64_t>(y.size()));
    reference::Doubles expected;
    for (const float value : x) expected.push_back(reference::Activate(activation, value));
    EXPECT_TRUE(reference::Near(y, expected, reference::Tolerance(Device{}))) << Name(activation);
  }
}

// The two definitions differ by up to 4e-4: neither may stand for the other.
TEST(GeluTest, TanhAndErfDiffer) {
  float by_tanh = 2.3f, by_erf = 2.3f;
  Activate(Activation::kGeluTanh, &by_tanh, 1);
  Activate(Activation::kGeluErf, &by_erf, 1);
  EXPECT_GT(std::abs(by_tanh - by_erf), 1e-4);
}

TEST(GeluTest, EveryCount) {
  for (int64_t count = 0; count <= 70; ++count) {
    const Floats x = Normal(count, count, 3);
    for (const Activation activation : kActivations) {
      SCOPED_TRACE(::testing::Message() << Name(activation) << " count " << count);
      Guarded in_place(x);
      Activate(activation, in_place.data(), count);
      ExpectCorrect(in_place.Packed(), x, activation);
      EXPECT_TRUE(in_place.Intact());
    }
  }
}

// A value does not depend on where in the array it stands.
TEST(GeluTest, DoesNotDependOnThePosition) {
  for (const Activation activation : kActivations) {
    Floats x(67, 0.7321f);
    Activate(activation, x.data(), 67);
    EXPECT_EQ(std::count(x.begin(), x.end(), x[0]), 67) << Name(activation);
  }
}

TEST(GeluTest, NanStaysNan) {
  for (const Activation activation : kActivations) {
    Floats x(19, 1.0f);
    x[3] = x[18] = kNan;
    Activate(activation, x.data(), 19);
    EXPECT_TRUE(std::isnan(x[3]) && std::isnan(x[18])) << Name(activation);
    EXPECT_TRUE(std::isfinite(x[2]) && std::isfinite(x[17])) << Name(activation);
  }
}

TEST(GeluTest, NamesDiffer) {
  EXPECT_STRNE(Name(Activation::kGeluTanh), Name(Activation::kGeluErf));
  EXPECT_STRNE(Name(Activation::kGeluTanh), Name(Activation::kNone));
}

TEST(GluTest, WideRange) {
  const Floats b = WideRange();
  for (const float scale : {1.0f, -3.7f}) {
    const Floats a(b.size(), scale);
    Guarded out(a.size());
    Glu(a.data(), b.data(), out.data(), static_cast<int64_t>(a.size()));
    EXPECT_TRUE(out.Intact());
    const Floats actual = out.Packed();
    for (size_t i = 0; i < b.size(); ++i) {
      const double expected = reference::Glu(a[i], b[i]);
      // Relative, except where exp(b) leaves float32's normal numbers.
      ASSERT_LE(std::abs(actual[i] - expected),
                2e-6 * std::abs(expected) + 4 * std::numeric_limits<float>::min())
          << a[i] << " sigmoid(" << b[i] << ") gave " << actual[i];
    }
  }
}

TEST(GluTest, EveryCountAndInPlace) {
  for (int64_t count = 0; count <= 70; ++count) {
    const Floats a = Normal(count, count), b = Normal(count + 1, count, 4);
    reference::Doubles expected;
    for (int64_t i = 0; i < count; ++i) expected.push_back(reference::Glu(a[i], b[i]));
    Guarded out(count), in_place(a), guarded_b(b);
    Glu(a.data(), guarded_b.data(), out.data(), count);
    Glu(in_place.data(), guarded_b.data(), in_place.data(), count);
    EXPECT_TRUE(reference::Near(out.Packed(), expected, reference::Tolerance(Device{}))) << count;
    EXPECT_TRUE(reference::BitwiseEqual(in_place.Packed(), out.Packed())) << count;
    EXPECT_TRUE(out.Intact());
    EXPECT_TRUE(in_place.Intact());
  }
}

TEST(GluTest, NanStaysNan) {
  Floats a(19, 1.0f), b(19, 1.0f), out(19);
  a[3] = b[18] = kNan;
  Glu(a.data(), b.data(), out.data(), 19);
  EXPECT_TRUE(std::isnan(out[3]) && std::isnan(out[18]));
  EXPECT_TRUE(std::isfinite(out[2]) && std::isfinite(out[17]));
}

}  // namespace
}  // namespace longwave

#include "kernels/dtype.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace longwave {
namespace {

double HalfValue(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double a = exponent == 0    ? std::ldexp(fraction, -24)
                   : exponent == 31 ? INFINITY
                                    : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -a : a;
}

TEST(DtypeTest, EveryHalfAndBackAgain) {
  for (int i = 0; i < 0x10000; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    uint16_t back;
    float x;
    ToFloats(Dtype::kFloat16, &bits, 1, &x);
    if ((bits & 0x7fff) > 0x7c00) {
      EXPECT_TRUE(std::isnan(x));
      continue;
    }
    EXPECT_EQ(x, HalfValue(bits)) << bits;
    FromFloats(Dtype::kFloat16, &x, 1, &back);
    EXPECT_EQ(back, bits);
    ToFloats(Dtype::kBFloat16, &bits, 1, &x);
    if (std::isnan(x)) continue;
    FromFloats(Dtype::kBFloat16, &x, 1, &back);
    EXPECT_EQ(back, bits);
  }
}

// The nearest of the two neighbours, the even one where they are as near.
TEST(DtypeTest, RoundsToNearestEven) {
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    const float x = i < 100 ? std::ldexp(1.0f + 0x1p-11f * static_cast<float>(i), i % 40 - 25)
                            : std::ldexp(static_cast<float>(random()) * 0x1p-31f - 1.0f,
                                         static_cast<int>(random() % 45) - 30);
    uint16_t half, brain;
    FromFloats(Dtype::kFloat16, &x, 1, &half);
    FromFloats(Dtype::kBFloat16, &x, 1, &brain);
    const double error = std::abs(HalfValue(half) - x);
    for (int step : {-1, 1}) {
      if ((half & 0x7fff) == 0 && step < 0) continue;
      const double other = std::abs(HalfValue(static_cast<uint16_t>(half + step)) - x);
      EXPECT_TRUE(error < other || (error == other && half % 2 == 0)) << x;
    }
    float b;
    ToFloats(Dtype::kBFloat16, &brain, 1, &b);
    const double unit = std::ldexp(1.0, std::ilogb(x) - 7);
    EXPECT_EQ(b, std::nearbyint(x / unit) * unit) << x;
  }
}

TEST(DtypeTest, BeyondRangeAndNotANumber) {
  const float x[] = {65519.0f, 65520.0f, -1e30f, INFINITY, NAN, std::numeric_limits<float>::max()};
  uint16_t half[6], brain[6];
  FromFloats(Dtype::kFloat16, x, 6, half);
  FromFloats(Dtype::kBFloat16, x, 6, brain);
  EXPECT_EQ(half[0], 0x7bff);
  EXPECT_EQ(half[1], 0x7c00);
  EXPECT_EQ(half[2], 0xfc00);
  EXPECT_EQ(half[3], 0x7c00);
  EXPECT_GT(half[4] & 0x7fff, 0x7c00);
  EXPECT_EQ(brain[3], 0x7f80);
  EXPECT_GT(brain[4] & 0x7fff, 0x7f80);
  EXPECT_EQ(brain[5], 0x7f80);
}

}  // namespace
}  // namespace longwave

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "formats/safetensors.h"

namespace longwave {
namespace {

// Stored one byte off any alignment.
template <typename T>
std::vector<float> Convert(DType dtype, const std::vector<T>& values) {
  std::vector<uint8_t> bytes(1 + values.size() * sizeof(T));
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  std::vector<float> out(values.size());
  ConvertToFloat({dtype, {static_cast<int64_t>(values.size())}, bytes.data() + 1}, out.data());
  return out;
}

// IEEE 754's definition, in double.
double HalfByDefinition(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const double sign = half >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(ConvertToFloat, EveryHalf) {
  std::vector<uint16_t> all(65536);
  for (int i = 0; i < 65536; ++i) all[i] = static_cast<uint16_t>(i);
  const std::vector<float> out = Convert(DType::kF16, all);
  for (int i = 0; i < 65536; ++i) {
    const double expected = HalfByDefinition(all[i]);
    ASSERT_EQ(std::signbit(out[i]), i >= 32768) << i;
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(out[i])) << i;
    } else {
      ASSERT_EQ(out[i], expected) << i;
    }
  }
}

TEST(ConvertToFloat, EveryBfloat16IsTheUpperHalf) {
  std::vector<uint16_t> all(65536);
  for (int i = 0; i < 65536; ++i) all[i] = static_cast<uint16_t>(i);
  const std::vector<float> out = Convert(DType::kBF16, all);
  for (uint32_t i = 0; i < 65536; ++i) ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), i << 16);
}

TEST(ConvertToFloat, SingleAndDouble) {
  EXPECT_EQ(Convert<float>(DType::kF32, {1.5f, -0.f, INFINITY}),
            (std::vector<float>{1.5f, -0.f, INFINITY}));
  EXPECT_EQ(Convert<double>(DType::kF64, {0.1, -3e-50, INFINITY}),
            (std::vector<float>{0.1f, -0.f, INFINITY}));
  EXPECT_TRUE(std::isnan(Convert<double>(DType::kF64, {NAN})[0]));
}

TEST(ConvertToFloat, NothingToConvert) { ConvertToFloat({DType::kF32, {0, 3}, nullptr}, nullptr); }

}  // namespace
}  // namespace longwave

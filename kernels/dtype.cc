#include "kernels/dtype.h"

#include <bit>
#include <cstring>

namespace longwave {
namespace {

uint16_t ToBrain(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t ToHalf(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000;
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
  if (a >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00);  // from 65536 on
  if (a < 0x38800000u) {  // subnormal: adding a half leaves its units as the lowest bits
    const uint32_t units = std::bit_cast<uint32_t>(std::bit_cast<float>(a) + 0.5f);
    return static_cast<uint16_t>(sign | (units - 0x3f000000u));
  }
  const uint32_t h = a - (112u << 23);
  return static_cast<uint16_t>(sign | ((h + 0xfff + (h >> 13 & 1)) >> 13));
}

float FromHalf(uint16_t x) {
  const uint32_t sign = uint32_t{x & 0x8000u} << 16, a = uint32_t{x & 0x7fffu} << 13;
  uint32_t bits = a + (112u << 23);
  if (a >= 0x7c00u << 13) bits += 112u << 23;  // inf, NaN
  if (a < 0x0400u << 13) {                     // subnormal
    bits = std::bit_cast<uint32_t>(std::bit_cast<float>(a + (113u << 23)) - 0x1p-14f);
  }
  return std::bit_cast<float>(sign | bits);
}

}  // namespace

void FromFloats(Dtype dtype, const float* x, int64_t count, void* out) {
  uint16_t* half = static_cast<uint16_t*>(out);
  switch (dtype) {
    case Dtype::kFloat32:
      std::memcpy(out, x, sizeof(float) * static_cast<size_t>(count));
      return;
    case Dtype::kBFloat16:
      for (int64_t i = 0; i < count; ++i) half[i] = ToBrain(x[i]);
      return;
    case Dtype::kFloat16:
      for (int64_t i = 0; i < count; ++i) half[i] = ToHalf(x[i]);
      return;
  }
}

void ToFloats(Dtype dtype, const void* x, int64_t count, float* out) {
  const uint16_t* half = static_cast<const uint16_t*>(x);
  switch (dtype) {
    case Dtype::kFloat32:
      std::memcpy(out, x, sizeof(float) * static_cast<size_t>(count));
      return;
    case Dtype::kBFloat16:
      for (int64_t i = 0; i < count; ++i) out[i] = std::bit_cast<float>(uint32_t{half[i]} << 16);
      return;
    case Dtype::kFloat16:
      for (int64_t i = 0; i < count; ++i) out[i] = FromHalf(half[i]);
      return;
  }
}

}  // namespace longwave

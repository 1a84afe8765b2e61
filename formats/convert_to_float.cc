// ConvertToFloat: stored elements, unaligned, to float32.
#include <bit>
#include <cassert>
#include <cstring>

#include "formats/safetensors.h"

namespace longwave {
namespace {

template <typename T>
T Load(const uint8_t* data, int64_t i) {
  T value;
  std::memcpy(&value, data + i * sizeof(T), sizeof(T));
  return value;
}

// No float32 subnormal appears on the way, so a thread that flushes them to zero converts the same.
float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits = (magnitude << 13) + ((127u - 15u) << 23);
  if (magnitude >= 0x7c00u) bits = 0x7f800000u | (magnitude << 13);  // infinity, NaN
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  if (magnitude < 0x0400u) bits = std::bit_cast<uint32_t>(subnormal);
  return std::bit_cast<float>(bits | sign);
}

}  // namespace

void ConvertToFloat(const TensorView& tensor, float* out) {
  const int64_t n = tensor.elements();
  const uint8_t* data = tensor.data;
  if (n == 0) return;
  switch (tensor.dtype) {
    case DType::kF32:
      std::memcpy(out, data, n * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = HalfToFloat(Load<uint16_t>(data, i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(data, i)) << 16);
      }
      return;
    case DType::kF64:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(Load<double>(data, i));
      return;
    default:
      assert(false && "ConvertToFloat: not a floating dtype");
  }
}

}  // namespace longwave

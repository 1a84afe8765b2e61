// The types that activations have. Sums are float32 at least and states float32 always.
#pragma once

#include <cstdint>

namespace longwave {

enum class Dtype { kFloat32, kBFloat16, kFloat16 };

inline int64_t SizeOf(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }
inline const char* Name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return "float32";
    case Dtype::kBFloat16:
      return "bfloat16";
    case Dtype::kFloat16:
      return "float16";
  }
  return "?";
}

// Between float32 and values of `dtype` on the host, rounding to nearest, ties to even; a value
// beyond float16 becomes infinite.
void FromFloats(Dtype dtype, const float* x, int64_t count, void* out);
void ToFloats(Dtype dtype, const void* x, int64_t count, float* out);

}  // namespace longwave

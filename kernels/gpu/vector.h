// Eight values at a time between memory and float32 registers, activations, and a call by dtype.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/dtype.h"
#include "kernels/gpu/device_code.h"

namespace longwave::gpu {

// p aligned to 16 bytes.
template <typename T>
LONGWAVE_DEVICE void Unpack8(uint4 bits, float (&v)[8]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    const float2 pair = Unpack(words[i], T());
    v[2 * i] = pair.x;
    v[2 * i + 1] = pair.y;
  }
}
template <typename T>
LONGWAVE_DEVICE void Load8(const T* p, float (&v)[8]) {
  if constexpr (sizeof(T) == 4) {
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      const float4 four = reinterpret_cast<const float4*>(p)[i];
      v[4 * i] = four.x;
      v[4 * i + 1] = four.y;
      v[4 * i + 2] = four.z;
      v[4 * i + 3] = four.w;
    }
  } else {
    Unpack8<T>(*reinterpret_cast<const uint4*>(p), v);
  }
}
template <typename T>
LONGWAVE_DEVICE void Store8(T* p, const float (&v)[8]) {
  if constexpr (sizeof(T) == 4) {
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      reinterpret_cast<float4*>(p)[i] =
          make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    }
  } else {
    *reinterpret_cast<uint4*>(p) = make_uint4(Pack(v[0], v[1], T()), Pack(v[2], v[3], T()),
                                              Pack(v[4], v[5], T()), Pack(v[6], v[7], T()));
  }
}

// Values [0, count) of eight, the others `otherwise`.
template <typename T>
LONGWAVE_DEVICE void LoadSome(const T* p, int count, float (&v)[8], float otherwise = 0) {
  LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) v[i] = i < count ? ToFloat(p[i]) : otherwise;
}
template <typename T>
LONGWAVE_DEVICE void StoreSome(T* p, int count, const float (&v)[8]) {
  LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) {
    if (i < count) p[i] = FromFloat<T>(v[i]);
  }
}
// The first eight of `count` values, at once where there are eight and `vectors` says that p is
// aligned to 16 bytes.
template <typename T>
LONGWAVE_DEVICE void LoadUpTo8(const T* p, int64_t count, bool vectors, float (&v)[8]) {
  if (vectors && count >= 8) {
    Load8(p, v);
  } else {
    LoadSome(p, static_cast<int>(count), v);
  }
}
template <typename T>
LONGWAVE_DEVICE void StoreUpTo8(T* p, int64_t count, bool vectors, const float (&v)[8]) {
  if (vectors && count >= 8) {
    Store8(p, v);
  } else {
    StoreSome(p, static_cast<int>(count), v);
  }
}

// What activations are of one value, right to float32; NaN stays NaN.
LONGWAVE_DEVICE float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
LONGWAVE_DEVICE float GeluTanh(float x) {
  constexpr float kTwice = 2 * 0.7978845608028654f;  // 0.5 (1 + tanh(w)) = sigmoid(2 w)
  return x * Sigmoid(x * (kTwice + kTwice * 0.044715f * x * x));
}
LONGWAVE_DEVICE float GeluErf(float x) { return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f)); }

inline bool Aligned16(const void* p, int64_t stride_bytes = 0) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride_bytes % 16 == 0;
}

// f(T()) with the type that `dtype` names.
template <typename F>
auto WithType(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::kBFloat16:
      return f(__nv_bfloat16());
    case Dtype::kFloat16:
      return f(__half());
    default:
      return f(float());
  }
}

// f(T(), TOther()) with the types of `dtype` and of `other`, which is the same or float32.
template <typename F>
absl::Status WithTypes(const char* name, Dtype dtype, Dtype other, F f) {
  return WithType(dtype, [&](auto type) -> absl::Status {
    if (other == dtype) return f(type, type);
    if (other == Dtype::kFloat32) return f(type, float());
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", Name(dtype), " together with ", Name(other)));
  });
}

}  // namespace longwave::gpu

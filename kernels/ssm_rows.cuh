// Blocks of 64 tokens as the rows of a warp's matrices, and their products with constant matrices
// of 64 x 64 on tensor cores: what the dual form on a GPU (ssm_conv_kernel.cuh) is made of.
//
// A thread (g, q) of a warp, g = lane / 4, q = lane % 4, holds a quarter of several rows in
// registers, in an order of its own: rows come from memory as mma's left operand and go back from
// its accumulators with nothing staged in between, and the matrices' rows and columns follow.
#pragma once

#include <type_traits>

#include "kernels/gpu/device_code.h"

namespace longwave::gpu {

constexpr int kT = 64;      // tokens of a block
constexpr int kGroups = 8;  // of four threads in a warp

// Where a row's 64 values stand: thread q of four, its pair p of 8, the pair's element e. As
// tokens:
__host__ __device__ constexpr int SlotToken(int p, int q, int e) {
  return (p < 4 ? 8 * q + 2 * p : 32 + 8 * q + 2 * (p - 4)) + e;
}
// As states: conjugate pair 4p + q, its real (e = 0) or imaginary part.
__host__ __device__ constexpr int SlotPair(int p, int q) { return 4 * p + q; }

// A matrix (64 slots, 64 slots) is stored as the fragments of mma's right operand, 16 bytes a
// thread.
template <typename T>
constexpr int kMatrixBytes = std::is_same_v<T, float> ? 32 << 10 : 8 << 10;

// ---- A row's values as one thread holds them

template <typename T>
struct Row {
  uint32_t pair[8];
};
template <>
struct Row<float> {
  float2 pair[8];
};

template <typename T>
LONGWAVE_DEVICE float2 Get(const Row<T>& row, int p) {
  return Unpack(row.pair[p], T());
}
template <>
LONGWAVE_DEVICE float2 Get(const Row<float>& row, int p) {
  return row.pair[p];
}
template <typename T>
LONGWAVE_DEVICE void Set(Row<T>& row, int p, float2 v) {
  row.pair[p] = Pack(v.x, v.y, T());
}
template <>
LONGWAVE_DEVICE void Set(Row<float>& row, int p, float2 v) {
  row.pair[p] = v;
}

template <typename T>
LONGWAVE_DEVICE void LoadWhole(Row<T>& row, const T* tokens, int q) {
  if constexpr (std::is_same_v<T, float>) {
    LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
      const float4 x = *reinterpret_cast<const float4*>(tokens + SlotToken(2 * i, q, 0));
      row.pair[2 * i] = {x.x, x.y};
      row.pair[2 * i + 1] = {x.z, x.w};
    }
  } else {
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      const uint4 x = *reinterpret_cast<const uint4*>(tokens + SlotToken(4 * i, q, 0));
      row.pair[4 * i] = x.x;
      row.pair[4 * i + 1] = x.y;
      row.pair[4 * i + 2] = x.z;
      row.pair[4 * i + 3] = x.w;
    }
  }
}

// `count` of the row's 64 tokens are read, the rest is zero.
template <typename T>
LONGWAVE_DEVICE void LoadPart(Row<T>& row, const T* tokens, int count, int q) {
  LONGWAVE_UNROLL for (int p = 0; p < 8; ++p) {
    float2 v{0, 0};
    const int t = SlotToken(p, q, 0);
    if (t < count) v.x = ToFloat(tokens[t]);
    if (t + 1 < count) v.y = ToFloat(tokens[t + 1]);
    Set(row, p, v);
  }
}

template <typename T>
LONGWAVE_DEVICE void StoreWhole(const Row<T>& row, T* tokens, int q) {
  if constexpr (std::is_same_v<T, float>) {
    LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
      const float2 a = row.pair[2 * i], b = row.pair[2 * i + 1];
      *reinterpret_cast<float4*>(tokens + SlotToken(2 * i, q, 0)) = {a.x, a.y, b.x, b.y};
    }
  } else {
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      StoreStreaming(tokens + SlotToken(4 * i, q, 0), {row.pair[4 * i], row.pair[4 * i + 1],
                                                       row.pair[4 * i + 2], row.pair[4 * i + 3]});
    }
  }
}

template <typename T>
LONGWAVE_DEVICE void StorePart(const Row<T>& row, T* tokens, int count, int q) {
  LONGWAVE_UNROLL for (int p = 0; p < 8; ++p) {
    const float2 v = Get(row, p);
    const int t = SlotToken(p, q, 0);
    if (t < count) tokens[t] = FromFloat<T>(v.x);
    if (t + 1 < count) tokens[t + 1] = FromFloat<T>(v.y);
  }
}

// ---- Products

// Which 32 x 32 corner of a matrix of tokens is zero and left out.
enum class Corner { kNone, kLowerLeft, kUpperRight };

LONGWAVE_DEVICE constexpr bool IsZero(Corner corner, bool lower, bool right) {
  return (corner == Corner::kLowerLeft && lower && !right) ||
         (corner == Corner::kUpperRight && !lower && right);
}

// In 16 bits: the rows are mma's left operand as they are.
template <Corner corner, typename T, int kTiles>
LONGWAVE_DEVICE void Multiply16(float (&acc)[kTiles][8][4], const Row<T>* rows,
                                const unsigned char* matrix) {
  const uint4* fragments = reinterpret_cast<const uint4*>(matrix) + Lane();
  LONGWAVE_UNROLL for (int s = 0; s < 4; ++s) {
    LONGWAVE_UNROLL for (int j = 0; j < 8; j += 2) {
      if (IsZero(corner, s >= 2, j >= 4)) continue;
      const uint4 b = fragments[(s * 4 + j / 2) * kWarp];
      LONGWAVE_UNROLL for (int m = 0; m < kTiles; ++m) {
        const uint32_t a[4] = {rows[2 * m].pair[2 * s], rows[2 * m + 1].pair[2 * s],
                               rows[2 * m].pair[2 * s + 1], rows[2 * m + 1].pair[2 * s + 1]};
        Mma(acc[m][j], a, b.x, b.y, T());
        Mma(acc[m][j + 1], a, b.z, b.w, T());
      }
    }
  }
}

// In tf32, high and low parts: the product of two low parts is left out (2^-22 of the result).
template <Corner corner, int kTiles>
LONGWAVE_DEVICE void Multiply32(float (&acc)[kTiles][8][4], const Row<float>* rows,
                                const unsigned char* matrix) {
  const uint4* fragments = reinterpret_cast<const uint4*>(matrix) + Lane();
  LONGWAVE_UNROLL for (int m = 0; m < kTiles; ++m) {
    LONGWAVE_UNROLL for (int p = 0; p < 8; ++p) {
      const float x[4] = {rows[2 * m].pair[p].x, rows[2 * m + 1].pair[p].x, rows[2 * m].pair[p].y,
                          rows[2 * m + 1].pair[p].y};
      uint32_t high[4], low[4];
      LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
        high[i] = (FloatBits(x[i]) + 0x1000u) & 0xffffe000u;
        low[i] = (FloatBits(x[i] - BitsFloat(high[i])) + 0x1000u) & 0xffffe000u;
      }
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        if (IsZero(corner, p >= 4, j >= 4)) continue;
        const uint4 b = fragments[(p * 8 + j) * kWarp];
        MmaTf32(acc[m][j], low, b.x, b.y);
        MmaTf32(acc[m][j], high, b.z, b.w);
        MmaTf32(acc[m][j], high, b.x, b.y);
      }
    }
  }
}

// acc (16 kTiles rows, 64) += rows (16 kTiles, 64) matrix (64, 64). Thread (g, q) has rows[i] =
// block g kRows + i; tile m's mma rows are blocks 2m and 2m + 1 of each group.
template <Corner corner, typename T, int kTiles>
LONGWAVE_DEVICE void Multiply(float (&acc)[kTiles][8][4], const Row<T>* rows,
                              const unsigned char* matrix) {
  if constexpr (std::is_same_v<T, float>) {
    Multiply32<corner>(acc, rows, matrix);
  } else {
    Multiply16<corner>(acc, rows, matrix);
  }
}

template <int kTiles>
LONGWAVE_DEVICE void Clear(float (&acc)[kTiles][8][4]) {
  LONGWAVE_UNROLL for (int m = 0; m < kTiles; ++m) {
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
      LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) acc[m][j][i] = 0;
    }
  }
}

// Block i's values of slot pair j in the accumulators.
template <int kTiles>
LONGWAVE_DEVICE float2 Block(const float (&acc)[kTiles][8][4], int i, int j) {
  return {acc[i / 2][j][i % 2 * 2], acc[i / 2][j][i % 2 * 2 + 1]};
}

// Writes a matrix of tokens (64, 64) with element (i, j) = value(i, j) as fragments; all threads of
// the block. `low`: the rest that high fragments of 16 bits leave (float32 has both in one).
template <typename T, typename Value>
LONGWAVE_DEVICE void BuildMatrix(unsigned char* matrix, bool low, Value value) {
  for (int i = static_cast<int>(threadIdx.x); i < kMatrixBytes<T> / 16;
       i += static_cast<int>(blockDim.x)) {
    const int lane = i % kWarp, g = lane / 4, q = lane % 4;
    uint32_t word[4];
    LONGWAVE_UNROLL for (int r = 0; r < 4; ++r) {
      if constexpr (std::is_same_v<T, float>) {
        const int p = i / kWarp / 8, j = i / kWarp % 8;
        const float x = value(SlotToken(p, q, r % 2), SlotToken(j, g / 2, g % 2));
        const uint32_t high = (FloatBits(x) + 0x1000u) & 0xffffe000u;
        word[r] = r < 2 ? high : FloatBits(x - BitsFloat(high)) + 0x1000u;
      } else {
        const int p = i / kWarp / 4 * 2 + r % 2, j = i / kWarp % 4 * 2 + r / 2;
        float x[2];
        LONGWAVE_UNROLL for (int e = 0; e < 2; ++e) {
          x[e] = value(SlotToken(p, q, e), SlotToken(j, g / 2, g % 2));
          if (low) x[e] -= ToFloat(FromFloat<T>(x[e]));
        }
        word[r] = Pack(x[0], x[1], T());
      }
    }
    reinterpret_cast<uint4*>(matrix)[i] = {word[0], word[1], word[2], word[3]};
  }
}

}  // namespace longwave::gpu

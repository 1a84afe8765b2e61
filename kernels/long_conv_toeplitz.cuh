// LongConv's kernel for 16-bit data and short sequences: a channel's Toeplitz matrix times many
// sequences, on tensor cores.
//
//   y[b, t] = sum_s w[b, s] h[t - s]    (batch, L) = (batch, L) (L, L)
//
// A block of threads takes one channel and 32 `groups` sequences:
//   1. w = pre_gate u into shared memory, rounded once to 16 bits, zeros up to a multiple of 64
//   2. the taps' fragments: with e = (t0 - s0) / 8, the matrix (8 s, 8 t) of h[t - s] is one word a
//      lane, F(e) = h[8 e + g - 2 q], h[8 e + g - 2 q - 1] (g = lane / 4, q = lane % 4), zero above
//      the diagonal. All of a Toeplitz matrix is its L / 8 words a lane; 16 s by 8 t is (F(e),
//      F(e-1))
//   3. each warp a tile of 32 sequences x 64 tokens: for every 16 s up to the tile's end, 16
//      products from 8 words of w, 9 F of which 7 are the last step's, moved on
//   4. times the taps' scale and post_gate in float32, rounded once, through shared memory so that
//      a lane writes 8 tokens
// Tiles are triangular: long ones first, back and forth over the warps, so that all end together.
// 64 sums a thread and two blocks on a multiprocessor leave no more registers; 32 sequences fill
// two fragments so that a word of F is used twice. The product of w and h costs about L / 2
// multiply-adds a token: it is ahead of an FFT in float32 up to L = 2048, where w still fits.
//
// Taps are rounded to 16 bits, scaled for each channel so that their largest is 1: where one tap is
// most of a filter, as a skip is, it is exact, and small taps keep float16's precision.
#pragma once

#include <cstdint>

#include "kernels/gpu/device_code.h"

namespace longwave::long_conv {

constexpr int kToeplitzMaxLength = 2048;
constexpr int kToeplitzThreads = 256;
constexpr int kTileRows = 32, kTileTokens = 64;
constexpr int kFragmentsBefore = 7;  // F(-7..-1) are zero
constexpr int kStageRow = 40;        // floats: 32 tokens, and 8 so that rows differ in their banks

struct ToeplitzParams {
  const void* u;  // (batch, channels, length), strides in elements
  const void* pre_gate;
  const void* post_gate;
  void* y;
  int64_t batch_stride, channel_stride;
  int64_t batch;
  int length, taps, groups;
  int64_t row_blocks;   // blocks of threads of a channel
  bool vectors;         // every pointer and stride is a multiple of 16 bytes
  const void* h;        // (channels, taps), 16 bits, scaled
  const float* scales;  // (channels), of the sums
};

inline int ToeplitzPadded(int length) {
  return (length + kTileTokens - 1) / kTileTokens * kTileTokens;
}
inline int64_t ToeplitzShared(int length, int groups) {
  const int64_t padded = ToeplitzPadded(length);
  return groups * kTileRows * (padded + 8) * 2 + (padded / 8 + kFragmentsBefore) * 128 +
         kToeplitzThreads / gpu::kWarp * 16 * kStageRow * 4;
}

namespace internal {

// 8 tokens, of which `valid` exist, as they are; zeros for the others.
template <typename T>
LONGWAVE_DEVICE uint4 Read8(const T* p, int valid, bool vectors) {
  if (vectors && valid >= 8) return gpu::LoadStreaming(p);
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(p);
  uint32_t w[4];
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    w[i] = 2 * i < valid ? bits[2 * i] : 0u;
    if (2 * i + 1 < valid) w[i] |= static_cast<uint32_t>(bits[2 * i + 1]) << 16;
  }
  return {w[0], w[1], w[2], w[3]};
}

template <typename T>
LONGWAVE_DEVICE void Unpack8(uint4 words, float (&x)[8]) {
  const uint32_t w[4] = {words.x, words.y, words.z, words.w};
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    const float2 pair = gpu::Unpack(w[i], T());
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
}
template <typename T>
LONGWAVE_DEVICE uint4 Pack8(const float (&x)[8]) {
  return {gpu::Pack(x[0], x[1], T()), gpu::Pack(x[2], x[3], T()), gpu::Pack(x[4], x[5], T()),
          gpu::Pack(x[6], x[7], T())};
}

}  // namespace internal

// Grid: channels * row_blocks. Shared: ToeplitzShared(length, groups).
template <typename T>
__global__ void __launch_bounds__(kToeplitzThreads, 2) ToeplitzKernel(const ToeplitzParams p) {
  constexpr int kWarps = kToeplitzThreads / gpu::kWarp;
  const int thread = static_cast<int>(threadIdx.x), lane = gpu::Lane(), warp = gpu::WarpOfBlock();
  const int g = lane / 4, q = lane % 4;
  const int64_t channel = blockIdx.x / p.row_blocks;
  const int64_t first_row = blockIdx.x % p.row_blocks * p.groups * kTileRows;
  const int rows = static_cast<int>(
      p.batch - first_row < p.groups * kTileRows ? p.batch - first_row : p.groups * kTileRows);
  const int groups = (rows + kTileRows - 1) / kTileRows;
  const int padded = (p.length + kTileTokens - 1) / kTileTokens * kTileTokens;
  const int64_t origin = first_row * p.batch_stride + channel * p.channel_stride;

  // Rows are 16 bytes apart in their banks.
  const int w_row = padded / 2 + 4;  // words
  uint32_t* w = reinterpret_cast<uint32_t*>(gpu::DynamicShared());
  uint32_t* fragments = w + p.groups * kTileRows * w_row;
  float* stage =
      reinterpret_cast<float*>(fragments + (padded / 8 + kFragmentsBefore) * gpu::kWarp) +
      warp * 16 * kStageRow;

  // 1. Everything in flight at once where nothing has to be multiplied, else four loads.
  const T* u = static_cast<const T*>(p.u) + origin;
  const int chunks = padded / 8, count = groups * kTileRows * chunks;
  if (p.vectors && p.pre_gate == nullptr) {
    for (int i = thread; i < count; i += kToeplitzThreads) {
      const int row = i / chunks, at = i % chunks * 8;
      const int left = row < rows && at < p.length ? p.length - at : 0, valid = left < 8 ? left : 8;
      gpu::CopyAsync16(w + row * w_row + at / 2, valid > 0 ? u + row * p.batch_stride + at : u,
                       2 * valid);
    }
    gpu::CopyAsyncCommit();
  } else {
    constexpr int kAtOnce = 4;
    const T* pre = p.pre_gate == nullptr ? nullptr : static_cast<const T*>(p.pre_gate) + origin;
    for (int i = thread; i < count; i += kAtOnce * kToeplitzThreads) {
      uint4 words[kAtOnce], gates[kAtOnce];
      LONGWAVE_UNROLL for (int k = 0; k < kAtOnce; ++k) {
        const int row = (i + k * kToeplitzThreads) / chunks;
        const int at = (i + k * kToeplitzThreads) % chunks * 8;
        const int valid = row < rows ? p.length - at : 0;
        const int64_t offset = row * p.batch_stride + at;
        words[k] = valid > 0 ? internal::Read8(u + offset, valid, p.vectors) : uint4{0, 0, 0, 0};
        gates[k] = valid > 0 && pre != nullptr ? internal::Read8(pre + offset, valid, p.vectors)
                                               : uint4{0, 0, 0, 0};
      }
      LONGWAVE_UNROLL for (int k = 0; k < kAtOnce; ++k) {
        if (i + k * kToeplitzThreads >= count) break;
        const int row = (i + k * kToeplitzThreads) / chunks;
        const int at = (i + k * kToeplitzThreads) % chunks * 8;
        if (pre != nullptr) {
          float x[8], gate[8];
          internal::Unpack8<T>(words[k], x);
          internal::Unpack8<T>(gates[k], gate);
          LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) x[j] *= gate[j];
          words[k] = internal::Pack8<T>(x);
        }
        *reinterpret_cast<uint4*>(w + row * w_row + at / 2) = words[k];
      }
    }
  }

  // 2.
  const T* h = static_cast<const T*>(p.h) + channel * p.taps;
  for (int i = warp; i < padded / 8 + kFragmentsBefore; i += kWarps) {
    const int tap = 8 * (i - kFragmentsBefore) + g - 2 * q;
    const float a = tap >= 0 && tap < p.taps ? gpu::ToFloat(h[tap]) : 0.0f;
    const float b = tap >= 1 && tap <= p.taps ? gpu::ToFloat(h[tap - 1]) : 0.0f;
    fragments[i * gpu::kWarp + lane] = gpu::Pack(a, b, T());
  }
  gpu::CopyAsyncWait<0>();
  gpu::SyncBlock();
  const uint32_t* F = fragments + kFragmentsBefore * gpu::kWarp + lane;
  const float scale = p.scales[channel];

  const int tiles = padded / kTileTokens, items = tiles * groups;
  for (int turn = 0; turn * kWarps < items; ++turn) {
    const int item = turn * kWarps + (turn % 2 == 0 ? warp : kWarps - 1 - warp);
    if (item >= items) continue;
    const int tile = tiles - 1 - item / groups, group = item % groups;
    const int t0 = tile * kTileTokens;

    // 3. From the first s whose taps reach the tile.
    float sum[2][8][4] = {};
    const int first = t0 >= p.taps ? (t0 - p.taps + 1) / 16 : 0;  // steps of 16 s
    const int last = t0 / 16 + 3;
    uint32_t f[9];  // f[i] = F(e - 1 + i), e = (t0 - s0) / 8
    const uint32_t* x = w + (group * kTileRows + g) * w_row + first * 8 + q;
    const uint32_t* next = F + (t0 / 8 - 2 * first - 1) * gpu::kWarp;
    LONGWAVE_UNROLL for (int i = 0; i < 7; ++i) f[i] = next[(i + 2) * gpu::kWarp];
    for (int step = first; step <= last; ++step) {
      LONGWAVE_UNROLL for (int i = 8; i >= 2; --i) f[i] = f[i - 2];
      f[0] = next[0];
      f[1] = next[gpu::kWarp];
      next -= 2 * gpu::kWarp;
      uint32_t a[2][4];
      LONGWAVE_UNROLL for (int r = 0; r < 2; ++r) {
        const uint32_t* from = x + r * 16 * w_row;
        a[r][0] = from[0];
        a[r][1] = from[8 * w_row];
        a[r][2] = from[4];
        a[r][3] = from[8 * w_row + 4];
      }
      x += 8;
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        LONGWAVE_UNROLL for (int r = 0; r < 2; ++r) {
          gpu::Mma(sum[r][j], a[r], f[j + 1], f[j], T());
        }
      }
    }

    // 4. 16 sequences and 32 tokens at a time; their gates are on the way meanwhile.
    LONGWAVE_UNROLL for (int r = 0; r < 2; ++r) {
      const auto row_of = [&](int i) { return group * kTileRows + r * 16 + i * 8 + g; };
      const auto token_of = [&](int half) { return t0 + half * 32 + 8 * q; };
      uint4 gates[2][2];
      if (p.post_gate != nullptr) {
        LONGWAVE_UNROLL for (int half = 0; half < 2; ++half) {
          LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
            const int valid = row_of(i) < rows ? p.length - token_of(half) : 0;
            if (valid <= 0) continue;
            gates[half][i] = internal::Read8(static_cast<const T*>(p.post_gate) + origin +
                                                 row_of(i) * p.batch_stride + token_of(half),
                                             valid, p.vectors);
          }
        }
      }
      LONGWAVE_UNROLL for (int half = 0; half < 2; ++half) {
        LONGWAVE_UNROLL for (int j = 0; j < 4; ++j) {
          const float(&d)[4] = sum[r][half * 4 + j];
          float2* to = reinterpret_cast<float2*>(stage + g * kStageRow + 8 * j + 2 * q);
          to[0] = {d[0] * scale, d[1] * scale};
          to[8 * kStageRow / 2] = {d[2] * scale, d[3] * scale};
        }
        gpu::SyncWarp();
        LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
          const int valid = row_of(i) < rows ? p.length - token_of(half) : 0;
          if (valid <= 0) continue;
          const float4* from =
              reinterpret_cast<const float4*>(stage + (i * 8 + g) * kStageRow + 8 * q);
          const float4 lo = from[0], hi = from[1];
          float y[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
          if (p.post_gate != nullptr) {
            float gate[8];
            internal::Unpack8<T>(gates[half][i], gate);
            LONGWAVE_UNROLL for (int k = 0; k < 8; ++k) y[k] *= gate[k];
          }
          T* out = static_cast<T*>(p.y) + origin + row_of(i) * p.batch_stride + token_of(half);
          if (p.vectors && valid >= 8) {
            gpu::StoreStreaming(out, internal::Pack8<T>(y));
          } else {
            LONGWAVE_UNROLL for (int k = 0; k < 8; ++k) {
              if (k < valid) out[k] = gpu::FromFloat<T>(y[k]);
            }
          }
        }
        gpu::SyncWarp();
      }
    }
  }
}

}  // namespace longwave::long_conv

// SsmConv's block FFT on the GPU: the kernel. One block of the grid walks one (batch, channel) from
// its first token to its last, two FFT blocks of N = R x R tokens at a time.
//
// Cyclic, repaired by the state. A cyclic convolution wraps around: what should leave the block at
// its end comes back at its start. Doubling the transform avoids that; here the state undoes it.
// Modulo X^N - rho, with the taps K[l + mN] rho^m summed over all m >= 0, the cyclic product is
//   y_cyclic[t] = y_local[t] + 2 Re sum_n c_n a_n^(t+1) g_n S_n,   g = rho / (1 - rho a^N)
// S = sum_t b a^(N-1-t) w[t] being what the block adds to the state: the wrap-around is one more
// state. So with x the state before the block
//   y[t] = y_cyclic[t] + 2 Re sum_n c_n a_n^(t+1) (x_n - g_n S_n),   x' = a^N x + S
// rho = 1/2 keeps |g| <= 1 for every |a| <= 1, and the weights rho^(t/N) within [1/2, 1]. Taps and
// weights are real, so one complex transform carries two blocks of real tokens, block A as real and
// block B as imaginary parts, and never mixes them. The taps' transform has a closed form,
//   sum_n  c b / (1 - alpha e(-f/N)) + conj(c b) / (1 - conj(alpha) e(-f/N)),  alpha = a rho^(1/N)
//
// Transforms as matrix products. With t = R t1 + t2, f = f1 + R f2 and F[j][k] = e(-jk/R), a
// transform is two products with F and one multiplication by twiddles between them. Every step of
// the walk is rows of a matrix times a constant matrix; two warps have 16 of the R rows, and half
// of the columns each:
//
//   1  rows t2   w (t1 -> f1) F, times twiddle[t2][f1]        and S (t1 -> modes)
//   2  rows f1     (t2 -> f2) F, times spectrum[f1][f2]
//   3  rows f1     (f2 -> t2) conj F, times untwiddle[f1][t2]
//   4  rows t2     (f1 -> t1) conj F                          and states (modes -> t1)
//
// Between them the numbers stand in shared memory, a plane of real and one of imaginary parts.
// The state rides along in the products that are there anyway, since a^(R t1 + t2) is a product:
//   S[n]          = sum_t2 (b a^(R-1-t2)) sum_t1 w[t1][t2] a^(R(R-1-t1))   columns of product 1
//   y[t1][t2]    += 2 Re sum_n (c a^(t2+1) x)_n a_n^(R t1)                 rows of product 4
//
// Products are tf32 on tensor cores. kSplit (float16 and float32 data): each operand is the sum of
// two tf32 numbers, three products instead of one, and sums outside the tensor core, which
// truncates: about float32's accuracy.
//
// A last partial block is filled up with zeros; what it adds to the state is summed from a copy
// whose zeros stand in front, before anything is written (y may overwrite u).
#pragma once

#include "kernels/gpu/device_code.h"

namespace longwave {

using gpu::Lane;
using gpu::WarpOfBlock;

template <int R>
struct SsmFftShape {
  static constexpr int kBlock = R * R;
  static constexpr int kThreads = 4 * R;
  static constexpr int kRowTiles = R / 16;  // of 16 rows, two warps each
  static constexpr int kTiles = R / 8;      // of 8 columns, or of 8 terms of a sum
  static constexpr int kColumns = R / 16;   // column tiles of a warp
  // Floats of a plane's row: 8 modulo the 32 banks, so that fragments are read without conflicts
  // along rows and along columns.
  static constexpr int kRow = R + 8;
  // At once on a multiprocessor: 80 registers a thread, or 128 where sums or operands are more.
  static constexpr int BlocksPerSm(bool split) { return (split || R == 64 ? 128 : 192) / R; }
};

// A warp's 16 rows, and its first column tile.
struct SsmFftPart {
  int row, column;
};

// Where the constants of `filters` filters stand, in floats of one array. Complex numbers are re,
// im. Operands of products are in fragment order: for each lane the real parts of its b0 and b1 of
// MmaTf32, then the imaginary parts. `modes` are the pairs, filled up with zeros to tiles of 8.
struct SsmFftLayout {
  int64_t R, mode_tiles;

  constexpr int64_t modes() const { return 8 * mode_tiles; }
  constexpr int64_t matrix() const { return 16 * R * mode_tiles; }
  // For all filters.
  constexpr int64_t dft() const { return 0; }                // (R/8, R/8, lanes, 4): F
  constexpr int64_t twiddle() const { return 2 * R * R; }    // (t2, f1): e(-t2 f1/N) rho^(t2/N)
  constexpr int64_t untwiddle() const { return 4 * R * R; }  // (f1, t2): e(t2 f1/N) rho^(-t2/N)
  constexpr int64_t weights() const { return 6 * R * R; }    // rho^(t1/R), then rho^(-t1/R)
  constexpr int64_t filter() const { return 6 * R * R + 2 * R; }  // the first filter
  // Within a filter.
  constexpr int64_t spectrum() const { return 0; }             // (f1, f2), with 1/N
  constexpr int64_t sum_columns() const { return 2 * R * R; }  // (mode tiles, R/8, lanes, 4)
  constexpr int64_t sum_rows() const { return sum_columns() + matrix(); }  // (t2, modes)
  constexpr int64_t state_columns() const {
    return sum_rows() + matrix();
  }  // (mode tiles, R/8, lanes, 4)
  constexpr int64_t state_rows() const { return state_columns() + matrix(); }  // (t2, modes)
  constexpr int64_t carry() const { return state_rows() + matrix(); }  // (modes) doubles: a, a^N, g
  constexpr int64_t filter_stride() const { return carry() + 12 * modes(); }
  constexpr int64_t size(int64_t filters) const { return filter() + filters * filter_stride(); }

  // Shared memory of a block: F, two planes, and complex numbers for each mode: sums of each
  // row tile for A and B, corrected states before A and B, the state, the tail's sum.
  constexpr int64_t shared_bytes() const {
    return 4 * (2 * R * R + 2 * R * (R + 8)) + 8 * modes() * (2 * (R / 16) + 4);
  }
};

struct SsmFftParams {
  const void *u, *pre_gate, *post_gate;  // gates: null for none
  void* y;                               // null: the state alone
  const float* state_in;                 // null: zero
  float* state_out;                      // null: not wanted
  int64_t length, batch_stride, channel_stride;
  int batch, channels, channels_per_filter, pairs;
  bool aligned;  // all rows of all arrays to 16 bytes
  SsmFftLayout layout;
  const float* constants;
};

// ---- Products --------------------------------------------------------------------------------

// A warp's 16 x 8 left operand and 8 x 8 right operand, whole or in two parts.
template <bool kSplit>
struct SsmFftLeft {
  uint32_t high[4], low[kSplit ? 4 : 1];
  LONGWAVE_DEVICE void Set(int i, float x) {
    high[i] = gpu::ToTf32(x);
    if constexpr (kSplit) low[i] = gpu::ToTf32(x - gpu::BitsFloat(high[i]));
  }
  LONGWAVE_DEVICE SsmFftLeft Minus() const {
    SsmFftLeft minus;
    LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
      minus.high[i] = high[i] ^ 0x80000000u;
      if constexpr (kSplit) minus.low[i] = low[i] ^ 0x80000000u;
    }
    return minus;
  }
};

template <bool kSplit>
struct SsmFftRight {
  uint32_t high[2], low[kSplit ? 2 : 1];
  // Constants that are used whole have been rounded on the host.
  LONGWAVE_DEVICE SsmFftRight(float b0, float b1) {
    if constexpr (kSplit) {
      high[0] = gpu::ToTf32(b0);
      high[1] = gpu::ToTf32(b1);
      low[0] = gpu::ToTf32(b0 - gpu::BitsFloat(high[0]));
      low[1] = gpu::ToTf32(b1 - gpu::BitsFloat(high[1]));
    } else {
      high[0] = gpu::FloatBits(b0);
      high[1] = gpu::FloatBits(b1);
    }
  }
};

// sum += a b
LONGWAVE_DEVICE void SsmFftMultiply(float (&sum)[4], const SsmFftLeft<false>& a,
                                    const SsmFftRight<false>& b) {
  gpu::MmaTf32(sum, a.high, b.high[0], b.high[1]);
}
LONGWAVE_DEVICE void SsmFftMultiply(float (&sum)[4], const SsmFftLeft<true>& a,
                                    const SsmFftRight<true>& b) {
  float part[4] = {0, 0, 0, 0};
  gpu::MmaTf32(part, a.low, b.high[0], b.high[1]);
  gpu::MmaTf32(part, a.high, b.low[0], b.low[1]);
  gpu::MmaTf32(part, a.high, b.high[0], b.high[1]);
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) sum[i] += part[i];
}
// sum += a b + c d
LONGWAVE_DEVICE void SsmFftMultiply(float (&sum)[4], const SsmFftLeft<false>& a,
                                    const SsmFftRight<false>& b, const SsmFftLeft<false>& c,
                                    const SsmFftRight<false>& d) {
  SsmFftMultiply(sum, a, b);
  SsmFftMultiply(sum, c, d);
}
LONGWAVE_DEVICE void SsmFftMultiply(float (&sum)[4], const SsmFftLeft<true>& a,
                                    const SsmFftRight<true>& b, const SsmFftLeft<true>& c,
                                    const SsmFftRight<true>& d) {
  float part[4] = {0, 0, 0, 0};
  gpu::MmaTf32(part, a.low, b.high[0], b.high[1]);
  gpu::MmaTf32(part, c.low, d.high[0], d.high[1]);
  gpu::MmaTf32(part, a.high, b.low[0], b.low[1]);
  gpu::MmaTf32(part, c.high, d.low[0], d.low[1]);
  gpu::MmaTf32(part, a.high, b.high[0], b.high[1]);
  gpu::MmaTf32(part, c.high, d.high[0], d.high[1]);
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) sum[i] += part[i];
}

// Rows [row, row + 16) and columns [8k, 8k + 8) of a plane, or of the plane transposed.
template <bool kSplit, int R, bool kTransposed>
LONGWAVE_DEVICE SsmFftLeft<kSplit> SsmFftRead(const float* plane, int row, int k) {
  constexpr int kRow = SsmFftShape<R>::kRow;
  const int g = Lane() / 4, q = Lane() % 4;
  SsmFftLeft<kSplit> left;
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    const int r = row + g + i % 2 * 8, c = 8 * k + q + i / 2 * 4;
    left.Set(i, plane[kTransposed ? c * kRow + r : r * kRow + c]);
  }
  return left;
}

// A warp's complex sums, as MmaTf32 leaves them: [column tile][re, im][].
template <int R>
using SsmFftSums = float[SsmFftShape<R>::kColumns][2][4];

// sums += rows of (re, im) times F, or its conjugate.
template <bool kSplit, int R, bool kTransposed, bool kInverse>
LONGWAVE_DEVICE void SsmFftTransform(const float* re, const float* im, const float4* dft,
                                     SsmFftPart part, SsmFftSums<R>& sums) {
  constexpr int kTiles = SsmFftShape<R>::kTiles;
  LONGWAVE_UNROLL_BY(1) for (int k = 0; k < kTiles; ++k) {
    const auto real = SsmFftRead<kSplit, R, kTransposed>(re, part.row, k);
    const auto imag = SsmFftRead<kSplit, R, kTransposed>(im, part.row, k);
    const auto minus = imag.Minus();
    LONGWAVE_UNROLL for (int n = 0; n < SsmFftShape<R>::kColumns; ++n) {
      const float4 f = dft[(k * kTiles + part.column + n) * gpu::kWarp + Lane()];
      const SsmFftRight<kSplit> cosine(f.x, f.y);
      const SsmFftRight<kSplit> sine(kInverse ? -f.z : f.z, kInverse ? -f.w : f.w);
      SsmFftMultiply(sums[n][0], real, cosine, minus, sine);
      SsmFftMultiply(sums[n][1], real, sine, imag, cosine);
    }
  }
}

// Rows of the planes = sums times a complex (R, R) table, element by element.
template <int R>
LONGWAVE_DEVICE void SsmFftWriteTimes(const SsmFftSums<R>& sums, const float* table,
                                      SsmFftPart part, float* re, float* im) {
  constexpr int kRow = SsmFftShape<R>::kRow;
  const int g = Lane() / 4, q = Lane() % 4;
  LONGWAVE_UNROLL for (int n = 0; n < SsmFftShape<R>::kColumns; ++n) {
    LONGWAVE_UNROLL for (int h = 0; h < 2; ++h) {
      const int r = part.row + g + 8 * h, c = 8 * (part.column + n) + 2 * q;
      const float4 f = __ldg(reinterpret_cast<const float4*>(table + 2 * (r * R + c)));
      const float a0 = sums[n][0][2 * h], b0 = sums[n][1][2 * h];
      const float a1 = sums[n][0][2 * h + 1], b1 = sums[n][1][2 * h + 1];
      *reinterpret_cast<float2*>(re + r * kRow + c) = {a0 * f.x - b0 * f.y, a1 * f.z - b1 * f.w};
      *reinterpret_cast<float2*>(im + r * kRow + c) = {a0 * f.y + b0 * f.x, a1 * f.w + b1 * f.z};
    }
  }
}

// Columns of the planes = sums.
template <int R>
LONGWAVE_DEVICE void SsmFftWriteTransposed(const SsmFftSums<R>& sums, SsmFftPart part, float* re,
                                           float* im) {
  constexpr int kRow = SsmFftShape<R>::kRow;
  const int g = Lane() / 4, q = Lane() % 4;
  LONGWAVE_UNROLL for (int n = 0; n < SsmFftShape<R>::kColumns; ++n) {
    LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
      const int c = 8 * (part.column + n) + 2 * q + i % 2;
      const int at = c * kRow + part.row + g + i / 2 * 8;
      re[at] = sums[n][0][i];
      im[at] = sums[n][1][i];
    }
  }
}

// ---- State -----------------------------------------------------------------------------------

// What 16 rows t2 add to the states of both blocks: sums (2, modes), every other tile of modes.
template <bool kSplit, int R>
LONGWAVE_DEVICE void SsmFftStateSums(const float* re, const float* im, const SsmFftLayout& layout,
                                     const float* filter, SsmFftPart part, float2* sums) {
  constexpr int kTiles = SsmFftShape<R>::kTiles;
  const int g = Lane() / 4, q = Lane() % 4;
  const int modes = static_cast<int>(layout.modes());
  const auto* columns = reinterpret_cast<const float4*>(filter + layout.sum_columns());
  const float* rows = filter + layout.sum_rows();
  LONGWAVE_UNROLL_BY(1)
  for (int m = part.column == 0 ? 0 : 1; m < static_cast<int>(layout.mode_tiles); m += 2) {
    float h[2][2][4] = {};  // [block][re, im]
    LONGWAVE_UNROLL_BY(2) for (int k = 0; k < kTiles; ++k) {
      const float4 f = __ldg(columns + (m * kTiles + k) * gpu::kWarp + Lane());
      const SsmFftRight<kSplit> real(f.x, f.y), imag(f.z, f.w);
      const auto a = SsmFftRead<kSplit, R, true>(re, part.row, k);
      const auto b = SsmFftRead<kSplit, R, true>(im, part.row, k);
      SsmFftMultiply(h[0][0], a, real);
      SsmFftMultiply(h[0][1], a, imag);
      SsmFftMultiply(h[1][0], b, real);
      SsmFftMultiply(h[1][1], b, imag);
    }
    float s[8] = {};  // [block][mode][re, im]
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      const int at = 2 * ((part.row + g + 8 * i) * modes + 8 * m + 2 * q);
      const float4 f = __ldg(reinterpret_cast<const float4*>(rows + at));
      LONGWAVE_UNROLL for (int b = 0; b < 2; ++b) {
        const float x0 = h[b][0][2 * i], y0 = h[b][1][2 * i];
        const float x1 = h[b][0][2 * i + 1], y1 = h[b][1][2 * i + 1];
        s[4 * b] += x0 * f.x - y0 * f.y;
        s[4 * b + 1] += x0 * f.y + y0 * f.x;
        s[4 * b + 2] += x1 * f.z - y1 * f.w;
        s[4 * b + 3] += x1 * f.w + y1 * f.z;
      }
    }
    LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) {
      LONGWAVE_UNROLL for (int lane = 4; lane < 32; lane *= 2) {
        s[i] += gpu::ShuffleXor(s[i], lane);
      }
    }
    if (g == 0) {
      LONGWAVE_UNROLL for (int b = 0; b < 2; ++b) {
        sums[b * modes + 8 * m + 2 * q] = {s[4 * b], s[4 * b + 1]};
        sums[b * modes + 8 * m + 2 * q + 1] = {s[4 * b + 2], s[4 * b + 3]};
      }
    }
  }
}

// sums += what the states (2, modes) of both blocks add to 16 rows t2 of the output. The 8 rows of
// a right operand are modes 0, 2, 4, 6, 1, 3, 5, 7 of a tile, so that a lane's two are neighbours.
template <bool kSplit, int R>
LONGWAVE_DEVICE void SsmFftStateOutputs(const float2* states, const SsmFftLayout& layout,
                                        const float* filter, SsmFftPart part, SsmFftSums<R>& sums) {
  constexpr int kTiles = SsmFftShape<R>::kTiles;
  const int g = Lane() / 4, q = Lane() % 4;
  const int modes = static_cast<int>(layout.modes());
  const auto* columns = reinterpret_cast<const float4*>(filter + layout.state_columns());
  const float* rows = filter + layout.state_rows();
  LONGWAVE_UNROLL_BY(1) for (int m = 0; m < static_cast<int>(layout.mode_tiles); ++m) {
    SsmFftLeft<kSplit> real[2], imag[2];  // [block]
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      const int at = 2 * ((part.row + g + 8 * i) * modes + 8 * m + 2 * q);
      const float4 f = __ldg(reinterpret_cast<const float4*>(rows + at));
      LONGWAVE_UNROLL for (int b = 0; b < 2; ++b) {
        const float2 x0 = states[b * modes + 8 * m + 2 * q];
        const float2 x1 = states[b * modes + 8 * m + 2 * q + 1];
        real[b].Set(i, f.x * x0.x - f.y * x0.y);
        imag[b].Set(i, f.x * x0.y + f.y * x0.x);
        real[b].Set(i + 2, f.z * x1.x - f.w * x1.y);
        imag[b].Set(i + 2, f.z * x1.y + f.w * x1.x);
      }
    }
    LONGWAVE_UNROLL for (int n = 0; n < SsmFftShape<R>::kColumns; ++n) {
      const float4 f = __ldg(columns + (m * kTiles + part.column + n) * gpu::kWarp + Lane());
      const SsmFftRight<kSplit> re(f.x, f.y), minus_im(f.z, f.w);
      LONGWAVE_UNROLL for (int b = 0; b < 2; ++b) {
        SsmFftMultiply(sums[n][b], real[b], re, imag[b], minus_im);
      }
    }
  }
}

LONGWAVE_DEVICE double2 SsmFftTimes(double2 a, double2 b) {
  return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

// ---- Tokens ----------------------------------------------------------------------------------

// 16 bytes of T as float32.
template <typename T>
LONGWAVE_DEVICE void SsmFftUnpack(uint4 v, float* out) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      out[i] = gpu::BitsFloat(words[i]);
    } else {
      const float2 pair = gpu::Unpack(words[i], T());
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
}
template <typename T>
LONGWAVE_DEVICE uint4 SsmFftPack(const float* x) {
  uint32_t words[4];
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = gpu::FloatBits(x[i]);
    } else {
      words[i] = gpu::Pack(x[2 * i], x[2 * i + 1], T());
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// plane[t] = weight times w = pre_gate u at `begin` + t - pad, for `count` tokens from t = pad on;
// zero elsewhere. `begin` counts from the arrays' first element.
template <typename T, int R>
LONGWAVE_DEVICE void SsmFftLoad(const SsmFftParams& p, int64_t begin, int count, int pad,
                                float* plane) {
  using Shape = SsmFftShape<R>;
  constexpr int kVector = 16 / sizeof(T);
  const T* u = static_cast<const T*>(p.u) + (begin - pad);
  const T* gate =
      p.pre_gate == nullptr ? nullptr : static_cast<const T*>(p.pre_gate) + (begin - pad);
  const float* weights = p.constants + SsmFftLayout{R, 0}.weights();
  const auto token = [&](int t) {
    float w = 0;
    if (t >= pad && t < pad + count) {
      w = gpu::ToFloat(u[t]);
      if (gate != nullptr) w *= gpu::ToFloat(gate[t]);
    }
    plane[t / R * Shape::kRow + t % R] = w * __ldg(weights + t / R);
  };
  const int thread = static_cast<int>(threadIdx.x);
  if (!p.aligned || pad % kVector != 0) {
    LONGWAVE_UNROLL_BY(4)
    for (int t = thread; t < Shape::kBlock; t += Shape::kThreads) token(t);
    return;
  }
  LONGWAVE_UNROLL_BY(2)
  for (int t = thread * kVector; t < Shape::kBlock; t += Shape::kThreads * kVector) {
    if (t < pad || t + kVector > pad + count) {
      LONGWAVE_UNROLL_BY(1) for (int j = 0; j < kVector; ++j) token(t + j);
      continue;
    }
    float w[kVector];
    SsmFftUnpack<T>(gpu::LoadStreaming(u + t), w);
    if (gate != nullptr) {
      float by[kVector];
      SsmFftUnpack<T>(gpu::LoadStreaming(gate + t), by);
      LONGWAVE_UNROLL for (int j = 0; j < kVector; ++j) w[j] *= by[j];
    }
    const float weight = __ldg(weights + t / R);
    float* to = plane + t / R * Shape::kRow + t % R;
    LONGWAVE_UNROLL for (int j = 0; j < kVector; j += 4) {
      *reinterpret_cast<float4*>(to + j) = {w[j] * weight, w[j + 1] * weight, w[j + 2] * weight,
                                            w[j + 3] * weight};
    }
  }
}

// y at `begin` + t = post_gate times plane[t] without its weight, for t < count.
template <typename T, int R>
LONGWAVE_DEVICE void SsmFftStore(const SsmFftParams& p, int64_t begin, int count,
                                 const float* plane) {
  using Shape = SsmFftShape<R>;
  constexpr int kVector = 16 / sizeof(T);
  T* y = static_cast<T*>(p.y) + begin;
  const T* gate = p.post_gate == nullptr ? nullptr : static_cast<const T*>(p.post_gate) + begin;
  const float* weights = p.constants + SsmFftLayout{R, 0}.weights() + R;
  const auto token = [&](int t) {
    float out = plane[t / R * Shape::kRow + t % R] * __ldg(weights + t / R);
    if (gate != nullptr) out *= gpu::ToFloat(gate[t]);
    y[t] = gpu::FromFloat<T>(out);
  };
  const int thread = static_cast<int>(threadIdx.x);
  if (!p.aligned) {
    LONGWAVE_UNROLL_BY(4)
    for (int t = thread; t < count; t += Shape::kThreads) token(t);
    return;
  }
  LONGWAVE_UNROLL_BY(2)
  for (int t = thread * kVector; t < count; t += Shape::kThreads * kVector) {
    if (t + kVector > count) {
      LONGWAVE_UNROLL_BY(1) for (int j = t; j < count; ++j) token(j);
      continue;
    }
    const float weight = __ldg(weights + t / R);
    const float* from = plane + t / R * Shape::kRow + t % R;
    float out[kVector];
    LONGWAVE_UNROLL for (int j = 0; j < kVector; j += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + j);
      out[j] = v.x * weight;
      out[j + 1] = v.y * weight;
      out[j + 2] = v.z * weight;
      out[j + 3] = v.w * weight;
    }
    if (gate != nullptr) {
      float by[kVector];
      SsmFftUnpack<T>(gpu::LoadStreaming(gate + t), by);
      LONGWAVE_UNROLL for (int j = 0; j < kVector; ++j) out[j] *= by[j];
    }
    gpu::StoreStreaming(y + t, SsmFftPack<T>(out));
  }
}

// ---- The walk --------------------------------------------------------------------------------

// Grid: batch x channels blocks, the batch entries of one channel side by side, so that they share
// its constants in the caches.
template <typename T, int R, bool kSplit>
__global__ void __launch_bounds__(SsmFftShape<R>::kThreads, SsmFftShape<R>::BlocksPerSm(kSplit))
    SsmFftKernel(const SsmFftParams p) {
  using Shape = SsmFftShape<R>;
  constexpr int kBlock = Shape::kBlock;
  const SsmFftLayout layout{R, p.layout.mode_tiles};  // R a constant
  const int entry = static_cast<int>(blockIdx.x) % p.batch;
  const int channel = static_cast<int>(blockIdx.x) / p.batch;
  const int64_t offset = entry * p.batch_stride + channel * p.channel_stride;
  const auto state_at = [&](int re_or_im, int n) {  // of state_in and state_out
    return (int64_t{entry * p.channels + channel} * 2 + re_or_im) * p.pairs + n;
  };
  const float* filter =
      p.constants + layout.filter() + channel / p.channels_per_filter * layout.filter_stride();
  const auto* carry = reinterpret_cast<const double2*>(filter + layout.carry());
  const int modes = static_cast<int>(layout.modes());
  const int thread = static_cast<int>(threadIdx.x), warp = WarpOfBlock();
  const SsmFftPart part{warp / 2 * 16, warp % 2 * Shape::kColumns};

  auto* dft = reinterpret_cast<float4*>(gpu::DynamicShared());
  float* re = reinterpret_cast<float*>(dft + R * R / 2);
  float* im = re + R * Shape::kRow;
  auto* sums = reinterpret_cast<float2*>(im + R * Shape::kRow);  // (row tiles, 2, modes)
  float2* before = sums + Shape::kRowTiles * 2 * modes;          // (2, modes)
  float2* state = before + 2 * modes;                            // (modes)
  float2* tail = state + modes;                                  // (modes)
  float2* my_sums = sums + warp / 2 * 2 * modes;
  const auto sum_of = [&](int b, int n) {
    double2 sum = {0, 0};
    LONGWAVE_UNROLL for (int i = 0; i < Shape::kRowTiles; ++i) {
      const float2 s = sums[(2 * i + b) * modes + n];
      sum.x += s.x;
      sum.y += s.y;
    }
    return sum;
  };

  for (int i = thread; i < R * R / 2; i += Shape::kThreads) {
    dft[i] = __ldg(reinterpret_cast<const float4*>(p.constants + layout.dft()) + i);
  }
  LONGWAVE_UNROLL_BY(1) for (int n = thread; n < modes; n += Shape::kThreads) {
    const bool stored = p.state_in != nullptr && n < p.pairs;
    state[n] = {stored ? p.state_in[state_at(0, n)] : 0.0f,
                stored ? p.state_in[state_at(1, n)] : 0.0f};
  }

  const int whole = static_cast<int>(p.length / kBlock);
  const int rest = static_cast<int>(p.length % kBlock);
  if (rest > 0 && p.state_out != nullptr) {
    LONGWAVE_UNROLL_BY(1) for (int b = 0; b < 2; ++b) {
      SsmFftLoad<T, R>(p, offset + int64_t{whole} * kBlock, b == 0 ? rest : 0, kBlock - rest,
                       re + b * (im - re));
    }
    gpu::SyncBlock();
    SsmFftStateSums<kSplit, R>(re, im, layout, filter, part, my_sums);
    gpu::SyncBlock();
    LONGWAVE_UNROLL_BY(1) for (int n = thread; n < modes; n += Shape::kThreads) {
      const double2 sum = sum_of(0, n);
      tail[n] = {static_cast<float>(sum.x), static_cast<float>(sum.y)};
    }
  }

  const int blocks = p.y == nullptr || rest == 0 ? whole : whole + 1;
  const auto tokens = [&](int block) {
    return static_cast<int>(block < whole ? kBlock : block < blocks ? rest : 0);
  };
  for (int block = 0; block < blocks; block += 2) {
    const int64_t begin = offset + int64_t{block} * kBlock;
    LONGWAVE_UNROLL_BY(1) for (int b = 0; b < 2; ++b) {
      SsmFftLoad<T, R>(p, begin + b * kBlock, tokens(block + b), 0, re + b * (im - re));
    }
    gpu::SyncBlock();

    SsmFftStateSums<kSplit, R>(re, im, layout, filter, part, my_sums);
    gpu::SyncBlock();
    LONGWAVE_UNROLL_BY(1) for (int n = thread; n < modes; n += Shape::kThreads) {
      const double2 over_block = carry[modes + n], wrap = carry[2 * modes + n];
      double2 x = {state[n].x, state[n].y};
      LONGWAVE_UNROLL for (int b = 0; b < 2; ++b) {
        const double2 sum = sum_of(b, n), wrapped = SsmFftTimes(wrap, sum);
        before[b * modes + n] = {static_cast<float>(x.x - wrapped.x),
                                 static_cast<float>(x.y - wrapped.y)};
        if (block + b < whole) {
          x = SsmFftTimes(over_block, x);
          x.x += sum.x;
          x.y += sum.y;
        }
      }
      state[n] = {static_cast<float>(x.x), static_cast<float>(x.y)};
    }
    if (p.y == nullptr) continue;  // the next tokens arrive before anybody reads or sums again

    {
      SsmFftSums<R> columns = {};
      SsmFftTransform<kSplit, R, true, false>(re, im, dft, part, columns);
      gpu::SyncBlock();
      SsmFftWriteTimes<R>(columns, p.constants + layout.twiddle(), part, re, im);
    }
    gpu::SyncBlock();
    {
      SsmFftSums<R> spectrum = {};
      SsmFftTransform<kSplit, R, true, false>(re, im, dft, part, spectrum);
      gpu::SyncBlock();
      SsmFftWriteTimes<R>(spectrum, filter + layout.spectrum(), part, re, im);
    }
    gpu::SyncBlock();
    {
      SsmFftSums<R> back = {};
      SsmFftTransform<kSplit, R, false, true>(re, im, dft, part, back);
      gpu::SyncBlock();
      SsmFftWriteTimes<R>(back, p.constants + layout.untwiddle(), part, re, im);
    }
    gpu::SyncBlock();
    {
      SsmFftSums<R> out = {};
      SsmFftStateOutputs<kSplit, R>(before, layout, filter, part, out);
      SsmFftTransform<kSplit, R, true, true>(re, im, dft, part, out);
      gpu::SyncBlock();
      SsmFftWriteTransposed<R>(out, part, re, im);
    }
    gpu::SyncBlock();
    LONGWAVE_UNROLL_BY(1) for (int b = 0; b < 2; ++b) {
      SsmFftStore<T, R>(p, begin + b * kBlock, tokens(block + b), re + b * (im - re));
    }
    gpu::SyncBlock();
  }

  if (p.state_out == nullptr) return;
  for (int n = thread; n < p.pairs; n += Shape::kThreads) {
    double2 x = {state[n].x, state[n].y};
    if (rest > 0) {
      double2 power = carry[n];
      for (int bits = rest; bits > 0; bits /= 2) {
        if (bits % 2 == 1) x = SsmFftTimes(power, x);
        power = SsmFftTimes(power, power);
      }
      x.x += tail[n].x;
      x.y += tail[n].y;
    }
    p.state_out[state_at(0, n)] = static_cast<float>(x.x);
    p.state_out[state_at(1, n)] = static_cast<float>(x.y);
  }
}

}  // namespace longwave

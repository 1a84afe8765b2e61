// LongConv's FFT kernels: the right-angle convolution of blocks of N tokens (docs/operators.md), on
// chip, or with an outer column transform through device memory.
//
// On chip (FftConvKernel), N = R1 R2 R3 up to 16384, one block of threads for one block of tokens
// (several where N is small). With j = j1 M + j2 R3 + j3, M = R2 R3, and k = k1 + R1 k2 + R1 R2 k3:
//   1. radix R1 over j1 of the tokens as they are read, its right-angle twist a constant;
//      times e(m (k1 + 1/4) / N), m = j2 R3 + j3
//   2. radix R2 over j2; times e(j3 k2 / M)
//   3. radix R3 over j3; the product with the taps' spectrum; radix R3 back, all in registers
//   4. and 5. are 2 and 1 backwards; the real part is the output
// In between the values stand in shared memory, each pass in place: a pass reads and writes 8 bytes
// a token, 64 in all, about half of what the multiply-adds take. Rows of R3 values are one value
// apart, so that both walks along j2 and along rows are free of bank conflicts. R1 of 8, 9, 10, 12,
// 14 or 16 makes sizes 11 to 20 % apart; R2 and R3 are fixed for a kernel. 16 values and their
// factors take some 80 registers, 32 some 128.
//
// The imaginary part of a block's input is minus the block before it (i stands for X^N): then the
// real part of the product is the whole output of the block, and blocks are independent of each
// other.
//
// More taps than N (Items::kSequences): a block of threads walks along a sequence. The block before
// belongs to the taps instead: with G_j the transform of h_j - i h_(j-1) and X_b that of x_b alone,
//   Z_b = sum_j G_j X_(b-j),   y_b = Re z_b
// X_b of blocks that have passed stand in device memory, or rather in the L2 cache, each value
// written and read by one thread.
//
// Outer decomposition, N = C R: j = c R + m, k = kappa + C k':
//   ColumnsKernel        right-angle transform of length C = C1 C2 over c, times
//                        e(m (kappa + 1/4) / N), into rows of R complex values
//   FftConvKernel, rows  steps 1 to 5 of each row, without twist, in place
//   ColumnsKernel        back, real part, out
// 32 columns to a block of threads when C2 = 16 (a warp reads 64 bytes of 16-bit tokens, 256 of
// complex values), one column to a thread when C2 = 1.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/fft_cuda.cuh"

namespace longwave::long_conv {

using fft::Complex;

constexpr int kRootRows = 6;  // of a table of roots: the first factor, the step to the 1, 2, ... 16
constexpr int kColumns = 32;
constexpr int kColumnThreads = 256;

// One sequence's tokens, for the block of N tokens that begins at token `begin`. Strides in
// elements.
struct Tokens {
  const void* u;
  const void* pre_gate;
  const void* post_gate;
  void* y;
  Dtype dtype;
  int64_t batch_stride, channel_stride, length;
};

// v[j] = the token first + j stride of the block and, with `before`, minus that of the block before
// it times i.
template <int R, typename T>
LONGWAVE_DEVICE void ReadTokensAs(const Tokens& t, int64_t row, int64_t begin, int64_t N,
                                  bool before, int first, int stride, Complex (&v)[R]) {
  const int left = static_cast<int>(t.length - begin < N ? t.length - begin : N);
  const T* u = static_cast<const T*>(t.u) + (row + begin + first);
  const T* gate =
      t.pre_gate == nullptr ? nullptr : static_cast<const T*>(t.pre_gate) + (row + begin + first);
  LONGWAVE_UNROLL for (int j = 0; j < R; ++j) {
    v[j] = {first + j * stride < left ? gpu::ToFloat(u[j * stride]) : 0.0f, 0.0f};
  }
  if (gate != nullptr) {
    LONGWAVE_UNROLL for (int j = 0; j < R; ++j) {
      if (first + j * stride < left) v[j].x *= gpu::ToFloat(gate[j * stride]);
    }
  }
  if (before && begin >= N) {  // it is full
    u -= N;
    LONGWAVE_UNROLL for (int j = 0; j < R; ++j) v[j].y = -gpu::ToFloat(u[j * stride]);
    if (gate != nullptr) {
      gate -= N;
      LONGWAVE_UNROLL for (int j = 0; j < R; ++j) v[j].y *= gpu::ToFloat(gate[j * stride]);
    }
  }
}
template <int R>
LONGWAVE_DEVICE void ReadTokens(const Tokens& t, int64_t row, int64_t begin, int64_t N, bool before,
                                int first, int stride, Complex (&v)[R]) {
  switch (t.dtype) {
    case Dtype::kFloat32:
      return ReadTokensAs<R, float>(t, row, begin, N, before, first, stride, v);
    case Dtype::kBFloat16:
      return ReadTokensAs<R, __nv_bfloat16>(t, row, begin, N, before, first, stride, v);
    case Dtype::kFloat16:
      return ReadTokensAs<R, __half>(t, row, begin, N, before, first, stride, v);
  }
}

template <int R, typename T>
LONGWAVE_DEVICE void WriteTokensAs(const Tokens& t, int64_t row, int64_t begin, int64_t N,
                                   int first, int stride, float (&v)[R]) {
  const int left = static_cast<int>(t.length - begin < N ? t.length - begin : N);
  T* y = static_cast<T*>(t.y) + (row + begin + first);
  if (t.post_gate != nullptr) {
    const T* gate = static_cast<const T*>(t.post_gate) + (row + begin + first);
    LONGWAVE_UNROLL for (int j = 0; j < R; ++j) {
      if (first + j * stride < left) v[j] *= gpu::ToFloat(gate[j * stride]);
    }
  }
  LONGWAVE_UNROLL for (int j = 0; j < R; ++j) {
    if (first + j * stride < left) y[j * stride] = gpu::FromFloat<T>(v[j]);
  }
}
template <int R>
LONGWAVE_DEVICE void WriteTokens(const Tokens& t, int64_t row, int64_t begin, int64_t N, int first,
                                 int stride, float (&v)[R]) {
  switch (t.dtype) {
    case Dtype::kFloat32:
      return WriteTokensAs<R, float>(t, row, begin, N, first, stride, v);
    case Dtype::kBFloat16:
      return WriteTokensAs<R, __nv_bfloat16>(t, row, begin, N, first, stride, v);
    case Dtype::kFloat16:
      return WriteTokensAs<R, __half>(t, row, begin, N, first, stride, v);
  }
}

// What a block of threads takes: blocks of tokens of one channel, one after the other all blocks of
// a sequence, or rows of an outer transform.
enum class Items { kBlocks, kSequences, kRows };

struct FftConvParams {
  Tokens tokens;    // unless rows
  Complex* rows;    // (sequences, rows_of_sequence, R)
  unsigned items;   // blocks of tokens of a channel, all sequences, or their rows
  unsigned blocks;  // of tokens, of a sequence
  unsigned groups;  // blocks of threads of a channel
  // kSequences: transforms of the taps, channels * N values apart, and (grid, filters, N) of tokens
  unsigned filters;
  int64_t filter_stride;
  Complex* passed;
  // Sequences are (channel, batch). Rows: the first is first_batch of first_channel.
  unsigned first_channel, first_batch, batch, rows_of_sequence;
  int first_radix;
  const Complex* spectrum;      // ((filters,) channels, N), or (channels, rows_of_sequence, R)
  Complex* spectrum_out;        // null, or as above: transforms only, items or rows
  float spectrum_scale;         // of spectrum_out
  const Complex* first_roots;   // (kRootRows, M)
  const Complex* second_roots;  // (kRootRows, R3)
};

// The threads of a block at most, its sequences, and the blocks that a multiprocessor should hold,
// for N = R1 M.
template <int R2, int R3>
struct FftConvShape {
  static constexpr int kM = R2 * R3;
  static constexpr int kThreads = kM >= 1024 ? 512 : kM >= 256 ? 256 : 128;
  static constexpr int kSequences = kM >= 128 ? 1 : kM == 64 ? 2 : kM == 32 ? 4 : 8;
  static constexpr int kMinBlocks = R3 <= 16 ? 768 / kThreads : 512 / kThreads;
  static constexpr int Row(int r) { return r * (R3 + 1); }  // of shared memory, R3 values
};

namespace internal {

// Its value, but computed anew wherever it is used: the compiler would keep the multiples of a
// stride, two registers each, over all of a loop.
LONGWAVE_DEVICE int Anew(int x) {
#ifndef LONGWAVE_EMULATE
  asm volatile("" : "+r"(x));
#endif
  return x;
}

template <int R2, int R3, Items kItems>
struct FftConvSteps {
  using Shape = FftConvShape<R2, R3>;
  static constexpr int M = R2 * R3;

  const FftConvParams& p;
  Complex* shared;
  int64_t channel;      // unless rows
  unsigned first_item;  // of this block of threads
  int count;            // sequences of this block

  // Sequence of the block: a constant where there is one, which spares all divisions in loops.
  static LONGWAVE_DEVICE int SequenceOf(int i, int size) {
    return Shape::kSequences == 1 ? 0 : i / size;
  }
  LONGWAVE_DEVICE int64_t RowOfItem(unsigned item) const {
    return static_cast<int64_t>(item / p.blocks) * p.tokens.batch_stride +
           channel * p.tokens.channel_stride;
  }
  LONGWAVE_DEVICE int64_t BeginOfItem(unsigned item, int N) const {
    return static_cast<int64_t>(item % p.blocks) * N;
  }

  template <int R1>
  LONGWAVE_DEVICE void FirstForward() const {
    for (int i = static_cast<int>(threadIdx.x); i < count * M; i += static_cast<int>(blockDim.x)) {
      const int s = SequenceOf(i, M), m = i - s * M;
      Complex v[R1];
      if constexpr (kItems == Items::kRows) {
        const Complex* from = p.rows + static_cast<int64_t>(first_item + s) * (R1 * M) + m;
        LONGWAVE_UNROLL for (int j = 0; j < R1; ++j) v[j] = from[j * M];
        fft::Dft<R1, 1>(v);
        fft::Twiddle<R1, 1, false>(v, {}, p.first_roots + M + m, M);
      } else {
        const unsigned item = first_item + s;
        ReadTokens<R1>(p.tokens, RowOfItem(item), BeginOfItem(item, R1 * M), R1 * M,
                       kItems == Items::kBlocks, m, M, v);
        fft::RightAngle<R1, 1>(v);
        fft::Dft<R1, 1>(v);
        fft::Twiddle<R1, 1, true>(v, __ldg(p.first_roots + m), p.first_roots + M + m, M);
      }
      Complex* to = shared + s * Shape::Row(R1 * R2) + Shape::Row(m / R3) + m % R3;
      LONGWAVE_UNROLL for (int k = 0; k < R1; ++k) to[Shape::Row(k * R2)] = v[k];
    }
  }

  template <int R1>
  LONGWAVE_DEVICE void FirstBack() const {
    for (int i = static_cast<int>(threadIdx.x); i < count * M; i += static_cast<int>(blockDim.x)) {
      const int s = SequenceOf(i, M), m = i - s * M;
      Complex v[R1];
      const Complex* from = shared + s * Shape::Row(R1 * R2) + Shape::Row(m / R3) + m % R3;
      LONGWAVE_UNROLL for (int k = 0; k < R1; ++k) v[k] = from[Shape::Row(k * R2)];
      if constexpr (kItems == Items::kRows) {
        fft::Twiddle<R1, -1, false>(v, {}, p.first_roots + M + m, M);
        fft::Dft<R1, -1>(v);
        Complex* to = p.rows + static_cast<int64_t>(first_item + s) * (R1 * M) + m;
        LONGWAVE_UNROLL for (int j = 0; j < R1; ++j) to[j * M] = v[j];
      } else {
        fft::Twiddle<R1, -1, true>(v, __ldg(p.first_roots + m), p.first_roots + M + m, M);
        fft::Dft<R1, -1>(v);
        fft::RightAngle<R1, -1>(v);
        float y[R1];
        LONGWAVE_UNROLL for (int j = 0; j < R1; ++j) y[j] = v[j].x;
        const unsigned item = first_item + s;
        WriteTokens<R1>(p.tokens, RowOfItem(item), BeginOfItem(item, R1 * M), R1 * M, m, M, y);
      }
    }
  }

  // S 1: forward, -1: back. Sequences follow each other in shared memory, so (sequence, k1) is one
  // index.
  template <int S>
  LONGWAVE_DEVICE void Second() const {
    if constexpr (R2 > 1) {
      for (int i = static_cast<int>(threadIdx.x); i < count * p.first_radix * R3;
           i += static_cast<int>(blockDim.x)) {
        const int j3 = i % R3;
        Complex* at = shared + Shape::Row(i / R3 * R2) + j3;
        const Complex* roots = p.second_roots + R3 + j3;
        Complex v[R2];
        LONGWAVE_UNROLL for (int j = 0; j < R2; ++j) v[j] = at[Shape::Row(j)];
        if constexpr (S < 0) fft::Twiddle<R2, S, false>(v, {}, roots, R3);
        fft::Dft<R2, S>(v);
        if constexpr (S > 0) fft::Twiddle<R2, S, false>(v, {}, roots, R3);
        LONGWAVE_UNROLL for (int k = 0; k < R2; ++k) at[Shape::Row(k)] = v[k];
      }
    }
  }

  // v = X_b becomes Z_b, and X_b is kept for the blocks after it.
  LONGWAVE_DEVICE void Products(const Complex* taps, int r, int rows, Complex (&v)[R3]) const {
    const int N = rows * R3;
    const unsigned b = first_item % p.blocks;
    Complex* passed = p.passed + static_cast<int64_t>(blockIdx.x) * p.filters * N + r;
    if (b + 1 < p.blocks) {
      Complex* to = passed + static_cast<int64_t>(b % p.filters) * N;
      const int step = Anew(rows);
      LONGWAVE_UNROLL for (int k = 0; k < R3; ++k) to[k * step] = v[k];
    }
    const int step = Anew(rows);
    LONGWAVE_UNROLL for (int k = 0; k < R3; ++k) v[k] = fft::Mul(v[k], __ldg(taps + k * step));
    for (unsigned j = 1; j <= b && j < p.filters; ++j) {
      taps += p.filter_stride;
      const Complex* x = passed + static_cast<int64_t>((b - j) % p.filters) * N;
      const int step = Anew(rows);
      LONGWAVE_UNROLL for (int k = 0; k < R3; ++k) {
        v[k] = fft::Add(v[k], fft::Mul(x[k * step], __ldg(taps + k * step)));
      }
    }
  }

  LONGWAVE_DEVICE void Third() const {
    const int rows = p.first_radix * R2, N = rows * R3;
    for (int i = static_cast<int>(threadIdx.x); i < count * rows;
         i += static_cast<int>(blockDim.x)) {
      const int s = SequenceOf(i, rows), r = i - s * rows;
      Complex* at = shared + Shape::Row(i);
      Complex v[R3];
      LONGWAVE_UNROLL for (int j = 0; j < R3; ++j) v[j] = at[j];
      fft::Dft<R3, 1>(v);
      int64_t where = channel * N;
      if constexpr (kItems == Items::kRows) {
        const unsigned item = first_item + s, sequence = item / p.rows_of_sequence;
        const unsigned from = p.first_channel + (p.first_batch + sequence) / p.batch;
        where = (static_cast<int64_t>(from) * p.rows_of_sequence + item % p.rows_of_sequence) * N;
      }
      if (kItems != Items::kSequences && p.spectrum_out != nullptr) {
        if constexpr (kItems == Items::kBlocks) {
          where += static_cast<int64_t>((first_item + s) % p.blocks) * p.filter_stride;
        }
        Complex* out = p.spectrum_out + where + r;
        LONGWAVE_UNROLL for (int k = 0; k < R3; ++k) {
          out[k * rows] = {v[k].x * p.spectrum_scale, v[k].y * p.spectrum_scale};
        }
        continue;
      }
      const Complex* taps = p.spectrum + where + r;
      if constexpr (kItems == Items::kSequences) {
        Products(taps, r, rows, v);
      } else {
        LONGWAVE_UNROLL for (int k = 0; k < R3; ++k) v[k] = fft::Mul(v[k], __ldg(taps + k * rows));
      }
      fft::Dft<R3, -1>(v);
      LONGWAVE_UNROLL for (int j = 0; j < R3; ++j) at[j] = v[j];
    }
  }

  template <int R1>
  LONGWAVE_DEVICE void Run() const {
    FirstForward<R1>();
    gpu::SyncBlock();
    if constexpr (R2 > 1) {
      Second<1>();
      gpu::SyncBlock();
    }
    Third();
    if (kItems != Items::kSequences && p.spectrum_out != nullptr) return;
    gpu::SyncBlock();
    if constexpr (R2 > 1) {
      Second<-1>();
      gpu::SyncBlock();
    }
    FirstBack<R1>();
  }

  template <int R1>
  LONGWAVE_DEVICE void RunAll() const {
    if constexpr (kItems == Items::kSequences) {
      // The first pass and the last one backwards read and write the same places of a thread.
      for (unsigned sequence = blockIdx.x; sequence < p.items; sequence += gridDim.x) {
        for (unsigned b = 0; b < p.blocks; ++b) {
          FftConvSteps{p, shared, sequence / p.batch, sequence % p.batch * p.blocks + b, 1}
              .template Run<R1>();
        }
      }
    } else {
      Run<R1>();
    }
  }

  LONGWAVE_DEVICE void RunAny() const {
    if constexpr (kItems == Items::kRows) {
      RunAll<16>();
    } else {
      switch (p.first_radix) {
        case 8:
          return RunAll<8>();
        case 9:
          return RunAll<9>();
        case 10:
          return RunAll<10>();
        case 12:
          return RunAll<12>();
        case 14:
          return RunAll<14>();
        default:
          return RunAll<16>();
      }
    }
  }
};

}  // namespace internal

// Grid: channels * groups, or any, or rows / kSequences rounded up. Shared: kSequences * Row(R1 R2)
// values.
template <int R2, int R3, Items kItems>
__global__ void __launch_bounds__(FftConvShape<R2, R3>::kThreads, FftConvShape<R2, R3>::kMinBlocks)
    FftConvKernel(const FftConvParams p) {
  using Shape = FftConvShape<R2, R3>;
  Complex* shared = reinterpret_cast<Complex*>(gpu::DynamicShared());
  constexpr bool kBlocks = kItems == Items::kBlocks;
  const unsigned channel = kBlocks ? blockIdx.x / p.groups : 0;
  const unsigned first = (kBlocks ? blockIdx.x % p.groups : blockIdx.x) * Shape::kSequences;
  const unsigned left = p.items - first;
  internal::FftConvSteps<R2, R3, kItems>{
      p, shared, channel, first,
      static_cast<int>(left < Shape::kSequences ? left : Shape::kSequences)}
      .RunAny();
}

struct ColumnsParams {
  Tokens tokens;
  int64_t begin, input_begin;                  // token of the output's block, and of the input's
  unsigned first_channel, first_batch, batch;  // sequences are (channel, batch)
  int64_t R;                                   // length of a row
  unsigned tiles;                              // blocks of threads of a sequence
  int first_radix;                             // C1
  Complex* rows;                               // (sequences, C, R)
  float* sum;  // null, or (sequences, N): outputs of several tap blocks
  bool first_of_sum, last_of_sum;
  const Complex* inner_roots;  // (kRootRows, C2) of the transform of length C
  // (kRootRows, R): e(m/(4N)), e(m/N) to the 1, 2, 4, ...; and the same for e(m C1 / N)
  const Complex* outer_roots;
  const Complex* outer_steps;
};

namespace internal {

template <int C1, int C2>
struct ColumnsSteps {
  static constexpr int C = C1 * C2;
  const ColumnsParams& p;

  // The right-angle twist, the real part, and the sum over tap blocks.
  LONGWAVE_DEVICE void Finish(Complex (&v)[C1], int64_t sequence, int64_t row, int first,
                              int stride) const {
    fft::RightAngle<C1, -1>(v);
    float y[C1];
    LONGWAVE_UNROLL for (int j = 0; j < C1; ++j) y[j] = v[j].x;
    if (p.sum != nullptr) {
      float* sum = p.sum + sequence * C * p.R + first;
      if (!p.first_of_sum) {
        LONGWAVE_UNROLL for (int j = 0; j < C1; ++j) y[j] += sum[j * stride];
      }
      if (!p.last_of_sum) {
        LONGWAVE_UNROLL for (int j = 0; j < C1; ++j) sum[j * stride] = y[j];
        return;
      }
    }
    WriteTokens<C1>(p.tokens, row, p.begin, C * p.R, first, stride, y);
  }

  LONGWAVE_DEVICE int64_t RowOf(int64_t sequence) const {
    const unsigned number = p.first_batch + static_cast<unsigned>(sequence);
    return static_cast<int64_t>(number % p.batch) * p.tokens.batch_stride +
           static_cast<int64_t>(p.first_channel + number / p.batch) * p.tokens.channel_stride;
  }

  // e(m (kappa1 + 1/4) / N), kappa1 from its bits.
  LONGWAVE_DEVICE Complex Base(int kappa1, int m) const {
    const Complex* root = p.outer_roots + m;
    Complex w = __ldg(root);
    LONGWAVE_UNROLL for (int bit = 0; bit < 4; ++bit) {
      if (kappa1 >> bit & 1) w = fft::Mul(w, __ldg(root + (1 + bit) * p.R));
    }
    return w;
  }

  // C2 = 1: a thread's own column.
  LONGWAVE_DEVICE void RunOne(bool forward) const {
    const int64_t sequence = blockIdx.x / p.tiles, row = RowOf(sequence);
    const int R = static_cast<int>(p.R);
    const int m =
        static_cast<int>(blockIdx.x % p.tiles) * kColumnThreads + static_cast<int>(threadIdx.x);
    if (m >= R) return;
    Complex* rows = p.rows + sequence * C * p.R + m;
    Complex v[C1];
    if (forward) {
      ReadTokens<C1>(p.tokens, row, p.input_begin, C * p.R, true, m, R, v);
      fft::RightAngle<C1, 1>(v);
      fft::Dft<C1, 1>(v);
      fft::Twiddle<C1, 1, true>(v, __ldg(p.outer_roots + m), p.outer_roots + R + m, R);
      LONGWAVE_UNROLL for (int k = 0; k < C1; ++k) rows[k * R] = v[k];
    } else {
      LONGWAVE_UNROLL for (int k = 0; k < C1; ++k) v[k] = rows[k * R];
      fft::Twiddle<C1, -1, true>(v, __ldg(p.outer_roots + m), p.outer_roots + R + m, R);
      fft::Dft<C1, -1>(v);
      Finish(v, sequence, row, m, R);
    }
  }

  // 32 columns: c = c1 C2 + c2, kappa = kappa1 + C1 kappa2, row kappa1 C2 + kappa2.
  LONGWAVE_DEVICE void RunTile(bool forward, Complex* shared) const {
    const int64_t sequence = blockIdx.x / p.tiles, row = RowOf(sequence);
    const int lane = gpu::Lane(), m = static_cast<int>(blockIdx.x % p.tiles) * kColumns + lane;
    Complex* rows = p.rows + sequence * C * p.R + m;
    constexpr int kWarps = kColumnThreads / gpu::kWarp;
    if (forward) {
      for (int c2 = gpu::WarpOfBlock(); c2 < C2; c2 += kWarps) {
        const int R = Anew(static_cast<int>(p.R));
        Complex v[C1];
        ReadTokens<C1>(p.tokens, row, p.input_begin, C * p.R, true, c2 * R + m, C2 * R, v);
        fft::RightAngle<C1, 1>(v);
        fft::Dft<C1, 1>(v);
        fft::Twiddle<C1, 1, true>(v, __ldg(p.inner_roots + c2), p.inner_roots + C2 + c2, C2);
        LONGWAVE_UNROLL for (int k = 0; k < C1; ++k) shared[(k * C2 + c2) * kColumns + lane] = v[k];
      }
      gpu::SyncBlock();
      for (int k1 = gpu::WarpOfBlock(); k1 < C1; k1 += kWarps) {
        const int R = Anew(static_cast<int>(p.R));
        Complex v[C2];
        LONGWAVE_UNROLL for (int c = 0; c < C2; ++c) v[c] = shared[(k1 * C2 + c) * kColumns + lane];
        fft::Dft<C2, 1>(v);
        fft::Twiddle<C2, 1, true>(v, Base(k1, m), p.outer_steps + R + m, R);
        Complex* to = rows + static_cast<int64_t>(k1) * C2 * R;
        LONGWAVE_UNROLL for (int k = 0; k < C2; ++k) to[k * R] = v[k];
      }
    } else {
      for (int k1 = gpu::WarpOfBlock(); k1 < C1; k1 += kWarps) {
        const int R = Anew(static_cast<int>(p.R));
        Complex v[C2];
        const Complex* from = rows + static_cast<int64_t>(k1) * C2 * R;
        LONGWAVE_UNROLL for (int k = 0; k < C2; ++k) v[k] = from[k * R];
        fft::Twiddle<C2, -1, true>(v, Base(k1, m), p.outer_steps + R + m, R);
        fft::Dft<C2, -1>(v);
        LONGWAVE_UNROLL for (int c = 0; c < C2; ++c) shared[(k1 * C2 + c) * kColumns + lane] = v[c];
      }
      gpu::SyncBlock();
      for (int c2 = gpu::WarpOfBlock(); c2 < C2; c2 += kWarps) {
        const int R = Anew(static_cast<int>(p.R));
        Complex v[C1];
        LONGWAVE_UNROLL for (int k = 0; k < C1; ++k) v[k] = shared[(k * C2 + c2) * kColumns + lane];
        fft::Twiddle<C1, -1, true>(v, __ldg(p.inner_roots + c2), p.inner_roots + C2 + c2, C2);
        fft::Dft<C1, -1>(v);
        Finish(v, sequence, row, c2 * R + m, C2 * R);
      }
    }
  }
};

template <int C1, int C2, bool kForward>
LONGWAVE_DEVICE void RunColumns(const ColumnsParams& p) {
  const ColumnsSteps<C1, C2> steps{p};
  if constexpr (C2 == 1) {
    steps.RunOne(kForward);
  } else {
    steps.RunTile(kForward, reinterpret_cast<Complex*>(gpu::DynamicShared()));
  }
}

}  // namespace internal

// Grid: sequences * tiles. Shared: C * kColumns values if C2 > 1.
template <int C2, bool kForward>
__global__ void __launch_bounds__(kColumnThreads, 3) ColumnsKernel(const ColumnsParams p) {
  switch (p.first_radix) {
    case 8:
      return internal::RunColumns<8, C2, kForward>(p);
    case 9:
      return internal::RunColumns<9, C2, kForward>(p);
    case 10:
      return internal::RunColumns<10, C2, kForward>(p);
    case 12:
      return internal::RunColumns<12, C2, kForward>(p);
    case 14:
      return internal::RunColumns<14, C2, kForward>(p);
    default:
      return internal::RunColumns<16, C2, kForward>(p);
  }
}

}  // namespace longwave::long_conv

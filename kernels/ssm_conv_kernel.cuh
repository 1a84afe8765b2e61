// SsmConv and H3Mix on a GPU, the dual form: one pass over memory at any length.
//
// A sequence is cut into blocks of T = 64 tokens; with a block's tokens as a row of U (R, T) and
// the state before block r as a row of X,
//   S = U V                   what each block adds to the state        V (T, 2P)
//   X[r+1] = a^T X[r] + S[r]  the scan, complex, pair by pair
//   Y = X W + U K             what state and block add to the output   W (2P, T), K (T, T)
// (the algebra is ssm_tile.h's, with T = 64: three products of 64 x 64 a row at 32 pairs, 192
// multiply-adds a token, which tensor cores do in half the time that the memory takes.)
//
// The steps of a tile (8 kRows rows of one filter, one warp):
//   1  its tokens come from memory straight into registers, in the layout that mma wants of its
//      left operand: the order of tokens within a row is free as long as the rows of V and K and
//      the columns of W and K follow it, so thread q of a row's four takes the 16-byte pieces [8q,
//      8q+8) and [32+8q, 32+8q+8), and the results leave the same way. No staging in shared memory.
//      Gates, H3's shift filter and biases are applied here.
//   2  S = U V.
//   3  the scan: each thread has kRows consecutive blocks of a sequence and sums them up, three
//      shuffles carry the sums over the warp's eight groups of four threads, the state that the
//      warp before hands on is added, and each thread goes through its blocks once more.
//   4  the state after the tile goes to the next warp, which waits for nothing else.
//   5  Y = X W + U K, the gate, and out.
// The warps of a thread block are a ring over the tiles of the filter's sequences, as a cluster's
// workers are over chunks: warp w takes tiles w, w + kWarps, ... and the only thing that passes
// between them is a state (256 bytes) through shared memory, in step 4, as early as it is known.
//
// The state is kept in float32, scaled by a power of two for each pair so that float16 has its
// range (see ssm_conv_cuda.cu). Data of float32 goes through tf32 products of high and low parts
// (three each), and a^T is the sum of two float32 numbers there.
#pragma once

#include <type_traits>

#include "kernels/gpu/device_code.h"
#include "kernels/ssm_rows.cuh"

namespace longwave::gpu {

constexpr int kPairs = 32;  // conjugate pairs that one pass takes; more are groups of so many

// ---- Constants of a filter, as ssm_conv_cuda.cu lays them out
//
//   K; then for each group of 32 pairs: V, W, PairConstants

// One complex number for each of 32 pairs, so that a thread has its eight in a row (it reads them
// two by two) and the four threads of a group read from different banks.
struct PairValues {
  static constexpr int kStride = 10;
  float2 value[4 * kStride];

  __host__ __device__ float2& of(int pair) { return value[pair % 4 * kStride + pair / 4]; }
  __host__ __device__ const float2& of(int pair) const {
    return value[pair % 4 * kStride + pair / 4];
  }
};

struct PairConstants {
  PairValues row;                 // a^T
  PairValues group[kGroups + 1];  // a^(T rows g): of g groups
  PairValues zero;                // for groups that have none before them
  PairValues a, b;                // of the recurrence, b scaled
  PairValues scale;               // the state's, and its inverse
  PairValues row_low, group_low[kGroups + 1], a_low;
};
// What the 16-bit types leave out.
constexpr int kConstantBytes16 = (1 + kGroups + 2 + 3) * static_cast<int>(sizeof(PairValues));
template <typename T>
constexpr int kConstantBytes = std::is_same_v<T, float> ? static_cast<int>(sizeof(PairConstants))
                                                        : kConstantBytes16;

struct SsmParams {
  const void *u, *pre_gate, *post_gate;  // H3: v, k, q
  void* y;                               // null: state only
  int64_t batch_stride, channel_stride;
  const unsigned char* filters;  // device; `filter_bytes` each
  int64_t filter_bytes;
  int pair_groups;
  int pairs;
  const float* state_in;  // (sequence, 2, pairs); null: zero
  float* state_out;       // null: not wanted
  // Sequences: `filter_sequences` of each filter. Sequence m of filter f: batch entry m /
  // filter_channels, channel f * filter_channels + m % filter_channels.
  int64_t length;
  int filter_sequences;
  int filter_channels;
  int64_t channels;
  // A sequence is cut into `segments` of `segment_length` tokens (the last has the rest), which run
  // as sequences of their own, the first `run_segments` of them. state_in is then (sequence,
  // segment, 2, pairs), and so is state_out unless `only_last`: of the last segment alone.
  int segments, run_segments;
  int64_t segment_length;
  bool only_last;
  int splits;      // thread blocks of one filter
  int lanes_log2;  // groups that hold one sequence: 1, 2, 4 or 8
  bool aligned;    // every row starts at a multiple of 16 bytes
  // H3
  int head_dim, heads;
  int taps;                 // 0: no shift
  const float* shift_taps;  // (width, taps)
  const float* bias;        // (3, width); null: none
  const float* halo_in;     // (batch, width, taps - 1); null: zero
  void* kv;                 // the state-only pass: where the SSM's input is kept; null: nowhere
};

// ---- The scan

// a x + s, a exact to 48 bits where kLow.
template <bool kLow>
LONGWAVE_DEVICE float2 MultiplyAdd(float2 a, float2 a_low, float2 x, float2 s) {
  if constexpr (kLow) {
    s = {fmaf(a_low.x, x.x, fmaf(-a_low.y, x.y, s.x)), fmaf(a_low.x, x.y, fmaf(a_low.y, x.x, s.y))};
  }
  return {fmaf(a.x, x.x, fmaf(-a.y, x.y, s.x)), fmaf(a.x, x.y, fmaf(a.y, x.x, s.y))};
}

// ---- The kernel

// What stands around the SSM: nothing, gates, or H3's gates with the shift filter of at most 64
// taps on tensor cores. The general kernel takes what no published model has: heads of several
// channels, other taps, more pairs; one warp a thread block, several passes over each tile.
enum class Front { kNone, kGates, kShift, kGeneral };

template <typename T_, Front kFront_, bool kOutput_, int kWarps_, int kTiles_, int kBlocks_>
struct SsmTraits {
  using T = T_;
  static constexpr Front kFront = kFront_;
  static constexpr bool kOutput = kOutput_;
  static constexpr bool kLow = std::is_same_v<T, float>;
  static constexpr int kWarps = kWarps_;
  static constexpr int kTiles = kTiles_;    // mma tiles of 16 rows
  static constexpr int kBlocks = kBlocks_;  // on one multiprocessor, at least
  static constexpr int kRows = 2 * kTiles;  // blocks of one thread
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr bool kPasses = kFront == Front::kGeneral;
  static_assert(!kPasses || kWarps == 1);
  static constexpr int kShiftMatrices = kFront == Front::kShift ? (kLow ? 2 : 4) : 0;
};

// A filter's constants, where the kernel reads them: a copy in shared memory, or as they are in
// device memory (the general kernel).
template <typename Traits>
struct SsmConstants {
  using T = typename Traits::T;
  const unsigned char* base;
  int group_bytes;

  static constexpr int kMatrix = kMatrixBytes<T>;
  static constexpr int kSharedGroup = 2 * kMatrix + kConstantBytes<T>;
  static constexpr int kDeviceGroup = 2 * kMatrix + static_cast<int>(sizeof(PairConstants));

  LONGWAVE_DEVICE const unsigned char* k() const { return base; }
  LONGWAVE_DEVICE const unsigned char* v(int group) const {
    return base + kMatrix + group * group_bytes;
  }
  LONGWAVE_DEVICE const unsigned char* w(int group) const { return v(group) + kMatrix; }
  LONGWAVE_DEVICE const PairConstants& pairs(int group) const {
    return *reinterpret_cast<const PairConstants*>(w(group) + kMatrix);
  }
};

// Shared memory: the constants, H3's shift matrices, a row of 64 floats for each warp, the states
// that are handed on: one for each warp, or for each pass.
template <typename Traits>
struct SsmShared {
  using T = typename Traits::T;
  static constexpr int kShift =
      Traits::kPasses ? 0 : kMatrixBytes<T> + SsmConstants<Traits>::kSharedGroup;
  static constexpr int kTail = kShift + Traits::kShiftMatrices * kMatrixBytes<T>;
  static constexpr int kStates = kTail + Traits::kWarps * kT * static_cast<int>(sizeof(float));
  __host__ __device__ static constexpr int64_t Bytes(int64_t passes) {
    return kStates +
           (Traits::kPasses ? passes : Traits::kWarps) * static_cast<int64_t>(sizeof(PairValues)) +
           (Traits::kPasses ? 0 : 2 * Traits::kWarps) * static_cast<int64_t>(sizeof(PhaseBarrier));
  }

  LONGWAVE_DEVICE static unsigned char* constants() { return DynamicShared(); }
  LONGWAVE_DEVICE static unsigned char* shift(int i) {
    return DynamicShared() + kShift + i * kMatrixBytes<T>;
  }
  LONGWAVE_DEVICE static float* tail(int warp) {
    return reinterpret_cast<float*>(DynamicShared() + kTail) + warp * kT;
  }
  LONGWAVE_DEVICE static PairValues& state(int i) {
    return reinterpret_cast<PairValues*>(DynamicShared() + kStates)[i];
  }
  // Of the states' slots: one that a state has come, one that it has been read.
  LONGWAVE_DEVICE static PhaseBarrier* come(int warp) {
    return reinterpret_cast<PhaseBarrier*>(&state(Traits::kWarps)) + warp;
  }
  LONGWAVE_DEVICE static PhaseBarrier* read(int warp) { return come(Traits::kWarps + warp); }
};

// One warp's work. Everything about where it stands is the same for all lanes but what is named for
// a group (four lanes that hold the same blocks).
template <typename Traits>
struct SsmWarp {
  using T = typename Traits::T;
  static constexpr int kRows = Traits::kRows, kTiles = Traits::kTiles;
  static constexpr bool kLow = Traits::kLow;
  using Acc = float[kTiles][8][4];

  using Shared = SsmShared<Traits>;

  const SsmParams& p;
  int64_t filter;
  int g, q, warp;

  // Where the group's blocks stand.
  struct Place {
    int batch = 0, channel = 0, segment = 0;
    int left = 0;       // tokens of the segment from the group's first on; 0 or less: none
    int64_t begin = 0;  // the group's first token, within the whole sequence
    bool exists = false;
    bool whole = false;  // all blocks of all groups are there, aligned: the same for all lanes
  };

  // Tile `tile` of the sequences from `sequence` on: one long one, or several short ones.
  LONGWAVE_DEVICE Place At(int sequence, int tile, int last, bool chained) const {
    constexpr int kTile = kGroups * kRows * kT;
    Place at;
    const int lanes = 1 << p.lanes_log2, mine = sequence + (g >> p.lanes_log2);
    at.exists = mine < last;
    if (!at.exists) return at;
    // Divisions only where there is something to divide by.
    const int sequence_of = p.run_segments == 1 ? mine : mine / p.run_segments;
    at.segment = p.run_segments == 1 ? 0 : mine % p.run_segments;
    at.batch = p.filter_channels == 1 ? sequence_of : sequence_of / p.filter_channels;
    at.channel = static_cast<int>(filter);
    if (p.filter_channels > 1) {
      at.channel = at.channel * p.filter_channels + sequence_of % p.filter_channels;
    }
    const int64_t start = at.segment * p.segment_length;
    const int64_t end = start + p.segment_length < p.length ? start + p.segment_length : p.length;
    const int64_t tile_begin = start + int64_t{tile} * kTile;
    const int within = (g & (lanes - 1)) * (kRows * kT);
    at.begin = tile_begin + within;
    at.left =
        static_cast<int>(end - tile_begin < 2 * kTile ? end - tile_begin : 2 * kTile) - within;
    at.whole = p.aligned && (chained ? end - tile_begin >= kTile
                                     : p.length == lanes * (kRows * kT) &&
                                           sequence + (kGroups >> p.lanes_log2) <= last);
    return at;
  }

  // Where the state of a place stands; of `segments` in each sequence.
  LONGWAVE_DEVICE int64_t StateIndex(const Place& at, int d1, bool segmented) const {
    int64_t sequence = at.batch * p.channels + at.channel;
    if (Traits::kPasses && p.head_dim > 1) {
      // (batch, heads, d1, d2): a filter is a head, a channel of it a d2.
      sequence = ((int64_t{at.batch} * p.heads + filter) * p.head_dim + d1) * p.head_dim +
                 at.channel % p.head_dim;
    }
    if (segmented) sequence = sequence * p.segments + at.segment;
    return sequence * 2 * p.pairs;
  }

  LONGWAVE_DEVICE const T* Tokens(const void* base, const Place& at, int64_t channel) const {
    return static_cast<const T*>(base) + at.batch * p.batch_stride + channel * p.channel_stride +
           at.begin;
  }

  LONGWAVE_DEVICE void LoadRows(Row<T>* rows, const void* base, const Place& at,
                                int64_t channel) const {
    const T* tokens = Tokens(base, at, channel);
    if (at.whole) {
      LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) LoadWhole(rows[i], tokens + i * kT, q);
    } else {
      LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
        LoadPart(rows[i], tokens + i * kT, at.left - i * kT, q);
      }
    }
  }

  // Block i of the group's, at the group's first token `tokens`.
  LONGWAVE_DEVICE void StoreRow(const Row<T>& row, T* tokens, const Place& at, int i) const {
    if (at.whole) {
      StoreWhole(row, tokens + i * kT, q);
    } else {
      StorePart(row, tokens + i * kT, at.left - i * kT, q);
    }
  }

  LONGWAVE_DEVICE void MultiplyRows(Row<T>* rows, const Row<T>* by) const {
    LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        const float2 x = Get(rows[i], j), f = Get(by[i], j);
        Set(rows[i], j, {x.x * f.x, x.y * f.y});
      }
    }
  }

  // ---- H3's front: rows (v, biased) <- shift(k + bias) * v

  // k of channel `channel` at token t of the whole sequence, t >= -(taps - 1).
  LONGWAVE_DEVICE float K(const Place& at, int64_t channel, int64_t t, float bias) const {
    if (t >= 0) {
      return ToFloat(static_cast<const T*>(
                 p.pre_gate)[at.batch * p.batch_stride + channel * p.channel_stride + t]) +
             bias;
    }
    return p.halo_in == nullptr ? 0.0f : Halo(at, channel, static_cast<int>(t));
  }

  // The same at t < 0, where there is a halo; before it zeros.
  LONGWAVE_DEVICE float Halo(const Place& at, int64_t channel, int t) const {
    if (t < -(p.taps - 1)) return 0;
    const int64_t width = static_cast<int64_t>(p.heads) * p.head_dim;
    return p.halo_in[(at.batch * width + channel) * (p.taps - 1) + p.taps - 1 + t];
  }

  LONGWAVE_DEVICE void AddBias(Row<T>& row, float bias, int count) const {
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
      float2 x = Get(row, j);
      const int t = SlotToken(j, q, 0);
      if (t < count) x.x += bias;
      if (t + 1 < count) x.y += bias;
      Set(row, j, x);
    }
  }

  LONGWAVE_DEVICE float Bias(int which, int64_t channel) const {
    const int64_t width = static_cast<int64_t>(p.heads) * p.head_dim;
    return p.bias == nullptr ? 0.0f : p.bias[which * width + channel];
  }

  // The tensor-core shift: two products, of each row with the current block's taps and of the row
  // before with those that reach back, taps in high and low parts.
  LONGWAVE_DEVICE void Shift(Row<T>* v, const Place& at) const {
    Row<T> k[kRows + 1];  // k[0]: the block before the group's first
    const T* tokens = Tokens(p.pre_gate, at, at.channel);
    const float bias = Bias(1, at.channel);
    const int left = at.left;
    LoadRows(k + 1, p.pre_gate, at, at.channel);
    if (left > 0 && at.begin > 0) {
      if (at.whole) {
        LoadWhole(k[0], tokens - kT, q);
      } else {
        LoadPart(k[0], tokens - kT, kT, q);
      }
      if (p.bias != nullptr) AddBias(k[0], bias, kT);
    } else {
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) Set(k[0], j, {0, 0});
      if (left > 0 && p.halo_in != nullptr) {
        LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
          const int t = SlotToken(j, q, 0) - kT;
          Set(k[0], j, {Halo(at, at.channel, t), Halo(at, at.channel, t + 1)});
        }
      }
    }
    if (p.bias != nullptr) {
      LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) AddBias(k[i + 1], bias, left - i * kT);
    }
    Acc acc;
    Clear(acc);
    Multiply<Corner::kLowerLeft>(acc, k + 1, Shared::shift(0));
    Multiply<Corner::kUpperRight>(acc, k, Shared::shift(1));
    if constexpr (Traits::kShiftMatrices == 4) {
      Multiply<Corner::kLowerLeft>(acc, k + 1, Shared::shift(2));
      Multiply<Corner::kUpperRight>(acc, k, Shared::shift(3));
    }
    LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        const float2 x = Block(acc, i, j), f = Get(v[i], j);
        Set(v[i], j, {x.x * f.x, x.y * f.y});
      }
    }
  }

  // Any number of taps, tap by tap: for shapes that no published model has.
  LONGWAVE_DEVICE void ShiftGeneral(Row<T>* v, const Place& at, int64_t channel) const {
    const float bias = Bias(1, channel);
    const float* taps = p.shift_taps + channel * p.taps;
    LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        float2 f = Get(v[i], j);
        float sum[2] = {0, 0};
        for (int e = 0; e < 2; ++e) {
          const int within = i * kT + SlotToken(j, q, e);
          const int64_t t = at.begin + within;
          if (within >= at.left) continue;
          for (int tap = 0; tap < p.taps && tap <= t + p.taps - 1; ++tap) {
            sum[e] = fmaf(taps[tap], K(at, channel, t - tap, bias), sum[e]);
          }
        }
        Set(v[i], j, {sum[0] * f.x, sum[1] * f.y});
      }
    }
  }

  // ---- Step 3

  // The thread's eight pairs.
  LONGWAVE_DEVICE void Read(const PairValues& values, float2 (&out)[8]) const {
    const float4* two = reinterpret_cast<const float4*>(values.value + q * PairValues::kStride);
    LONGWAVE_UNROLL for (int j = 0; j < 8; j += 2) {
      const float4 x = two[j / 2];
      out[j] = {x.x, x.y};
      out[j + 1] = {x.z, x.w};
    }
  }
  LONGWAVE_DEVICE void Write(PairValues& values, const float2 (&in)[8]) const {
    float4* two = reinterpret_cast<float4*>(values.value + q * PairValues::kStride);
    LONGWAVE_UNROLL for (int j = 0; j < 8; j += 2) {
      two[j / 2] = {in[j].x, in[j].y, in[j + 1].x, in[j + 1].y};
    }
  }

  // x <- factor x + s
  LONGWAVE_DEVICE void Advance(const PairValues& factor, const PairValues& low, float2 (&x)[8],
                               const float2 (&s)[8]) const {
    float2 f[8], l[8] = {};
    Read(factor, f);
    if constexpr (kLow) Read(low, l);
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) x[j] = MultiplyAdd<kLow>(f[j], l[j], x[j], s[j]);
  }

  LONGWAVE_DEVICE static void BlockOf(const Acc& s, int i, float2 (&out)[8]) {
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) out[j] = Block(s, i, j);
  }

  // What the group's blocks and those of the sequence's groups before it in the tile add up to.
  LONGWAVE_DEVICE void SumUp(const Acc& s, const PairConstants& c, float2 (&sum)[8]) const {
    BlockOf(s, 0, sum);
    LONGWAVE_UNROLL for (int i = 1; i < kRows; ++i) {
      float2 next[8];
      BlockOf(s, i, next);
      Advance(c.row, c.row_low, sum, next);
    }
    // A group without partner gets its own sum, times zero: nothing of another sequence.
    const int place = g & ((1 << p.lanes_log2) - 1), width = 4 << p.lanes_log2;
    LONGWAVE_UNROLL for (int step = 1; step < kGroups; step *= 2) {
      float2 before[8];
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
        before[j] = {ShuffleUp(sum[j].x, 4 * step, width), ShuffleUp(sum[j].y, 4 * step, width)};
      }
      const bool any = place >= step;
      Advance(any ? c.group[step] : c.zero, any ? c.group_low[step] : c.zero, before, sum);
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) sum[j] = before[j];
    }
  }

  // The state before the group's first block.
  LONGWAVE_DEVICE void Before(const PairConstants& c, const float2 (&sum)[8], const float2 (&in)[8],
                              float2 (&x)[8]) const {
    const int place = g & ((1 << p.lanes_log2) - 1);
    float2 local[8];
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
      local[j] = {ShuffleUp(sum[j].x, 4), ShuffleUp(sum[j].y, 4)};
      if (place == 0) local[j] = {0, 0};
      x[j] = in[j];
    }
    Advance(c.group[place], c.group_low[place], x, local);
  }

  // The state that the sequence starts with, scaled.
  LONGWAVE_DEVICE float2 FirstState(const Place& at, const PairConstants& c, int64_t index,
                                    int group, int pair) const {
    const int n = group * kPairs + pair;
    if (!at.exists || p.state_in == nullptr || n >= p.pairs) return {0, 0};
    const float* state = p.state_in + index;
    const float scale = c.scale.of(pair).x;
    return {state[n] * scale, state[p.pairs + n] * scale};
  }

  // The state after the last full block of the group's sequence, out.
  LONGWAVE_DEVICE void StoreState(const PairConstants& c, int64_t index, int group,
                                  const float2 (&state)[8]) const {
    float* out = p.state_out + index;
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
      const int n = group * kPairs + SlotPair(j, q);
      if (n >= p.pairs) continue;
      const float unscale = c.scale.of(SlotPair(j, q)).y;
      out[n] = state[j].x * unscale;
      out[p.pairs + n] = state[j].y * unscale;
    }
  }

  // Where that is not the sequence's end: the recurrence over the `count` tokens that are left.
  LONGWAVE_DEVICE void AdvanceState(const PairConstants& c, int64_t index, int group,
                                    const float* tail, int count) const {
    float* out = p.state_out + index;
    for (int j = 0; j < 8; ++j) {
      const int pair = SlotPair(j, q), n = group * kPairs + pair;
      if (n >= p.pairs) continue;
      const float2 scale = c.scale.of(pair), b = c.b.of(pair), a = c.a.of(pair);
      const float2 low = kLow ? c.a_low.of(pair) : float2{};
      float2 state{out[n] * scale.x, out[p.pairs + n] * scale.x};
      for (int t = 0; t < count; ++t) {
        state = MultiplyAdd<kLow>(a, low, state, {b.x * tail[t], b.y * tail[t]});
      }
      out[n] = state.x * scale.y;
      out[p.pairs + n] = state.y * scale.y;
    }
  }
};

// grid (filters * splits)
template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kBlocks) SsmKernel(const SsmParams p) {
  using T = typename Traits::T;
  constexpr int kRows = Traits::kRows, kTiles = Traits::kTiles, kWarps = Traits::kWarps;
  const int64_t filter = blockIdx.x / p.splits, split = blockIdx.x % p.splits;
  using Shared = SsmShared<Traits>;
  using Constants = SsmConstants<Traits>;
  const SsmWarp<Traits> self{p, filter, Lane() / 4, Lane() % 4, WarpOfBlock()};
  const int g = self.g, q = self.q, warp = self.warp;
  const bool output = Traits::kOutput && p.y != nullptr;

  const unsigned char* device_constants = p.filters + filter * p.filter_bytes;
  if constexpr (!Traits::kPasses) {
    constexpr int kBytes = kMatrixBytes<T> + Constants::kSharedGroup;
    for (int i = static_cast<int>(threadIdx.x) * 16; i < kBytes; i += Traits::kThreads * 16) {
      *reinterpret_cast<uint4*>(Shared::constants() + i) =
          *reinterpret_cast<const uint4*>(device_constants + i);
    }
  }
  const Constants constants = Traits::kPasses
                                  ? Constants{device_constants, Constants::kDeviceGroup}
                                  : Constants{Shared::constants(), Constants::kSharedGroup};
  if constexpr (Traits::kFront == Front::kShift) {
    const float* taps = p.shift_taps + filter * p.taps;
    for (int i = 0; i < Traits::kShiftMatrices; ++i) {
      BuildMatrix<T>(Shared::shift(i), i >= 2, [&](int from, int to) {
        const int tap = i % 2 * kT + to - from;
        return tap >= 0 && tap < p.taps ? taps[tap] : 0.0f;
      });
    }
  }
  if (!Traits::kPasses && threadIdx.x == 0) {
    for (int i = 0; i < kWarps; ++i) {
      InitBarrier(Shared::come(i), 4);  // the four threads that write the state
      InitBarrier(Shared::read(i), kWarp);
    }
  }
  SyncBlock();

  // This block's share of the filter's sequences, as items: tiles, or groups of short sequences.
  constexpr int64_t kTile = kGroups * kRows * kT;  // tokens
  const int per_item = kGroups >> p.lanes_log2;
  const int sequences = p.filter_sequences * p.run_segments;
  const int64_t together = (sequences + per_item - 1) / per_item;
  const int first = static_cast<int>(together * split / p.splits) * per_item;
  const int after = static_cast<int>(together * (split + 1) / p.splits) * per_item;
  const int last = after < sequences ? after : sequences;
  const int tiles = static_cast<int>((p.segment_length + kTile - 1) / kTile);
  const bool chained = tiles > 1;
  const int passes = Traits::kPasses ? p.head_dim : 1;

  // The warp's items, one after another.
  struct Cursor {
    int sequence, tile;
  };
  const auto move = [&](Cursor& at, int by) {
    at.tile += by;
    while (at.tile >= tiles) {
      at.tile -= tiles;
      at.sequence += per_item;
    }
  };
  Cursor cursor{first, 0};
  move(cursor, warp);

  constexpr bool kShifts = Traits::kFront == Front::kShift || Traits::kPasses;

  // The next item's place, and its u already on the way where registers allow.
  Row<T> next[kRows];
  constexpr bool kPrefetch = Traits::kFront == Front::kNone;
  auto next_at = self.At(cursor.sequence, cursor.tile, last, chained);
  if (kPrefetch && cursor.sequence < last) self.LoadRows(next, p.u, next_at, next_at.channel);

  const int next_warp = (warp + 1) % kWarps;
  for (int round = 0; cursor.sequence < last; ++round) {
    const bool first_round = round == 0, first_item = first_round && warp == 0;
    const int waits = warp == 0 ? round - 1 : round;  // for states, before this one
    const auto at = next_at;
    const bool first_tile = cursor.tile == 0, last_tile = cursor.tile == tiles - 1;
    Cursor then = cursor;
    move(then, 1);
    const bool handed_on = then.sequence < last;  // there is an item after this
    move(then, kWarps - 1);
    cursor = then;
    next_at = self.At(cursor.sequence, cursor.tile, last, chained);
    // The block after the sequence's last full one stands `ahead` blocks from the group's first.
    const int ahead = at.left >> 6;
    const bool ends_here =
        p.state_out != nullptr && at.exists && ahead >= 0 &&
        (!p.only_last || at.segment == p.segments - 1) &&
        (ahead < kRows || (ahead == kRows && last_tile && (g + 1) % (1 << p.lanes_log2) == 0));
    // Whether any group's may: the same for all lanes.
    const int to_end = ahead + g * kRows;
    const bool ending =
        p.state_out != nullptr && (!chained || (to_end >= 0 && to_end <= kGroups * kRows));

    float sum[Traits::kPasses ? kTiles : 1][8][4];  // over d1
    if constexpr (Traits::kPasses) Clear(sum);

    for (int d1 = 0; d1 < passes; ++d1) {
      // H3: q and k of d1, v of d2. SsmConv: all of the channel.
      const int64_t gate_channel =
          Traits::kPasses && p.head_dim > 1 ? filter * p.head_dim + d1 : at.channel;

      // 1
      Row<T> u[kRows];
      if constexpr (kPrefetch) {
        LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) u[i] = next[i];
        if (cursor.sequence < last) self.LoadRows(next, p.u, next_at, next_at.channel);
      } else {
        self.LoadRows(u, p.u, at, at.channel);
      }
      if (kShifts && p.bias != nullptr) {
        const float bias = self.Bias(2, at.channel);
        LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) self.AddBias(u[i], bias, at.left - i * kT);
      }
      if constexpr (Traits::kFront == Front::kShift) {
        self.Shift(u, at);
        if (!Traits::kOutput && p.kv != nullptr) {
          T* kv = const_cast<T*>(self.Tokens(p.kv, at, at.channel));
          LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) self.StoreRow(u[i], kv, at, i);
        }
      } else if (Traits::kPasses && p.taps > 0) {
        self.ShiftGeneral(u, at, gate_channel);
      } else if (Traits::kFront != Front::kNone && p.pre_gate != nullptr) {
        Row<T> gate[kRows];
        self.LoadRows(gate, p.pre_gate, at, at.channel);
        self.MultiplyRows(u, gate);
      }

      float y[kTiles][8][4];
      Clear(y);
      for (int group = 0; group < (Traits::kPasses ? p.pair_groups : 1); ++group) {
        const PairConstants& c = constants.pairs(group);
        // 2
        float s[kTiles][8][4];
        Clear(s);
        Multiply<Corner::kNone>(s, u, constants.v(group));

        // 3, as far as it goes without the state before the tile
        float2 sum[8];
        self.SumUp(s, c, sum);

        // That state: from the sequence's start, or from the warp before.
        const int pass = d1 * p.pair_groups + group;
        if (chained) {
          if constexpr (Traits::kPasses) {
            SyncWarp();
          } else if (!first_item) {
            Wait(Shared::come(warp), waits & 1);
          }
        }
        float2 in[8];
        if (first_tile) {
          LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
            in[j] = self.FirstState(at, c, self.StateIndex(at, d1, true), group, SlotPair(j, q));
          }
        } else {
          self.Read(Shared::state(Traits::kPasses ? pass : warp), in);
        }
        if (chained && !Traits::kPasses && !first_item && cursor.sequence < last) {
          Arrive(Shared::read(warp));  // it may be written again
        }

        // 4
        if (chained) {
          if constexpr (Traits::kPasses) {
            SyncWarp();
          } else if (handed_on && !first_round) {
            Wait(Shared::read(next_warp), (round - 1) & 1);
          }
          if (handed_on && g == kGroups - 1) {
            float2 out[8];
            LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) out[j] = in[j];
            self.Advance(c.group[kGroups], c.group_low[kGroups], out, sum);
            self.Write(Shared::state(Traits::kPasses ? pass : next_warp), out);
            if (!Traits::kPasses) Arrive(Shared::come(next_warp));
          }
        }

        // 3, the rest
        Row<T> x[kRows];
        if (output || ending) {
          float2 state[8];
          self.Before(c, sum, in, state);
          LONGWAVE_UNROLL for (int i = 0; i <= kRows; ++i) {
            if (i == kRows && !ending) break;
            if (i > 0) {
              float2 add[8];
              self.BlockOf(s, i - 1, add);
              self.Advance(c.row, c.row_low, state, add);
            }
            if (i < kRows) {
              LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) Set(x[i], j, state[j]);
            }
            if (ends_here && ahead == i) {
              self.StoreState(c, self.StateIndex(at, d1, !p.only_last), group, state);
            }
          }
        }
        if (ending) {
          // Group after group, as their tails share a row of shared memory.
          for (int owner = 0; owner < kGroups; ++owner) {
            const int count = ShuffleFrom(ends_here ? at.left & (kT - 1) : 0, 4 * owner);
            if (count == 0) continue;
            float* tail = Shared::tail(warp);
            SyncWarp();
            LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
              if (g != owner || ahead != i) continue;
              LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
                const float2 v = Get(u[i], j);
                tail[SlotToken(j, q, 0)] = v.x;
                tail[SlotToken(j, q, 1)] = v.y;
              }
            }
            SyncWarp();
            if (g != owner) continue;
            self.AdvanceState(c, self.StateIndex(at, d1, !p.only_last), group, tail, count);
          }
        }

        // 5
        if (output) Multiply<Corner::kNone>(y, x, constants.w(group));
      }
      if (!output) continue;

      const bool gated = Traits::kFront != Front::kNone && p.post_gate != nullptr;
      Multiply<Corner::kLowerLeft>(y, u, constants.k());
      if (gated) {
        Row<T> post[kRows];
        self.LoadRows(post, p.post_gate, at, gate_channel);
        const float bias = self.Bias(0, gate_channel);
        LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
          LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
            const float2 f = Get(post[i], j);
            y[i / 2][j][i % 2 * 2] *= f.x + bias;
            y[i / 2][j][i % 2 * 2 + 1] *= f.y + bias;
          }
        }
      }
      if constexpr (Traits::kPasses) {
        LONGWAVE_UNROLL for (int m = 0; m < kTiles; ++m) {
          LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
            LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) sum[m][j][i] += y[m][j][i];
          }
        }
        if (d1 + 1 < passes) continue;
      }
      // Out. The channels of heads leave ordered (d2, head).
      const int64_t channel = Traits::kPasses && p.head_dim > 1
                                  ? at.channel % p.head_dim * p.heads + filter
                                  : at.channel;
      T* out = const_cast<T*>(self.Tokens(p.y, at, channel));
      LONGWAVE_UNROLL for (int i = 0; i < kRows; ++i) {
        Row<T> row;
        LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) {
          if constexpr (Traits::kPasses) {
            Set(row, j, Block(sum, i, j));
          } else {
            Set(row, j, Block(y, i, j));
          }
        }
        self.StoreRow(row, out, at, i);
      }
    }
  }
}

}  // namespace longwave::gpu

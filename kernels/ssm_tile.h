// One thread's pieces of the diagonal SSM over a tile of one channel, which SsmConv and H3Mix
// share. Internal to kernels/.
//
// With blocks of T = kBlock tokens, u as rows U (R, T), and the state before block r in row r of X:
//   S = U V                      what each block adds to the state            V (T, 2P)
//   X[r+1] = a^T X[r] + S[r]     the scan, complex, element by element
//   Y = X W + U K                what state and block add to the output       W (2P, T), K (T, T)
// Columns [0, P) of V, S, X and rows [0, P) of W are real parts, the next P imaginary parts.
//   V[t] = b a^(T-1-t),  W[j] = 2 Re / -2 Im of c a^(j+1),  K[t][j] = taps[j - t], taps[0] with d.
// T = 32: a token costs 4P multiply-adds for V and W, 3/4 T for K's triangle on AVX-512 and 8P / T
// for the scan, and the three matrices of a filter (20 KiB at 32 pairs) stay in the first-level
// cache beside a tile of 24 blocks.
#pragma once

#include <cstdint>

namespace longwave {

constexpr int64_t kSsmBlock = 32;       // T
constexpr int64_t kSsmTileBlocks = 24;  // R: a multiple of the register tiles' 12 and 6
constexpr int64_t kSsmTile = kSsmBlock * kSsmTileBlocks;  // tokens
constexpr int64_t kSsmPairsMultiple = 16;                 // P: pairs padded with zeros

// A complex constant for each pair, (P), as the sum of two float32 numbers: rounding a to one would
// turn and shrink the state by the same 3e-8 at every step, 3e-3 after 1e5 tokens.
struct SsmFactor {
  const float *re, *im, *re_low, *im_low;
};

// One filter's constants in float32, all aligned to 64 bytes; `padded` = P.
struct SsmTileFilter {
  int64_t padded;
  SsmFactor a;                             // the recurrence's
  const float *b_re, *b_im, *c_re, *c_im;  // (P); c holds 2 Re c, -2 Im c
  float d;
  SsmFactor block;  // a^T
  const float* v;   // (T, 2P)
  const float* w;   // (2P, T)
  const float* k;   // (T, T)
};

// S = U V for `rows` <= kSsmTileBlocks blocks.
void SsmProjectIn(const SsmTileFilter& filter, int64_t rows, const float* u, float* s);
// s: S in, X out; state (2P) is moved past the rows. with_input false: s is only written.
void SsmScan(const SsmTileFilter& filter, int64_t rows, bool with_input, float* s, float* state);
// y = X W + U K; u null: y += X W.
void SsmProjectOut(const SsmTileFilter& filter, int64_t rows, const float* x, const float* u,
                   float* y);
// The recurrence over `count` tokens; y null: state only.
void SsmStep(const SsmTileFilter& filter, int64_t count, const float* u, float* y, float* state);

// All of it for any `count` of tokens: dual form over the full blocks, the recurrence over the
// rest, or the recurrence alone where `dual` is false. y null: state only; y may not be u. scratch:
// kSsmTileBlocks * 2P floats.
void SsmRunTokens(const SsmTileFilter& filter, bool dual, int64_t count, const float* u, float* y,
                  float* state, float* scratch);

}  // namespace longwave

// One thread's short causal filter over a tile, which ShiftConv and H3Mix share. Internal to
// kernels/.
//
// With blocks of S tokens (S: lanes of a vector), Y = U B: row r of U is the S + taps - 1 inputs
// that block r sees, and B[t][j] = h[taps - 1 + j - t] is the same for all blocks. All loads are
// aligned.
#pragma once

#include <cstdint>

namespace longwave {

// The largest S: what a tile's arrays must hold beyond their tokens.
constexpr int64_t kShiftPad = 16;

// Floats of B. The matrix is made for the vectors chosen at run time.
int64_t ShiftMatrixFloats(int64_t taps);
// Nothing is made for a chunk of `length` tokens that is too short to use it.
void ShiftBuildMatrix(const float* h, int64_t taps, int64_t length, float* matrix);

// y[t] = sum_i h[i] u[t-i] for t in [0, count). u: the tile, with taps - 1 inputs before it and
// kShiftPad readable floats after; y: count + kShiftPad floats.
void ShiftRun(const float* matrix, const float* h, int64_t taps, const float* u, int64_t count,
              float* y);

// Keeps a tile's inputs behind their halo: history (taps - 1 + capacity + kShiftPad) floats.
// Moves the last taps - 1 of `before` tokens to the front, then appends `count` new ones.
void ShiftAdvance(const float* u, int64_t taps, int64_t before, int64_t count, float* history);

}  // namespace longwave

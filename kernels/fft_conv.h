// Causal convolution of N real tokens with N real taps by one complex transform of length N: the
// product modulo X^N - i. Its real part is the first N values of the convolution, its imaginary
// part the next N, what the block adds to the block after it. Internal to kernels/ (LongConv,
// SsmConv's block FFT).
//
// The transform walks the factorisation X^(2m) - w^2 = (X^m - w)(X^m + w) from X^N - i down to
// degree one: a butterfly (a + w b, a - w b) has one constant for a whole block, there is no bit
// reversal and no zero padding. The order of a spectrum is the walk's own and the same for all
// arrays of one N; the last levels run across vector lanes by a register transpose. (Crandall and
// Fagin 1994; Bernstein, "Multidigit multiplication for mathematicians", 2001.)
//
// A spectrum is 2N floats, aligned to 64 bytes: (2, N), real parts then imaginary parts.
// Thread safety: immutable after construction.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/aligned.h"

namespace longwave {

constexpr int64_t kFftConvSmallest = 256;
bool IsFftConvBlock(int64_t n);  // a power of two, kFftConvSmallest to 2^40

class FftConv {
 public:
  explicit FftConv(int64_t n);              // REQUIRES: IsFftConvBlock(n)
  static const FftConv& Shared(int64_t n);  // made once a process, kept

  int64_t n() const { return n_; }
  // real: `count` <= N tokens, zeros after them.
  void Forward(const float* real, int64_t count, float* spectrum) const;
  // Divides a spectrum of taps by N, so that products need no scaling.
  void ScaleTaps(float* spectrum) const;
  // sum = taps * spectrum, or sum += taps * spectrum; sum may be spectrum.
  void Product(const float* taps, const float* spectrum, bool accumulate, float* sum) const;
  // In place: (2, N), the product's real part then its imaginary part.
  void Inverse(float* spectrum) const;

  struct Roots;  // one level's constants

 private:
  int64_t n_;
  int lanes_;  // of the vectors chosen at run time: the last log2(lanes) levels run across them
  // levels_[l]: (2, 2^l) w of each block at level l, for levels down to blocks of 2 * lanes_.
  std::vector<AlignedFloats> levels_;
  // last_[s]: (2, N / lanes_) the first root below each block of lanes_ elements, s levels further
  // down.
  std::vector<AlignedFloats> last_;
};

}  // namespace longwave

// What the operator tests compare with: every operator as the plainest sum or recurrence of its
// definition, in float64; seeded inputs; guarded buffers; the one table of tolerances.
//
// Arrays are packed and row major in the shapes of the operators' headers. An empty array stands
// for "none". Nothing here shares code with the operators.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/advance_state.h"
#include "kernels/diagonal_ssm.h"
#include "kernels/gelu.h"
#include "kernels/h3_mix.h"
#include "kernels/long_conv.h"
#include "kernels/shift_conv.h"
#include "kernels/ssm_conv.h"
#include "kernels/stream.h"

namespace longwave::reference {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// ---- Tolerances
// -------------------------------------------------------------------------------------

// Largest accepted relative error in the 2-norm. One table, by device and type of the activations.
double Tolerance(Device device, Dtype dtype = Dtype::kFloat32);

// Tolerance() plus what a float32 state must cost a recurrence: each of `carries` over `length`
// tokens rounds the state, in no one direction, and a rounding stays for a memory of 1 / (1 - max
// |a|) tokens: 2^-24 times the square root of the carries within that memory. The powers of a that
// carry it are exact to 2^-48 and cost nothing.
double CarryTolerance(Device device, const DiagonalSsm& ssm, int64_t length, int64_t carries);
// How often a plan of `block` carries the state over `length` tokens. A longer block than 32 sums
// up its state in blocks of its own, so it counts as 32.
int64_t Carries(int64_t length, int64_t block);

// ---- Comparisons
// ------------------------------------------------------------------------------------

// |actual - expected| / |expected|. Infinite where the sizes differ or anything is not finite.
double RelativeError(const Floats& actual, const Doubles& expected);
double RelativeError(const Doubles& actual, const Doubles& expected);

// Says the error and the worst element where it fails.
::testing::AssertionResult Near(const Floats& actual, const Doubles& expected, double tolerance);
::testing::AssertionResult BitwiseEqual(const Floats& a, const Floats& b);
// An InvalidArgument whose message names every one of `values`.
::testing::AssertionResult Rejected(const absl::Status& status,
                                    const std::vector<std::string>& values);

// ---- Inputs
// -----------------------------------------------------------------------------------------

Floats Normal(uint64_t seed, int64_t count, double scale = 1, double mean = 0);
Doubles ToDoubles(const Floats& x);
// (rows, columns) -> (columns, rows)
Floats Transpose(const Floats& x, int64_t rows, int64_t columns);
// Tokens [begin, begin + count) of (rows, length).
Floats Columns(const Floats& x, int64_t rows, int64_t length, int64_t begin, int64_t count);
// Seeded lengths that add up to `length`: ones, block borders give or take one, and long ones.
std::vector<int64_t> RandomSplit(uint64_t seed, int64_t length);

// S4D-Lin: A_n = -1/2 + i pi n, B near 1, C normal, dt log-uniform, bilinear; d a tenth of a normal
// so that the skip does not hide the convolution.
DiagonalSsm S4dLin(uint64_t seed, int64_t filters, int64_t pairs, double dt_min = 1e-3,
                   double dt_max = 1e-1);

// ---- Buffers
// ----------------------------------------------------------------------------------------

// (batch, channels, length) floats with sentinels before, after and in the gaps between channels
// and between batch entries. The body starts as NaN, so an element that nobody wrote is seen; the
// sentinels are signalling NaNs, so that one that was read shows in the result and one that was
// copied through arithmetic has changed its bits. The body stands at an odd address: no operator
// may ask for more.
class Guarded {
 public:
  Guarded(int64_t batch, int64_t channels, int64_t length, int64_t gap = 0);
  explicit Guarded(int64_t count) : Guarded(1, 1, count) {}
  Guarded(const Floats& values, int64_t batch, int64_t channels, int64_t length, int64_t gap = 0);
  explicit Guarded(const Floats& values)
      : Guarded(values, 1, 1, static_cast<int64_t>(values.size())) {}

  float* data() { return storage_.data() + kGuard; }
  int64_t channel_stride() const { return length_ + gap_; }
  int64_t batch_stride() const { return channels_ * channel_stride() + 2 * gap_; }

  void Set(const Floats& packed);
  Floats Packed() const;
  // No sentinel has changed.
  ::testing::AssertionResult Intact() const;

 private:
  static constexpr int64_t kGuard = 67;
  int64_t Index(int64_t n, int64_t c, int64_t t) const {
    return kGuard + n * batch_stride() + c * channel_stride() + t;
  }
  int64_t batch_, channels_, length_, gap_;
  Floats storage_;
  std::vector<bool> body_;
};

// A stream whose scratch is full of NaN, and the check that the operator asked for no more of it
// than it had said.
class PoisonedStream {
 public:
  PoisonedStream(int threads, int64_t scratch_floats);
  Stream& operator*() { return stream_; }
  ::testing::AssertionResult ScratchKept();

 private:
  ThreadPool pool_;
  Stream stream_;
  std::vector<float*> scratch_;
};

// ---- Operators
// --------------------------------------------------------------------------------------

struct WithState {
  Doubles y;
  Doubles state;  // SsmConv, H3Mix: the state
  Doubles halo;   // ShiftConv, H3Mix: the halo
};

// The recurrence, O(length x pairs).
WithState SsmConv(const DiagonalSsm& ssm, const SsmConvDesc& desc, const Floats& u,
                  const Floats& pre_gate, const Floats& post_gate, const Floats& state_in);
// The same by taps and powers, O(length^2): for short inputs only.
WithState SsmConvByTaps(const DiagonalSsm& ssm, const SsmConvDesc& desc, const Floats& u,
                        const Floats& pre_gate, const Floats& post_gate, const Floats& state_in);

WithState ShiftConv(const ShiftConvDesc& desc, const Floats& u, const Floats& taps,
                    const Floats& halo_in);

Doubles LongConv(const LongConvDesc& desc, const Floats& u, const Floats& taps,
                 const Floats& pre_gate, const Floats& post_gate);

WithState H3Mix(const DiagonalSsm& ssm, const H3MixDesc& desc, const Floats& q, const Floats& k,
                const Floats& v, const Floats& shift_taps, const Floats& halo_in,
                const Floats& state_in);

// a^length state_in + local, of (batch, channels, 2, pairs), by logarithms in extended precision.
Doubles AdvanceState(const DiagonalSsm& ssm, const AdvanceStateDesc& desc, const Floats& state_in,
                     const Floats& local);

Doubles LayerNorm(const Doubles& x, int64_t rows, int64_t width, const Floats& scale,
                  const Floats& shift, double eps);

double Activate(Activation activation, double x);
double Glu(double a, double b);

// (rows, in) x (out, in)^T + bias
Doubles Linear(const Doubles& x, int64_t rows, int64_t in, int64_t out, const Floats& weight,
               const Floats& bias);

// Rotates the first rotary_dim of one head's features in place.
void Rotate(double* head, int64_t rotary_dim, int64_t position);
// The whole sequence at once. qkv (length, 3, heads, head_dim) -> (length, heads, head_dim).
Doubles Attention(int64_t heads, int64_t head_dim, int64_t rotary_dim, int64_t length,
                  const Floats& qkv);

// x + fc2(activation(fc1(norm(x))))
Doubles Mlp(const Floats& x, int64_t rows, int64_t width, int64_t inner, Activation activation,
            const Floats& scale, const Floats& shift, double eps, const Floats& fc1_weight,
            const Floats& fc1_bias, const Floats& fc2_weight, const Floats& fc2_bias);

Doubles TokenLoss(int64_t rows, int64_t width, int64_t vocab, const Floats& hidden,
                  const Floats& embedding, const std::vector<int32_t>& targets);

}  // namespace longwave::reference

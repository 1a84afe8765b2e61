// LongConv: causal convolution with any number of taps, no state:
//   y[t] = post_gate[t] * (sum_{0 <= i <= min(t, taps-1)} h[i] w[t-i]),   w = pre_gate * u
//
// Block FFT: with blocks of N tokens, the product modulo X^N - i of two real sequences has the
// first N values of their convolution in its real part and the next N in its imaginary part
// ("right-angle" convolution, Nussbaumer 1982): one complex transform of length N, no zero padding.
// Longer inputs are cut into blocks (overlap-add in the frequency domain).
//
// Thread safety: plans and filters are immutable; Run may be called from several threads
// with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/aligned.h"
#include "kernels/stream.h"

namespace longwave {

struct LongConvDesc {
  int64_t batch = 1;
  int64_t channels = 0;
  int64_t length = 0;  // tokens
  int64_t taps = 0;    // taps beyond `length` have no effect

  absl::Status Validate() const;
  std::string ToString() const;
};

struct LongConvPlan {
  LongConvDesc desc;
  int64_t block;           // N, a power of two
  int64_t input_blocks;    // ceil(length / N)
  int64_t tap_blocks;      // ceil(min(taps, length) / N)
  int64_t scratch_floats;  // for each thread
};

absl::StatusOr<LongConvPlan> PlanLongConv(const LongConvDesc& desc, Device device);

// The taps' transform, computed once and kept.
class LongConvFilter {
 public:
  // taps: (channels, desc.taps)
  static LongConvFilter Create(const LongConvPlan& plan, const float* taps, Stream& stream);
  // (tap_blocks, 2, N)
  const float* transform(int64_t channel) const { return data_.get() + channel * stride_; }

 private:
  AlignedFloats data_;
  int64_t stride_ = 0;
};

struct LongConvArgs {
  const float* u = nullptr;  // (batch, channels, length), strides as in SsmConvArgs
  const float* pre_gate = nullptr;
  const float* post_gate = nullptr;
  float* y = nullptr;  // may be u or a gate
  int64_t batch_stride = 0;
  int64_t channel_stride = 0;
};

absl::Status RunLongConv(const LongConvPlan& plan, const LongConvFilter& filter,
                         const LongConvArgs& args, Stream& stream);

}  // namespace longwave

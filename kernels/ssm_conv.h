// SsmConv: a diagonal state-space model over a chunk of a sequence, state in and state out.
//   y = post_gate * (conv(K, w) + d w),   w = pre_gate * u
// for each batch entry and channel; channel c uses filter c / channels_per_filter.
//
// Three evaluations of one function (docs/operators.md derives them):
//   kDualForm  blocks of T tokens as matrix products, the state carried between blocks; one pass
//   kBlockFft  FFT convolution within blocks, the state carried between blocks
//   kStep      the recurrence, token by token
//
// State: (batch, channels, 2, pairs) float32, real parts then imaginary parts, x after the chunk's
// last token. It does not depend on the evaluation.
//
// Thread safety: plans and filters are immutable; Run may be called from several threads with a
// Stream each. The result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/aligned.h"
#include "kernels/diagonal_ssm.h"
#include "kernels/dtype.h"
#include "kernels/stream.h"

namespace longwave {

enum class SsmEvaluation { kAuto, kDualForm, kBlockFft, kStep };
const char* Name(SsmEvaluation evaluation);

struct SsmConvDesc {
  int64_t batch = 1;
  int64_t channels = 0;
  int64_t length = 0;  // tokens
  int64_t pairs = 0;   // stored conjugate pairs; twice as many states
  int64_t channels_per_filter = 1;
  SsmEvaluation evaluation = SsmEvaluation::kAuto;  // force one, or let the planner choose
  Dtype dtype = Dtype::kFloat32;                    // of u, gates and y; the CPU has float32 alone

  absl::Status Validate() const;
  std::string ToString() const;
};

struct SsmConvPlan {
  SsmConvDesc desc;
  SsmEvaluation evaluation;  // never kAuto
  int64_t block;             // tokens of a dual-form block or an FFT block; 1 for kStep
  int64_t scratch_floats;    // for each thread of a CPU
  // GPU: a sequence is cut into so many parts that run side by side where there are too few
  // sequences to fill the device; their states are found by a pass of their own before.
  int64_t segments = 1;
  int64_t segment_length = 0;  // tokens, a multiple of 2048 where there are several
};

// Chooses evaluation, block and segments from the descriptor and the device alone. InvalidArgument
// where Validate() fails.
absl::StatusOr<SsmConvPlan> PlanSsmConv(const SsmConvDesc& desc, Device device);

// Into how many segments of how many tokens the dual form cuts each of `sequences` on a GPU.
std::pair<int64_t, int64_t> GpuSegments(int64_t sequences, int64_t length, int multiprocessors);

struct SsmDeviceFilter;
struct SsmFftDeviceFilter;

// A DiagonalSsm prepared for the evaluations: constants of the layer, made once in float64.
class SsmFilter {
 public:
  // fft_block 0: without the block FFT's transforms. Otherwise plan.block of a kBlockFft plan.
  static absl::StatusOr<SsmFilter> Create(const DiagonalSsm& ssm, int64_t fft_block = 0);
  // Makes the constants that a GPU needs for data of `dtype`: once, before the first run there.
  // Replaces those of another device or type.
  absl::Status Upload(Stream& stream, Dtype dtype);

  int64_t filters() const { return filters_; }
  int64_t pairs() const { return pairs_; }
  int64_t fft_block() const { return fft_block_; }
  int64_t bytes() const;

 private:
  friend struct SsmFilterAccess;
  int64_t filters_ = 0, pairs_ = 0, padded_ = 0, fft_block_ = 0;
  AlignedFloats step_, dual_, fft_;  // laid out as ssm_conv_filter.h says
  std::shared_ptr<const DiagonalSsm> ssm_;
  std::shared_ptr<const SsmDeviceFilter> device_;
  std::shared_ptr<const SsmFftDeviceFilter> device_fft_;
};

struct SsmConvArgs {
  // (batch, channels, length) of desc.dtype: element (n, c, t) at n * batch_stride + c *
  // channel_stride + t.
  const void* u = nullptr;
  const void* pre_gate = nullptr;   // null: none
  const void* post_gate = nullptr;  // null: none
  void* y = nullptr;                // null: the state-only pass; may be u or a gate
  int64_t batch_stride = 0;
  int64_t channel_stride = 0;
  const float* state_in = nullptr;  // (batch, channels, 2, pairs); null: zero
  float* state_out = nullptr;       // null: not wanted; may be state_in
};

// REQUIRES: `filter` has plan.desc.pairs and channels / channels_per_filter filters, and for
// kBlockFft transforms of plan.block tokens; on a GPU it was uploaded for this device and
// desc.dtype; else InvalidArgument.
absl::Status RunSsmConv(const SsmConvPlan& plan, const SsmFilter& filter, const SsmConvArgs& args,
                        Stream& stream);

}  // namespace longwave

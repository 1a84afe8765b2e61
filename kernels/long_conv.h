// LongConv: causal convolution with any number of taps, no state:
//   y[t] = post_gate[t] * (sum_{0 <= i <= min(t, taps-1)} h[i] w[t-i]),   w = pre_gate * u
//
// Block FFT: with blocks of N tokens, the product modulo X^N - i of two real sequences has the
// first N values of their convolution in its real part and the next N in its imaginary part
// ("right-angle" convolution, Nussbaumer 1982): one complex transform of length N, no zero padding.
// Longer inputs are cut into blocks (overlap-add in the frequency domain).
//
// On a GPU (long_conv_kernel.cuh, long_conv_toeplitz.cuh) transforms are float32 for every type of
// data, and N need not be a power of two. Short 16-bit sequences are a Toeplitz product on tensor
// cores instead; it rounds pre_gate * u and the taps (scaled) to the data's type.
//
// Thread safety: plans and filters are immutable; Run may be called from several threads
// with a Stream each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/aligned.h"
#include "kernels/dtype.h"
#include "kernels/gpu/queue.h"
#include "kernels/stream.h"

namespace longwave {

enum class LongConvEvaluation {
  kAuto,
  kBlockFft,   // CPU
  kToeplitz,   // GPU, 16-bit data, length <= 2048: all of the Toeplitz matrix
  kOnChipFft,  // GPU: one pass over memory; for up to some 3 * 16384 taps
  kOuterFft,   // GPU: the transform's first radix through device memory
};
const char* Name(LongConvEvaluation evaluation);

struct LongConvDesc {
  int64_t batch = 1;
  int64_t channels = 0;
  int64_t length = 0;  // tokens
  int64_t taps = 0;    // taps beyond `length` have no effect
  // Choices that tests and benches force; 0 or kAuto: the planner's.
  LongConvEvaluation evaluation = LongConvEvaluation::kAuto;
  int64_t block = 0;  // GPU: N, one of LongConvBlocks()
  Dtype dtype = Dtype::kFloat32;

  absl::Status Validate() const;
  std::string ToString() const;
};

// How a transform of N = C1 C2 R1 R2 R3 points goes on a GPU: the columns C1 and C2 through device
// memory (both 1: none), rows of R1 R2 R3 on chip.
struct LongConvRadices {
  int columns1 = 1, columns2 = 1;
  int first = 1, second = 1, third = 1;

  int64_t columns() const { return int64_t{columns1} * columns2; }
  int64_t row() const { return int64_t{first} * second * third; }
};

struct LongConvPlan {
  LongConvDesc desc;
  int64_t block = 0;           // N; kBlockFft: a power of two; kToeplitz: the length
  int64_t input_blocks = 0;    // ceil(length / N)
  int64_t tap_blocks = 0;      // ceil(min(taps, length) / N)
  int64_t scratch_floats = 0;  // kBlockFft: for each thread
  LongConvEvaluation evaluation = LongConvEvaluation::kBlockFft;
  // GPU:
  LongConvRadices radices;
  int64_t filters = 0;         // transforms that a filter has for each channel
  int threads = 0;             // FFTs on chip: of a block
  int64_t thread_blocks = 0;   // kOnChipFft, tap_blocks > 1: blocks of threads
  int64_t row_groups = 0;      // kToeplitz: 32 sequences each, of a block of threads
  int64_t sequences = 0;       // kOuterFft: at a time, so that their rows stay in the L2 cache
  int64_t device_scratch = 0;  // bytes of Queue::Scratch; an output over u or pre_gate may
                               // need a copy of that besides
  int64_t device_filter = 0;   // bytes that a filter holds

  std::string ToString() const;
};

// The transform lengths there are on a GPU, rising, on chip (outer: false) or with columns.
std::vector<int64_t> LongConvBlocks(bool outer);

absl::StatusOr<LongConvPlan> PlanLongConv(const LongConvDesc& desc, Device device);

// The taps' transform, computed once and kept.
class LongConvFilter {
 public:
  // taps: (channels, desc.taps), host memory, read before Create returns. `stream` is of the plan's
  // device, and the filter for that device alone.
  static absl::StatusOr<LongConvFilter> Create(const LongConvPlan& plan, const float* taps,
                                               Stream& stream);
  // (tap_blocks, 2, N)
  const float* transform(int64_t channel) const { return data_.get() + channel * stride_; }

  struct OnDevice {
    gpu::DeviceArray spectrum;  // (filters, channels, N) complex, in the kernels' order, over N
    gpu::DeviceArray roots;     // tables of roots of unity (long_conv_cuda.cu)
    gpu::DeviceArray taps;      // kToeplitz: (channels, min(taps, length)), 16 bits, scaled
    gpu::DeviceArray scales;    // kToeplitz: (channels)
  };
  const OnDevice& on_device() const { return device_; }

 private:
  OnDevice device_;
  AlignedFloats data_;
  int64_t stride_ = 0;
};

// Activations are of desc.dtype, float32 only on the CPU.
struct LongConvArgs {
  const void* u = nullptr;  // (batch, channels, length), strides as in SsmConvArgs
  const void* pre_gate = nullptr;
  const void* post_gate = nullptr;
  void* y = nullptr;  // may be u or a gate
  int64_t batch_stride = 0;
  int64_t channel_stride = 0;
};

absl::Status RunLongConv(const LongConvPlan& plan, const LongConvFilter& filter,
                         const LongConvArgs& args, Stream& stream);

}  // namespace longwave

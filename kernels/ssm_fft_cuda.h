// SsmConv's block FFT (kBlockFft) on a GPU: state passing between blocks of N tokens, everything
// within a block on chip. ssm_fft_kernel.cuh derives it and says how it is computed.
//
// y, gates and u are read and written once (a last partial block's u twice, where the state after
// it is wanted). Accuracy: that of SsmConv's table of tolerances, relative to the norm of the two
// blocks that share a transform: a NaN, an infinity or a peak in one shows in both.
//
// Errors: InvalidArgument where the plan, the filter and the sizes do not fit each other,
// Unimplemented in a build without CUDA and for more pairs than shared memory has room for (about
// 1000), else as gpu::Queue.
// Thread safety: filters are immutable; Run as RunSsmConv.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/diagonal_ssm.h"
#include "kernels/dtype.h"
#include "kernels/gpu/queue.h"
#include "kernels/ssm_conv.h"
#include "kernels/stream.h"

namespace longwave {

// Tokens of an FFT block: squares of 16, 32 and 64.
inline bool IsSsmFftCudaBlock(int64_t block) {
  return block == 256 || block == 1024 || block == 4096;
}
// The block a plan should take for a chunk. Two blocks share a transform, so half the chunk wastes
// nothing. 4096 multiplies twice as much in its transforms as 1024 and half as much between them.
inline int64_t SsmFftCudaBlock(int64_t length) { return length <= 512 ? 256 : 1024; }

// Constants of a layer in a device's memory.
struct SsmFftDeviceFilter {
  int64_t filters = 0, pairs = 0, block = 0;
  Dtype dtype = Dtype::kFloat32;  // of the activations
  gpu::DeviceArray constants;     // float32, laid out as SsmFftLayout says

  int64_t bytes() const { return constants.bytes(); }
};

// Makes the constants in float64 and copies them; has waited for the copy when it returns.
// REQUIRES: a valid `ssm`, IsSsmFftCudaBlock(block), stream.device().is_gpu()
absl::StatusOr<std::shared_ptr<const SsmFftDeviceFilter>> UploadSsmFft(const DiagonalSsm& ssm,
                                                                       int64_t block, Dtype dtype,
                                                                       Stream& stream);

// As RunSsmConv with a kBlockFft plan, on stream.queue().
absl::Status RunSsmConvFftCuda(const SsmConvPlan& plan, const SsmFftDeviceFilter& filter,
                               const SsmConvArgs& args, Stream& stream);

}  // namespace longwave

// Gemm on a GPU.
#pragma once

#include "kernels/gemm.h"

namespace longwave {

// What a call needs of Queue::Scratch: the normed x, of dtype, then the bias in out_dtype. Each
// starts at a multiple of 256.
struct GemmScratch {
  int64_t normed_bytes = 0, bias_bytes = 0, bytes = 0;
  GemmScratch(const GemmDesc& desc, bool with_norm) {
    const auto round = [](int64_t n) { return (n + 255) / 256 * 256; };
    if (with_norm) normed_bytes = round(desc.rows * desc.in * SizeOf(desc.dtype));
    if (desc.bias_dtype != desc.out_dtype) bias_bytes = round(desc.out * SizeOf(desc.out_dtype));
    bytes = normed_bytes + bias_bytes;
  }
};

// In scratch of GemmScratch(desc, args.norm != nullptr).bytes. Descriptor and arguments checked.
absl::Status RunGemmCuda(const GemmDesc& desc, const GemmArgs& args, void* scratch, Stream& stream);

// In place: x = activation(x + bias) on (major, minor), `stride` elements between majors; a bias,
// which may be null, along the majors or the minors, float32 or of x's type.
struct BiasActivation {
  void* x = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t major = 0, minor = 0, stride = 0;
  const void* bias = nullptr;
  Dtype bias_dtype = Dtype::kFloat32;
  bool bias_by_major = false;
  Activation activation = Activation::kNone;
};
absl::Status RunBiasActivationCuda(const BiasActivation& work, Stream& stream);

}  // namespace longwave

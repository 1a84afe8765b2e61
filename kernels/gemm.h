// Gemm: a linear layer over tokens, with what stands next to it fused: LayerNorm before, bias,
// activation or residual after.
//   out = epilogue(norm(x) W^T + bias)
// x (rows, in), W (out, in), both row major as PyTorch's Linear has them. Either side may instead
// be channel-major, x (in, rows) or out (out, rows): then no transpose touches memory.
//
// On the CPU: float32 through OpenBLAS, one tile of rows a thread; the result does not depend on
// the threads. On a GPU: cuBLASLt, bias, tanh GELU and accumulation in its epilogue where it has
// them (channel-major out has no bias there: one more pass over it), sums in float32 and without
// tf32; the first call of a shape asks the heuristic, later ones allocate nothing. Thread safety:
// Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"

namespace longwave {

enum class Layout { kTokenMajor, kChannelMajor };

struct GemmDesc {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  Layout in_layout = Layout::kTokenMajor;
  Layout out_layout = Layout::kTokenMajor;
  Activation activation = Activation::kNone;
  bool accumulate = false;  // out += ... : the residual. Not with an activation.
  // On the CPU all are float32.
  Dtype dtype = Dtype::kFloat32;       // weights and products
  Dtype in_dtype = Dtype::kFloat32;    // x: dtype, or with a norm float32, the residual stream
  Dtype out_dtype = Dtype::kFloat32;   // out: dtype or float32
  Dtype bias_dtype = Dtype::kFloat32;  // bias: float32, or out_dtype, which saves a launch on a GPU

  absl::Status Validate() const;
  std::string ToString() const;
  // Of Queue::Scratch, beside the workspace below.
  int64_t gpu_scratch_bytes(bool with_norm) const;
};

// What every queue that has run a Gemm keeps for cuBLASLt.
constexpr int64_t kGemmWorkspaceBytes = int64_t{32} << 20;

struct GemmArgs {
  const void* x = nullptr;
  int64_t x_stride = 0;                    // between rows, or between channels where channel-major
  const void* weight = nullptr;            // (out, in)
  const void* bias = nullptr;              // (out); null: none
  const LayerNormWeights* norm = nullptr;  // null: none. Token-major x only.
  void* out = nullptr;                     // may not overlap x
  int64_t out_stride = 0;
};

absl::Status RunGemm(const GemmDesc& desc, const GemmArgs& args, Stream& stream);

// One thread's product, C = A B (+ C), through OpenBLAS: for operators that tile themselves.
// A (m, k) or with trans_a (k, m); B (k, n) or with trans_b (n, k). Row major.
void Sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
           const float* b, int64_t ldb, bool accumulate, float* c, int64_t ldc);

}  // namespace longwave

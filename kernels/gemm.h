// Gemm: a linear layer over tokens, with what stands next to it fused: LayerNorm before, bias,
// activation or residual after.
//   out = epilogue(norm(x) W^T + bias)
// x (rows, in), W (out, in), both row major as PyTorch's Linear has them. Either side may instead
// be channel-major, x (in, rows) or out (out, rows): then no transpose touches memory.
//
// Float32, through OpenBLAS, one tile of rows a thread; the result does not depend on the threads.
// Thread safety: Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
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

  absl::Status Validate() const;
  std::string ToString() const;
};

struct GemmArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;                    // between rows, or between channels where channel-major
  const float* weight = nullptr;           // (out, in)
  const float* bias = nullptr;             // (out); null: none
  const LayerNormWeights* norm = nullptr;  // null: none. Token-major x only.
  float* out = nullptr;                    // may not overlap x
  int64_t out_stride = 0;
};

absl::Status RunGemm(const GemmDesc& desc, const GemmArgs& args, Stream& stream);

// One thread's product, C = A B (+ C), through OpenBLAS: for operators that tile themselves.
// A (m, k) or with trans_a (k, m); B (k, n) or with trans_b (n, k). Row major.
void Sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
           const float* b, int64_t ldb, bool accumulate, float* c, int64_t ldc);

}  // namespace longwave

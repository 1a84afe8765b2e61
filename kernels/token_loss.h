// TokenLoss: the output projection and the negative log-likelihood of given tokens, fused: at no
// time is there an array of (rows x vocabulary), only tiles of it.
//   nll[r] = log sum_v exp(h[r] . E[v]) - h[r] . E[target[r]]      (nats)
//
// On a GPU hidden and embedding are of desc.dtype and the logits of a tile are float32: a logit of
// -100 in bfloat16 would be off by 0.2 and the mean loss by more than 1e-3 nats.
//
// Thread safety: Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/stream.h"

namespace longwave {

struct TokenLossDesc {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t vocab = 0;
  Dtype dtype = Dtype::kFloat32;

  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;     // for each thread of the CPU
  int64_t gpu_scratch_bytes() const;  // of Queue::Scratch: 32 MiB and a little at most
};

struct TokenLossArgs {
  const void* hidden = nullptr;      // (rows, width)
  const void* embedding = nullptr;   // (vocab, width)
  const int32_t* targets = nullptr;  // (rows), each in [0, vocab)
  float* nll = nullptr;              // (rows)
};

absl::Status RunTokenLoss(const TokenLossDesc& desc, const TokenLossArgs& args, Stream& stream);

}  // namespace longwave

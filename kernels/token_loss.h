// TokenLoss: the output projection and the negative log-likelihood of given tokens, fused: at no
// time is there an array of (rows x vocabulary), only tiles of it.
//   nll[r] = log sum_v exp(h[r] . E[v]) - h[r] . E[target[r]]      (nats)
//
// Thread safety: Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/stream.h"

namespace longwave {

struct TokenLossDesc {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t vocab = 0;

  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;  // for each thread
};

struct TokenLossArgs {
  const float* hidden = nullptr;     // (rows, width)
  const float* embedding = nullptr;  // (vocab, width)
  const int32_t* targets = nullptr;  // (rows), each in [0, vocab)
  float* nll = nullptr;              // (rows)
};

absl::Status RunTokenLoss(const TokenLossDesc& desc, const TokenLossArgs& args, Stream& stream);

}  // namespace longwave

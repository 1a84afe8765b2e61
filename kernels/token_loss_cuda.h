// TokenLoss on a GPU.
#pragma once

#include "kernels/token_loss.h"

namespace longwave {

// Tiles of float32 logits that stay in the second-level cache (32 MiB of an H100's 50), between the
// product that writes them and the pass that reads them.
struct TokenLossCudaPlan {
  int64_t rows = 0, vocab = 0;  // of a tile
  int64_t logit_bytes = 0;      // Queue::Scratch: the tile, then (max, sum, target) of its rows
  int64_t scratch_bytes = 0;
};
TokenLossCudaPlan PlanTokenLossCuda(const TokenLossDesc& desc);

absl::Status RunTokenLossCuda(const TokenLossDesc& desc, const TokenLossArgs& args, Stream& stream);

}  // namespace longwave

// Attention on a GPU.
#pragma once

#include "kernels/attention.h"

namespace longwave {

struct AttentionCudaPlan {
  bool tiles = false;         // tensor-core tiles; otherwise the cache is split between blocks
  int padded_dim = 0;         // head_dim as the kernel has it
  int64_t splits = 1;         // of the cache, without tiles
  int64_t scratch_bytes = 0;  // Queue::Scratch: (sum (head_dim), max, weight) of each split
};
// Tiles need qkv and out aligned to 4 bytes.
AttentionCudaPlan PlanAttentionCuda(const AttentionDesc& desc, const Device& device,
                                    bool aligned = true);

absl::Status RunAttentionCuda(const AttentionDesc& desc, void* qkv, KvCache& cache, void* out,
                              const int64_t* position, Stream& stream);

}  // namespace longwave

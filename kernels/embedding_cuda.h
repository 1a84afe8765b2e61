// Embedding lookup and its companions on a GPU.
#pragma once

#include "kernels/embedding.h"

namespace longwave {

absl::Status RunEmbeddingCuda(int64_t rows, int64_t width, int64_t vocab, Dtype dtype,
                              const void* table, const int32_t* tokens, float* x, Stream& stream);
absl::Status RunArgmaxCuda(int64_t rows, int64_t vocab, const ArgmaxArgs& args, Stream& stream);
absl::Status RunAdvanceCuda(int64_t* counter, int64_t by, Stream& stream);

}  // namespace longwave

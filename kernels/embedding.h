// Embedding lookup, and what a loop of generated tokens needs beside it: all of it queued work on a
// GPU, so that a CUDA graph may hold a whole step: hidden rows -> logits (RunGemm) -> RunArgmax ->
// RunEmbedding of the next.
//
// Thread safety: free functions without state.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "kernels/stream.h"

namespace longwave {

// x[r] = table[tokens[r]], with x (rows, width) float32, the residual stream, and table (vocab,
// width) of `dtype` (on the CPU float32). On a GPU a token outside [0, vocab) gives a row of NaN;
// on the CPU it is an InvalidArgument.
absl::Status RunEmbedding(int64_t rows, int64_t width, int64_t vocab, Dtype dtype,
                          const void* table, const int32_t* tokens, float* x, Stream& stream);

// out[i] = x[first + i * step], rows of `width` of `dtype`: the last token of each sequence of a
// batch, say.
absl::Status RunGatherRows(int64_t count, int64_t width, Dtype dtype, const void* x, int64_t first,
                           int64_t step, void* out, Stream& stream);

struct ArgmaxArgs {
  const float* logits = nullptr;  // (rows, vocab), `stride` floats between rows
  int64_t stride = 0;
  int32_t* tokens = nullptr;  // (rows): the first of the largest; NaN never wins
  // Where not null, tokens also go to history[row * history_stride + *step].
  int32_t* history = nullptr;
  int64_t history_stride = 0;
  const int64_t* step = nullptr;  // in the device's memory
};
absl::Status RunArgmax(int64_t rows, int64_t vocab, const ArgmaxArgs& args, Stream& stream);

// *counter += by, in the device's memory: positions and steps that a graph counts itself.
absl::Status RunAdvance(int64_t* counter, int64_t by, Stream& stream);

}  // namespace longwave

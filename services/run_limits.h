// What is refused before it begins, with the numbers that say why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/npy.h"
#include "formats/token_input.h"
#include "scheduler/job.h"
#include "worker/model/model.h"

namespace longwave {

// Token tasks need a language model, transform a stack of layers.
absl::Status CheckTaskSuits(const Model& model, Task task);
// Bytes are tokens only of a model that says so.
absl::Status CheckTokenizer(const Model& model, const TokenInput& input);
// Attention's caches for a sequence of `tokens`.
absl::Status CheckCacheFits(const Model& model, int64_t tokens, int64_t budget_bytes);
// A chunk's arrays in this machine's memory.
absl::Status CheckChunkFits(const Model& model, int64_t chunk, int threads, int64_t memory_bytes);
// A GPU's chunk: `chunk`, or the longest half, quarter, ... of it whose arrays fit into
// `memory_bytes`. ResourceExhausted, with the numbers, where not even one token does.
absl::StatusOr<int64_t> ChunkThatFits(const Model& model, int64_t chunk, int64_t memory_bytes);

// What transform reads: (rows, d_model), or (batch, rows, d_model).
struct SignalShape {
  int64_t rows = 0;
  std::optional<int64_t> batch;
};
absl::StatusOr<SignalShape> ShapeOfSignal(const std::string& name, const NpyHeader& header,
                                          int64_t d_model);

}  // namespace longwave

#include "services/run_limits.h"

#include "absl/strings/str_cat.h"
#include "formats/shape.h"
#include "services/text.h"

namespace longwave {

absl::Status CheckTaskSuits(const Model& model, Task task) {
  const bool has_tokens = model.config().vocab_size > 0;
  if (task == Task::kTransform && has_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("model ", model.folder(),
                                                   " is a language model: transform needs a stack "
                                                   "of layers over float32 values"));
  }
  if (task != Task::kTransform && !has_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model ", model.folder(), " is a stack of layers without a vocabulary: ", Name(task),
        " needs a language model"));
  }
  return absl::OkStatus();
}

absl::Status CheckTokenizer(const Model& model, const TokenInput& input) {
  if (!input.tokens_are_bytes() || model.config().tokenizer == "bytes") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model ", model.folder(), " has no tokenizer; give token ids as .npy"));
}

absl::StatusOr<SignalShape> ShapeOfSignal(const std::string& name, const NpyHeader& header,
                                          int64_t d_model) {
  const std::vector<int64_t>& shape = header.shape;
  const bool floats = header.type == NpyType::kFloat32;
  if (!floats || (shape.size() != 2 && shape.size() != 3) || shape.back() != d_model) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": transform needs float32 of shape (L, ", d_model, ") or (batch, L, ", d_model,
        "), this is ", floats ? "float32" : "integers", " of ", ShapeString(shape)));
  }
  SignalShape signal{shape[shape.size() - 2], std::nullopt};
  if (shape.size() == 3) signal.batch = shape[0];
  if (signal.rows * signal.batch.value_or(1) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": empty: its shape is ", ShapeString(shape)));
  }
  return signal;
}

absl::Status CheckCacheFits(const Model& model, int64_t tokens, int64_t budget_bytes) {
  if (model.attention_layers() == 0) return absl::OkStatus();
  // A token takes a byte at the very least; without this the product could overflow.
  const bool countable = tokens <= budget_bytes;
  if (countable && model.cache_bytes(tokens) <= budget_bytes) return absl::OkStatus();
  constexpr int64_t kMany = 1 << 20;  // caches grow by pages: one token would say too much
  return absl::ResourceExhaustedError(
      absl::StrCat("attention's caches for ", tokens, " tokens need ",
                   countable ? absl::StrCat(model.cache_bytes(tokens)) : "far more",
                   " bytes, the budget is ", budget_bytes, ", enough for about ",
                   budget_bytes / (model.cache_bytes(kMany) / kMany), " tokens (--cache-budget)"));
}

absl::Status CheckChunkFits(const Model& model, int64_t chunk, int threads, int64_t memory_bytes) {
  // A token takes four bytes at the very least; without this the product below could overflow.
  int64_t needed = -1;
  if (chunk <= memory_bytes / 4) {
    needed = model.workspace_bytes(chunk, threads);
    if (needed <= memory_bytes) return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("--chunk ", chunk, " needs ", needed < 0 ? "more" : HumanBytes(needed),
                   needed < 0 ? " memory than the " : " of memory and this machine has ",
                   HumanBytes(memory_bytes), needed < 0 ? " of this machine" : ""));
}

absl::StatusOr<int64_t> ChunkThatFits(const Model& model, int64_t chunk, int64_t memory_bytes) {
  for (int64_t fits = chunk; fits > 0; fits /= 2) {
    // A token takes four bytes at the very least; without this the product could overflow.
    if (fits <= memory_bytes / 4 && model.workspace_bytes(fits, 0) <= memory_bytes) return fits;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("one token needs ", HumanBytes(model.workspace_bytes(1, 0)), " of memory and ",
                   model.device().ToString(), " has ", HumanBytes(memory_bytes), " left"));
}

}  // namespace longwave

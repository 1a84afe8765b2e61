#include "worker/executor/sequence_runner.h"

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
#include "kernels/token_loss.h"

namespace longwave {
namespace {

absl::Status CheckCount(const char* call, size_t count, int64_t most) {
  return CheckRange(call, "tokens", static_cast<int64_t>(count), 1, most);
}

}  // namespace

SequenceRunner::SequenceRunner(std::shared_ptr<const Model> model, const RunnerOptions& options,
                               ThreadPool* pool)
    : model_(std::move(model)), options_(options), stream_(pool) {
  workspace_ = model_->NewWorkspace(options.chunk);
  state_ = model_->NewState();
  if (model_->config().type == ModelConfig::Type::kH3) {
    hidden_.resize(options.chunk * model_->config().d_model);
  }
}

absl::StatusOr<std::unique_ptr<SequenceRunner>> SequenceRunner::Create(
    std::shared_ptr<const Model> model, const RunnerOptions& options, ThreadPool* pool) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("run", "chunk", options.chunk, 1, int64_t{1} << 32));
  return std::unique_ptr<SequenceRunner>(new SequenceRunner(std::move(model), options, pool));
}

void SequenceRunner::Reset() {
  state_.position = 0;
  for (std::vector<float>& tensor : state_.tensors) std::fill(tensor.begin(), tensor.end(), 0.0f);
  for (KvCache& cache : state_.caches) cache.Clear();
  hidden_size_ = 0;
}

absl::Status SequenceRunner::CheckTokens(absl::Span<const int32_t> tokens,
                                         int64_t first_position) const {
  const int64_t vocab = model_->config().vocab_size;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token id ", tokens[i], " at position ",
                                                     first_position + static_cast<int64_t>(i),
                                                     " is outside the vocabulary of ", vocab));
    }
  }
  return absl::OkStatus();
}

absl::Status SequenceRunner::CheckCache(int64_t tokens) const {
  if (model_->attention_layers() == 0) return absl::OkStatus();
  const int64_t needed = model_->cache_bytes(state_.position + tokens);
  if (needed <= options_.cache_budget_bytes) return absl::OkStatus();
  const int64_t page = model_->cache_bytes(1);
  return absl::ResourceExhaustedError(absl::StrCat(
      "the attention layers' caches need ", needed, " bytes at ", state_.position + tokens,
      " tokens; the budget is ", options_.cache_budget_bytes, " bytes, enough for ",
      options_.cache_budget_bytes / page * KvCache::kPageTokens, " tokens"));
}

absl::Status SequenceRunner::Forward(absl::Span<const int32_t> tokens) {
  if (model_->config().type != ModelConfig::Type::kH3) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_->folder(), " takes signals, not tokens: use the task transform"));
  }
  LONGWAVE_RETURN_IF_ERROR(CheckCount("forward", tokens.size(), options_.chunk));
  LONGWAVE_RETURN_IF_ERROR(CheckTokens(tokens, state_.position));
  LONGWAVE_RETURN_IF_ERROR(CheckCache(static_cast<int64_t>(tokens.size())));
  LONGWAVE_RETURN_IF_ERROR(model_->Forward(tokens, state_, workspace_, stream_, hidden_.data()));
  hidden_size_ = tokens.size() * static_cast<size_t>(model_->config().d_model);
  return absl::OkStatus();
}

absl::Status SequenceRunner::TokenLoss(absl::Span<const int32_t> targets, absl::Span<float> nll) {
  const int64_t d = model_->config().d_model;
  const int64_t rows = static_cast<int64_t>(hidden_size_) / std::max<int64_t>(d, 1);
  LONGWAVE_RETURN_IF_ERROR(CheckCount("loss", targets.size(), rows));
  LONGWAVE_RETURN_IF_ERROR(CheckTokens(targets, state_.position - rows + 1));
  return RunTokenLoss({static_cast<int64_t>(targets.size()), d, model_->config().vocab_size},
                      {hidden_.data(), model_->embedding(), targets.data(), nll.data()}, stream_);
}

absl::Status SequenceRunner::Logits(int64_t first, int64_t rows, absl::Span<float> out) {
  const int64_t d = model_->config().d_model, vocab = model_->config().vocab_size;
  const int64_t seen = static_cast<int64_t>(hidden_size_) / d;
  LONGWAVE_RETURN_IF_ERROR(CheckRange("logits", "first", first, 0, seen));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("logits", "rows", rows, 1, seen - first));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("logits", "out", static_cast<int64_t>(out.size()), rows * vocab, rows * vocab));
  return RunGemm({.rows = rows, .in = d, .out = vocab},
                 {.x = hidden_.data() + first * d,
                  .x_stride = d,
                  .weight = model_->embedding(),
                  .out = out.data(),
                  .out_stride = vocab},
                 stream_);
}

absl::Status SequenceRunner::Transform(absl::Span<const float> x, absl::Span<float> y) {
  const int64_t d = model_->config().d_model;
  if (model_->config().type != ModelConfig::Type::kS4d) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_->folder(), " takes tokens, not signals: use another task"));
  }
  LONGWAVE_RETURN_IF_ERROR(CheckCount("transform", x.size() / d, options_.chunk));
  if (x.size() % d != 0 || y.size() != x.size()) {
    return absl::InvalidArgumentError(absl::StrCat("transform: ", x.size(), " values in and ",
                                                   y.size(), " out, not rows of ", d));
  }
  return model_->Transform(x.data(), static_cast<int64_t>(x.size()) / d, state_, workspace_,
                           stream_, y.data());
}

}  // namespace longwave

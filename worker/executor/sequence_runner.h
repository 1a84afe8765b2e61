// One sequence's way through a model, chunk by chunk: state, workspace and the model's pass over a
// chunk. What depends on the chunk length is allocated once, by Create(), the threads' scratch by
// the first Forward; attention's caches alone grow with the sequence.
//
// Thread safety: one caller at a time. Runners of one model may run side by side, each with its own
// Stream; the model's weights are shared.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/stream.h"
#include "worker/model/model.h"

namespace longwave {

struct RunnerOptions {
  int64_t chunk = 0;  // the most tokens one Forward takes
  // Attention's caches may take this much together; a Forward beyond it is ResourceExhausted and
  // names both numbers and how many tokens would fit.
  int64_t cache_budget_bytes = int64_t{8} << 30;
};

class SequenceRunner {
 public:
  static absl::StatusOr<std::unique_ptr<SequenceRunner>> Create(std::shared_ptr<const Model> model,
                                                                const RunnerOptions& options,
                                                                ThreadPool* pool);

  // A new sequence: position 0, state zero.
  void Reset();
  int64_t position() const { return state_.position; }  // tokens seen
  const Model& model() const { return *model_; }

  // Language models: 1 to chunk tokens, after those before. InvalidArgument for an id outside the
  // vocabulary, with the id and its position in the sequence; the state is then as it was.
  absl::Status Forward(absl::Span<const int32_t> tokens);
  // After Forward: (tokens, d_model) after the last norm, one row for each token of that chunk.
  absl::Span<const float> hidden() const { return {hidden_.data(), hidden_size_}; }
  // After Forward: nll[i] = -log p(targets[i] | the tokens up to row i), nats. At most as many
  // targets as the chunk had tokens; checked like tokens, as following them.
  absl::Status TokenLoss(absl::Span<const int32_t> targets, absl::Span<float> nll);
  // After Forward: logits of rows [first, first + rows): out is (rows, vocab).
  absl::Status Logits(int64_t first, int64_t rows, absl::Span<float> out);

  // Layer stacks over real signals (S4D): x (rows, d_model) in, y (rows, d_model) out, rows <=
  // chunk.
  absl::Status Transform(absl::Span<const float> x, absl::Span<float> y);

 private:
  SequenceRunner(std::shared_ptr<const Model> model, const RunnerOptions& options,
                 ThreadPool* pool);
  absl::Status CheckTokens(absl::Span<const int32_t> tokens, int64_t first_position) const;
  absl::Status CheckCache(int64_t tokens) const;

  std::shared_ptr<const Model> model_;
  RunnerOptions options_;
  Stream stream_;
  Workspace workspace_;
  ModelState state_;
  std::vector<float> hidden_;
  size_t hidden_size_ = 0;
};

}  // namespace longwave

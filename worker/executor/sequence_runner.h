// One sequence's way through a model, chunk by chunk, or that of a batch of sequences of one
// length: state, workspace and the model's pass over a chunk. What depends on the chunk length is
// allocated once, by Create(), the threads' scratch by the first Forward; attention's caches alone
// grow with the sequence.
//
// On a GPU Forward() and StartTokenLoss() are queued and return; what gives values waits for them,
// and says what went wrong on the way. Steps of one token are recorded once as a CUDA graph, from
// the embedding to the most probable next token, and replayed.
//
// Thread safety: one caller at a time. Runners of one model may run side by side, each with its own
// Stream; the model's weights are shared.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/gpu/async.h"
#include "kernels/stream.h"
#include "worker/executor/transfers.h"
#include "worker/model/model.h"

namespace longwave {

struct RunnerOptions {
  int64_t chunk = 0;  // the most tokens of a sequence that one Forward takes
  // Attention's caches may take this much together; a Forward beyond it is ResourceExhausted and
  // names both numbers and how many tokens would fit.
  int64_t cache_budget_bytes = int64_t{8} << 30;
  int64_t batch = 1;         // sequences; on the CPU, 1 for a model with attention
  int64_t cache_tokens = 0;  // on a GPU: room in the caches from the start
};

class SequenceRunner {
 public:
  // Runs on the model's device.
  static absl::StatusOr<std::unique_ptr<SequenceRunner>> Create(std::shared_ptr<const Model> model,
                                                                const RunnerOptions& options,
                                                                ThreadPool* pool);

  // New sequences: position 0, state zero.
  void Reset();
  int64_t position() const { return state_.position; }  // tokens seen, of each sequence
  const Model& model() const { return *model_; }

  // Language models: n tokens of each sequence, 1 to chunk, (batch, n), after those before.
  // InvalidArgument for an id outside the vocabulary, with the id and its position in the sequence;
  // the state is then as it was.
  // `flow`: where the states of this chunk come from and go to, see there; null: from the chunk
  // before, in this runner. After an error from the flow only Reset, Resume and Seek make sense.
  absl::Status Forward(absl::Span<const int32_t> tokens, StateFlow* flow = nullptr);
  // After Forward: (batch x n, d_model) after the last norm, one row for each token of that chunk.
  // Valid until the next call.
  absl::StatusOr<absl::Span<const float>> hidden();
  // After Forward: nll[i] = -log p(targets[i] | the tokens up to row i), nats. One sequence: at
  // most as many targets as the chunk had tokens; several: as many. Checked like tokens, as
  // following them.
  absl::Status TokenLoss(absl::Span<const int32_t> targets, absl::Span<float> nll);
  // The same in two halves: what was started first is taken first, and up to two may be under way
  // while the next chunk goes on. What is taken is valid until two more were started.
  absl::Status StartTokenLoss(absl::Span<const int32_t> targets);
  absl::StatusOr<absl::Span<const float>> TakeTokenLoss();
  int64_t losses_pending() const { return losses_.pending(); }
  // How many may be pending to good purpose while the next chunk is queued: 0 on the CPU.
  int64_t losses_ahead() const { return model_->device().is_gpu() ? 1 : 0; }
  // After Forward: logits of rows [first, first + rows): out is (rows, vocab).
  absl::Status Logits(int64_t first, int64_t rows, absl::Span<float> out);

  // After Forward: the most probable continuation of each sequence, token by token: out (batch,
  // count). The runner has then seen all of them but the last.
  absl::Status Greedy(int64_t count, absl::Span<int32_t> out);

  // Layer stacks over real signals (S4D): x (batch x n, d_model) in, y of the same shape out, n <=
  // chunk.
  absl::Status Transform(absl::Span<const float> x, absl::Span<float> y, StateFlow* flow = nullptr);

  // The state's tensors, for whoever moves or stores them; position and caches stay.
  absl::StatusOr<HostState> ExportState() { return model_->ExportState(state_, stream_); }
  absl::Status ImportState(const HostState& host) {
    return model_->ImportState(host, state_, stream_);
  }

  // Attention's caches, one for each such layer: of the tokens from `first` on, and back behind
  // those that are there.
  absl::StatusOr<std::vector<CacheRows>> ExportCaches(int64_t first);
  absl::Status AppendCaches(const std::vector<CacheRows>& caches);

  // A sequence goes on where ExportState() was called, perhaps in another process, after `position`
  // tokens. FailedPrecondition for a model with attention, whose caches are not in the state.
  absl::Status Resume(int64_t position, const HostState& host);

  // The same where the states come with a StateFlow, or with ImportState(): what comes next are the
  // tokens after `position`. Losses that are under way may be taken all the same.
  // FailedPrecondition unless attention's caches hold `position` tokens; 0 empties them.
  absl::Status Seek(int64_t position);

  // Until all that was queued is done.
  absl::Status Synchronize();
  // From now on the parts of each pass are marked; null: no more. Steps are then not replayed.
  void set_timer(PartTimer* timer) { timer_ = timer; }

 private:
  SequenceRunner(std::shared_ptr<const Model> model, const RunnerOptions& options, ThreadPool* pool,
                 std::unique_ptr<gpu::Queue> queue);
  absl::Status Allocate();
  bool on_gpu() const { return model_->device().is_gpu(); }
  int64_t rows() const { return options_.batch * length_; }
  absl::Status CheckTokens(absl::Span<const int32_t> tokens, int64_t first_position) const;
  absl::Status CheckCache(int64_t tokens) const;
  // logits_ = those of `rows` rows of the hidden states, `stride` rows apart.
  absl::Status QueueLogits(int64_t first, int64_t stride, int64_t rows, float* out);
  // A GPU's step of one token for each sequence, from tokens_ on the device to the next ones there.
  absl::Status Step();
  absl::Status QueueStep();

  std::shared_ptr<const Model> model_;
  RunnerOptions options_;
  Stream stream_;
  Workspace workspace_;
  ModelState state_;
  Array hidden_;                    // (batch x chunk, d_model) of the model's dtype
  std::vector<float> host_hidden_;  // the same on the host, for a GPU's callers
  int64_t length_ = 0;              // tokens of each sequence in the last Forward; 0: none
  TokenUpload tokens_, targets_;
  LossDownload losses_;
  PartTimer* timer_ = nullptr;
  absl::Status reset_;  // of Reset()

  // On a GPU
  Array logits_;
  int64_t logits_rows_ = 0;  // that logits_ has room for
  gpu::Graph step_;
  std::vector<const void*> step_memory_;  // what step_ was recorded with, and may move
  Array step_position_;                   // int64: the position of the next step
  int64_t host_step_position_ = -1;       // what stands there
  bool stepped_ = false;  // the last Forward was a step: logits_ and tokens_ are of its next token
};

}  // namespace longwave

// Tasks: what is made of a sequence as it goes through a model.
//
// The unit of work is one chunk: tokens, the one token after them, the state and the task's carry
// in; values, state and carry out. The state comes and goes while the model runs (StateFlow), the
// carry is wanted only then. RunSequence() does the chunks of a sequence one after another in this
// process; who has state and carry can do any chunk elsewhere.
//
// Everything streams: memory does not grow with the sequence.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/npy.h"
#include "formats/token_input.h"
#include "worker/executor/sampler.h"
#include "worker/executor/sequence_runner.h"

namespace longwave {

// Takes values in the order of the output. An error stops the task and is passed on.
using FloatSink = absl::FunctionRef<absl::Status(absl::Span<const float>)>;
using TokenSink = std::function<absl::Status(int32_t)>;
// Called after each chunk with the sequence's tokens so far. An error stops the task and is passed
// on.
using ProgressFn = absl::FunctionRef<absl::Status(int64_t tokens)>;

struct TokenChunk {
  absl::Span<const int32_t> tokens;  // at least one, but for what is said below
  std::optional<int32_t> lookahead;  // the token after them; none: those that are given end here
  absl::Span<const float> rows;      // transform: (n, d_model), in place of tokens
  int64_t steps = 0;                 // generate: tokens to be run after them, each made before
};

class ChunkTask {
 public:
  virtual ~ChunkTask() = default;
  // The model over one chunk. REQUIRES: the runner stands where the chunk starts, or `flow` brings
  // the state.
  virtual absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner,
                               StateFlow* flow = nullptr) = 0;
  // After Forward of the same chunk: its values. REQUIRES: carry() as the chunk before left it.
  // They and the carry may lag behind by a chunk while a device works: Flush() fetches what is
  // under way. A sequence's last chunk does so itself.
  virtual absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) = 0;
  virtual absl::Status Flush(SequenceRunner& runner, FloatSink sink) { return absl::OkStatus(); }
  // Whether Values() and Flush() may run on another thread while the runner is at the next chunk's
  // Forward(), before the carry is known: it is a sum, to be added afterwards.
  virtual bool overlaps() const { return false; }
  // What the task hands on from chunk to chunk beside the model's state, always as many numbers;
  // all zero before the first chunk.
  absl::Span<double> carry() { return absl::MakeSpan(carry_); }
  void Reset() { carry_.assign(carry_.size(), 0.0); }
  // Of the output of a sequence of `length` tokens.
  virtual std::vector<int64_t> OutputShape(int64_t length) const = 0;

 protected:
  explicit ChunkTask(int64_t carry) : carry_(carry) {}
  std::vector<double> carry_;
};

// Negative log-likelihood in nats of each token given all before it: (length), entry 0 NaN. Chunk k
// gives the entries one token late, [k c + 1, (k + 1) c], and chunk 0 entry 0 as well: an entry
// needs the hidden state of the token before.
class ScoreTask final : public ChunkTask {
 public:
  explicit ScoreTask(int64_t chunk) : ChunkTask(1), targets_(chunk) {}
  absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) override;
  absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) override;
  absl::Status Flush(SequenceRunner& runner, FloatSink sink) override {
    return Take(0, runner, sink);
  }
  bool overlaps() const override { return true; }
  std::vector<int64_t> OutputShape(int64_t length) const override { return {length}; }
  double total_nats() const { return carry_[0]; }  // over length - 1 tokens

 private:
  // Losses that this task started, until only `left` of them are under way.
  absl::Status Take(int64_t left, SequenceRunner& runner, FloatSink sink);
  std::vector<int32_t> targets_;
  bool first_ = false;   // the present chunk is the sequence's first
  int64_t pending_ = 0;  // losses started
};

// Mean of the last hidden states (after ln_f) over each `window` tokens, the last window perhaps
// shorter: (ceil(length / window), d_model). Windows cross the borders of chunks.
class EmbedTask final : public ChunkTask {
 public:
  EmbedTask(int64_t d_model, int64_t window)
      : ChunkTask(d_model + 1), window_(window), mean_(d_model) {}
  absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) override;
  absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) override;
  std::vector<int64_t> OutputShape(int64_t length) const override;

 private:
  absl::Status EndWindow(FloatSink sink);
  int64_t window_;
  std::vector<float> mean_;
};

// All logits: (length, vocab). Refuses a chunk that would take the sequence's past `max_elements`.
class LogitsTask final : public ChunkTask {
 public:
  LogitsTask(int64_t vocab, int64_t max_elements);
  absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) override;
  absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) override;
  std::vector<int64_t> OutputShape(int64_t length) const override { return {length, vocab_}; }
  // Whether `tokens` tokens may be asked for: names the limit, tokens and vocabulary.
  absl::Status Check(int64_t tokens) const;

 private:
  int64_t vocab_, max_elements_;
  std::vector<float> rows_;
};

// float32 rows through a stack of layers: (length, d_model).
class TransformTask final : public ChunkTask {
 public:
  explicit TransformTask(int64_t d_model) : ChunkTask(0), d_model_(d_model) {}
  absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) override;
  absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) override;
  std::vector<int64_t> OutputShape(int64_t length) const override { return {length, d_model_}; }

 private:
  int64_t d_model_;
  std::vector<float> y_;
};
// InvalidArgument names a value that is not finite; `first_row`: that of values[0].
absl::Status CheckFinite(absl::Span<const float> values, int64_t first_row, int64_t width);

// Continues a prompt token by token: (max_new_tokens). The sequence is the prompt and all tokens
// made but the last, which needs no pass; each token goes to `made` at once, none to the float
// sink. The carry is the last token made and how many there are.
class GenerateTask final : public ChunkTask {
 public:
  GenerateTask(const SamplerOptions& options, int64_t vocab, int64_t max_new_tokens, TokenSink made)
      : ChunkTask(2),
        options_(options),
        sampler_(options),
        max_new_tokens_(max_new_tokens),
        made_(std::move(made)),
        logits_(vocab) {}
  absl::Status Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) override;
  absl::Status Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) override;
  std::vector<int64_t> OutputShape(int64_t length) const override { return {max_new_tokens_}; }

 private:
  // The next token, after the last of the `rows` that the runner saw at last.
  absl::Status Make(int64_t rows, SequenceRunner& runner);
  const SamplerOptions options_;
  Sampler sampler_;
  int64_t sampled_ = 0;  // by sampler_
  int64_t max_new_tokens_;
  TokenSink made_;
  std::vector<float> logits_;
};

// The rest of the present sequence of `input`, from where `runner` and `task` stand, which is where
// `input` goes on and a chunk starts; returns how many tokens it has. `steps`: generate's, after
// those.
absl::StatusOr<int64_t> ContinueSequence(ChunkTask& task, SequenceRunner& runner, TokenInput& input,
                                         int64_t chunk, FloatSink sink, ProgressFn progress,
                                         int64_t steps = 0);
// The same from the sequence's start.
absl::StatusOr<int64_t> RunSequence(ChunkTask& task, SequenceRunner& runner, TokenInput& input,
                                    int64_t chunk, FloatSink sink, ProgressFn progress,
                                    int64_t steps = 0);

// `rows` rows of a float32 array through a stack of layers, from a zero state.
absl::Status RunTransform(SequenceRunner& runner, NpyReader& input, int64_t rows, int64_t chunk,
                          FloatSink sink, ProgressFn progress);

}  // namespace longwave

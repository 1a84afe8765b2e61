#include "worker/executor/tasks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

// Logits are made so many at a time: 4 MiB.
constexpr int64_t kLogitsTile = int64_t{1} << 20;

int64_t Size(absl::Span<const int32_t> tokens) { return static_cast<int64_t>(tokens.size()); }

// Cuts the present sequence into chunks, reading one token further than the chunk it gives.
class ChunkReader {
 public:
  // `steps` more tokens follow those of the input, and are made.
  ChunkReader(TokenInput& input, int64_t chunk, int64_t steps)
      : input_(input), chunk_(chunk), steps_(steps), buffer_(chunk + 1) {}

  // Neither tokens nor steps: the end.
  absl::StatusOr<TokenChunk> Next() {
    if (more_) buffer_[0] = buffer_[chunk_];
    const int64_t kept = more_ ? 1 : 0;
    absl::StatusOr<int64_t> got = input_.Read(absl::MakeSpan(buffer_).subspan(kept));
    if (!got.ok()) return got.status();
    const int64_t tokens = kept + *got;
    more_ = tokens > chunk_;
    TokenChunk chunk;
    chunk.tokens = absl::MakeConstSpan(buffer_).subspan(0, std::min(tokens, chunk_));
    if (more_) {
      chunk.lookahead = buffer_[chunk_];
    } else {
      chunk.steps = std::min(steps_, chunk_ - tokens);
      steps_ -= chunk.steps;
    }
    return chunk;
  }

 private:
  TokenInput& input_;
  int64_t chunk_, steps_;
  std::vector<int32_t> buffer_;
  bool more_ = false;  // buffer_[chunk_] holds the next chunk's first token
};

}  // namespace

absl::Status ScoreTask::Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) {
  first_ = runner.position() == 0;
  absl::Status status = runner.Forward(chunk.tokens, flow);
  if (!status.ok()) return status;
  auto end = std::copy(chunk.tokens.begin() + 1, chunk.tokens.end(), targets_.begin());
  if (chunk.lookahead.has_value()) *end++ = *chunk.lookahead;
  const size_t count = end - targets_.begin();
  if (count == 0) return absl::OkStatus();  // a last chunk of one token
  ++pending_;
  return runner.StartTokenLoss(absl::MakeSpan(targets_).first(count));
}

absl::Status ScoreTask::Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) {
  if (first_) {
    const float none = std::numeric_limits<float>::quiet_NaN();
    absl::Status sent = sink({&none, 1});
    if (!sent.ok()) return sent;
  }
  // While a device works on this chunk, the losses of the one before.
  return Take(chunk.lookahead.has_value() ? runner.losses_ahead() : 0, runner, sink);
}

absl::Status ScoreTask::Take(int64_t left, SequenceRunner& runner, FloatSink sink) {
  while (pending_ > left) {
    --pending_;
    const absl::StatusOr<absl::Span<const float>> nll = runner.TakeTokenLoss();
    if (!nll.ok()) return nll.status();
    for (float value : *nll) carry_[0] += value;
    absl::Status sent = sink(*nll);
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

absl::Status EmbedTask::EndWindow(FloatSink sink) {
  double& tokens = carry_.back();
  for (size_t i = 0; i < mean_.size(); ++i) mean_[i] = static_cast<float>(carry_[i] / tokens);
  Reset();
  return sink(mean_);
}

absl::Status EmbedTask::Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) {
  return runner.Forward(chunk.tokens, flow);
}

absl::Status EmbedTask::Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) {
  absl::Status status;
  const absl::StatusOr<absl::Span<const float>> hidden = runner.hidden();
  if (!hidden.ok()) return hidden.status();
  const float* row = hidden->data();
  for (int64_t t = 0; t < Size(chunk.tokens); ++t, row += mean_.size()) {
    for (size_t i = 0; i < mean_.size(); ++i) carry_[i] += row[i];
    carry_.back() += 1;
    const bool last = t + 1 == Size(chunk.tokens) && !chunk.lookahead.has_value();
    if (last || carry_.back() >= static_cast<double>(window_)) {
      status = EndWindow(sink);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

std::vector<int64_t> EmbedTask::OutputShape(int64_t length) const {
  return {length / window_ + (length % window_ != 0), static_cast<int64_t>(mean_.size())};
}

LogitsTask::LogitsTask(int64_t vocab, int64_t max_elements)
    : ChunkTask(0),
      vocab_(vocab),
      max_elements_(max_elements),
      rows_(std::max(vocab, kLogitsTile / vocab * vocab)) {}

absl::Status LogitsTask::Check(int64_t tokens) const {
  // Not tokens * vocab_, which may pass the end of int64.
  if (tokens <= max_elements_ / vocab_) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("logits of ", tokens, " tokens x vocabulary ", vocab_, " pass the limit of ",
                   max_elements_, " values (", max_elements_ * sizeof(float), " bytes), which is ",
                   max_elements_ / vocab_, " tokens"));
}

absl::Status LogitsTask::Forward(const TokenChunk& chunk, SequenceRunner& runner, StateFlow* flow) {
  absl::Status status = Check(runner.position() + Size(chunk.tokens));
  if (!status.ok()) return status;
  return runner.Forward(chunk.tokens, flow);
}

absl::Status LogitsTask::Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) {
  absl::Status status;
  const int64_t tile = static_cast<int64_t>(rows_.size()) / vocab_;
  for (int64_t first = 0; status.ok() && first < Size(chunk.tokens); first += tile) {
    const int64_t rows = std::min(tile, Size(chunk.tokens) - first);
    const absl::Span<float> out = absl::MakeSpan(rows_).first(rows * vocab_);
    status = runner.Logits(first, rows, out);
    if (status.ok()) status = sink(out);
  }
  return status;
}

absl::Status CheckFinite(absl::Span<const float> values, int64_t first_row, int64_t width) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(absl::StrCat("the input at (", first_row + i / width, ", ",
                                                     i % width, ") is ", values[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status TransformTask::Forward(const TokenChunk& chunk, SequenceRunner& runner,
                                    StateFlow* flow) {
  absl::Status finite = CheckFinite(chunk.rows, runner.position(), d_model_);
  if (!finite.ok()) return finite;
  y_.resize(chunk.rows.size());
  return runner.Transform(chunk.rows, absl::MakeSpan(y_), flow);
}

absl::Status TransformTask::Values(const TokenChunk& chunk, SequenceRunner& runner,
                                   FloatSink sink) {
  return sink(y_);
}

absl::Status GenerateTask::Forward(const TokenChunk& chunk, SequenceRunner& runner,
                                   StateFlow* flow) {
  return chunk.tokens.empty() ? absl::OkStatus() : runner.Forward(chunk.tokens, flow);
}

absl::Status GenerateTask::Values(const TokenChunk& chunk, SequenceRunner& runner, FloatSink sink) {
  if (chunk.lookahead.has_value()) return absl::OkStatus();  // the prompt goes on
  absl::Status status;
  if (!chunk.tokens.empty()) status = Make(Size(chunk.tokens), runner);
  for (int64_t i = 0; status.ok() && i < chunk.steps; ++i) {
    const int32_t last = static_cast<int32_t>(carry_[0]);
    status = runner.Forward({&last, 1});
    if (status.ok()) status = Make(1, runner);
  }
  return status;
}

absl::Status GenerateTask::Make(int64_t rows, SequenceRunner& runner) {
  const int64_t made = static_cast<int64_t>(carry_[1]);
  if (made != sampled_) {  // another sequence, or one that goes on here
    sampler_ = Sampler(options_);
    sampler_.Skip(made);
    sampled_ = made;
  }
  absl::Status status = runner.Logits(rows - 1, 1, absl::MakeSpan(logits_));
  if (!status.ok()) return status;
  const absl::StatusOr<int32_t> token = sampler_.Sample(logits_);
  if (!token.ok()) return token.status();
  ++sampled_;
  carry_ = {static_cast<double>(*token), static_cast<double>(made + 1)};
  return made_(*token);
}

absl::StatusOr<int64_t> RunSequence(ChunkTask& task, SequenceRunner& runner, TokenInput& input,
                                    int64_t chunk, FloatSink sink, ProgressFn progress,
                                    int64_t steps) {
  runner.Reset();
  task.Reset();
  return ContinueSequence(task, runner, input, chunk, sink, progress, steps);
}

absl::StatusOr<int64_t> ContinueSequence(ChunkTask& task, SequenceRunner& runner, TokenInput& input,
                                         int64_t chunk, FloatSink sink, ProgressFn progress,
                                         int64_t steps) {
  ChunkReader reader(input, chunk, steps);
  while (true) {
    absl::StatusOr<TokenChunk> next = reader.Next();
    if (!next.ok()) return next.status();
    if (next->tokens.empty() && next->steps == 0) return runner.position() - steps;
    absl::Status status = task.Forward(*next, runner);
    if (status.ok()) status = task.Values(*next, runner, sink);
    if (status.ok()) status = progress(runner.position());
    if (!status.ok()) return status;
  }
}

absl::Status RunTransform(SequenceRunner& runner, NpyReader& input, int64_t rows, int64_t chunk,
                          FloatSink sink, ProgressFn progress) {
  const int64_t width = runner.model().config().d_model;
  const int64_t most = std::min(chunk, rows);
  std::vector<float> x(most * width);
  TransformTask task(width);
  runner.Reset();
  for (int64_t first = 0; first < rows; first += most) {
    TokenChunk part;
    const absl::Span<float> in = absl::MakeSpan(x).first(std::min(most, rows - first) * width);
    const absl::StatusOr<int64_t> got = input.ReadFloats(in);
    if (!got.ok()) return got.status();
    part.rows = in;
    absl::Status status = task.Forward(part, runner, nullptr);
    if (status.ok()) status = task.Values(part, runner, sink);
    if (status.ok()) status = progress(runner.position());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace longwave

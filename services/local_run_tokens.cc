// score, embed, logits and generate: tasks over the tokens of an input's sequences.
#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/local_run.h"
#include "services/prompt_input.h"
#include "services/run_limits.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

// A record's name, a row's number, the input's name: the first that there is.
std::string NameOf(const TokenInput& input, const std::string& path) {
  const SequenceInfo& sequence = input.sequence();
  if (!sequence.name.empty()) return sequence.name;
  return input.batch().has_value() ? absl::StrCat(sequence.index) : BaseName(path);
}

}  // namespace

absl::Status LocalRun::PrepareTokens() {
  absl::Status tokenizer = CheckTokenizer(*model_, *input_);
  if (!tokenizer.ok()) return tokenizer;
  const bool bytes = model_->config().tokenizer == "bytes";
  if (job_.task == Task::kGenerate && !bytes && !options_.out.empty() &&
      !absl::EndsWith(options_.out, ".npy")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out ", options_.out, ": model ", job_.model,
                     " has no tokenizer, so that it gives ids: the name must end in .npy"));
  }
  const int64_t length = input_->sequence().length;
  const ModelConfig& config = model_->config();
  if (job_.task == Task::kLogits) {
    auto logits = std::make_unique<LogitsTask>(
        config.vocab_size, job_.max_logits_bytes / static_cast<int64_t>(sizeof(float)));
    absl::Status fits =
        length > 0 ? logits->Check(length * input_->batch().value_or(1)) : absl::OkStatus();
    if (!fits.ok()) return fits;
    task_ = std::move(logits);
  }
  int64_t cached = length;
  if (job_.task == Task::kGenerate && length > 0) {
    // The last token made is not fed back.
    const int64_t room = std::numeric_limits<int64_t>::max() - length;
    cached = length + std::min(room, job_.max_new_tokens - 1);
  }
  absl::Status prepared = Prepare(length, cached);
  if (!prepared.ok()) return prepared;
  if (job_.task == Task::kScore) task_ = std::make_unique<ScoreTask>(chunk_);
  if (job_.task == Task::kEmbed) {
    task_ = std::make_unique<EmbedTask>(config.d_model, job_.window);
  }
  return absl::OkStatus();
}

absl::Status LocalRun::RunTokens(SequenceDone done) {
  if (job_.prompt.empty()) {
    absl::StatusOr<std::unique_ptr<TokenInput>> input =
        TokenInput::Open(job_.input, options_.format);
    if (!input.ok()) return input.status();
    input_ = *std::move(input);
  } else {
    input_ = std::make_unique<PromptInput>(job_.prompt);
  }
  const std::optional<int64_t> batch = input_->batch();
  bool several = false;
  Shape shape;
  std::vector<SequenceReport> rows;  // of one file, which is whole only with the last
  while (true) {
    absl::StatusOr<bool> more = input_->NextSequence();
    if (!more.ok()) return more.status();
    if (!*more) break;
    absl::Status status = runner_ == nullptr ? PrepareTokens() : absl::OkStatus();
    SequenceReport sequence;
    sequence.name = NameOf(*input_, job_.input);
    if (status.ok() && !batch.has_value()) status = output_.Begin(sequence.name);
    if (!status.ok()) return status;
    absl::StatusOr<Shape> one = RunOne(sequence);
    if (!one.ok()) return one.status();
    shape = *std::move(one);
    if (batch.has_value()) {
      sequence.output = options_.out;
    } else {
      absl::StatusOr<bool> next = input_->HasNextSequence();
      // A stop takes standard input away: what looks whole may not be.
      if (next.ok()) status = CheckStop();
      if (!next.ok() || !status.ok()) return next.ok() ? status : next.status();
      several = several || *next;
      absl::StatusOr<std::string> path = output_.Commit(shape, several);
      if (!path.ok()) return path.status();
      sequence.output = *path;
    }
    report_.tokens += sequence.tokens + sequence.generated.value_or(0);
    if (batch.has_value()) {
      rows.push_back(std::move(sequence));
      continue;
    }
    status = Done(std::move(sequence), done);
    if (!status.ok()) return status;
  }
  if (!batch.has_value()) return CheckStop();
  shape.insert(shape.begin(), *batch);
  return CommitRows(shape, std::move(rows), done);
}

absl::StatusOr<LocalRun::Shape> LocalRun::RunOne(SequenceReport& sequence) {
  if (task_ == nullptr) return GenerateOne(sequence);
  absl::StatusOr<int64_t> tokens = RunSequence(
      *task_, *runner_, *input_, chunk_,
      [&](absl::Span<const float> values) { return output_.Append(values); },
      [&](int64_t done) { return Tick(done, input_->FractionRead()); });
  if (!tokens.ok()) return tokens.status();
  sequence.tokens = *tokens;
  if (job_.task == Task::kScore && *tokens > 1) {
    sequence.mean_nats =
        static_cast<const ScoreTask&>(*task_).total_nats() / static_cast<double>(*tokens - 1);
  }
  return task_->OutputShape(*tokens);
}

absl::StatusOr<LocalRun::Shape> LocalRun::GenerateOne(SequenceReport& sequence) {
  GenerateTask task({.temperature = job_.temperature,
                     .top_k = job_.top_k,
                     .top_p = job_.top_p,
                     .seed = job_.seed},
                    model_->config().vocab_size);
  sequence.generated = 0;
  absl::StatusOr<int64_t> prompt = RunGenerate(
      task, *runner_, *input_, chunk_, job_.max_new_tokens,
      [&](int32_t token) { return Emit(token, sequence); },
      [&](int64_t done) { return Tick(done, -1); });
  if (!prompt.ok()) return prompt.status();
  sequence.tokens = *prompt;
  return Shape{job_.max_new_tokens};
}

absl::Status LocalRun::Emit(int32_t token, SequenceReport& sequence) {
  const bool bytes = model_->config().tokenizer == "bytes";
  if (bytes && token > 255) {
    return absl::InternalError(absl::StrCat("token ", token, " is not a byte"));
  }
  absl::Status status = output_.Append(token);
  const bool first = *sequence.generated == 0;
  ++*sequence.generated;
  if (options_.json && bytes) {
    if (first) sequence.text.emplace();
    sequence.text->push_back(static_cast<char>(token));
  } else if (options_.json) {
    sequence.ids.push_back(token);
  }
  if (!status.ok() || !options_.StreamsText()) return status;
  std::string text = first && report_.tokens > 0 ? "\n" : "";  // a sequence was before this one
  if (bytes) {
    text.push_back(static_cast<char>(token));
  } else {
    absl::StrAppend(&text, first ? "" : " ", token);
  }
  return PrintOut(text);
}

}  // namespace longwave

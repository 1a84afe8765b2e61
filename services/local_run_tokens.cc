// score, embed, logits and generate: tasks over the tokens of an input's sequences.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/job_task.h"
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
  if (job_.task == Task::kLogits && length > 0) {
    absl::Status fits =
        CheckLogits(job_, model_->config().vocab_size, length * input_->batch().value_or(1));
    if (!fits.ok()) return fits;
  }
  int64_t cached = length;
  if (job_.task == Task::kGenerate && length > 0) {
    // The last token made is not fed back.
    const int64_t room = std::numeric_limits<int64_t>::max() - length;
    cached = length + std::min(room, job_.max_new_tokens - 1);
  }
  absl::Status prepared = Prepare(length, cached);
  if (!prepared.ok()) return prepared;
  task_ = MakeTask(job_, *model_, chunk_, [this](int32_t token) { return Emit(token); });
  return absl::OkStatus();
}

absl::Status LocalRun::OpenInput() {
  if (!job_.prompt.empty()) {
    input_ = std::make_unique<PromptInput>(job_.prompt);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<TokenInput>> input = TokenInput::Open(job_.input, options_.format);
  if (!input.ok()) return input.status();
  input_ = *std::move(input);
  if (cannot_resume_.empty()) {
    auto watched = std::make_unique<WatchedInput>(std::move(input_));
    watched_ = watched.get();
    input_ = std::move(watched);
  }
  return absl::OkStatus();
}

absl::Status LocalRun::RunTokens(SequenceDone done) {
  absl::Status status = OpenInput();
  if (!status.ok()) return status;
  absl::StatusOr<bool> more = input_->NextSequence();
  if (more.ok() && *more) status = PrepareTokens();
  std::vector<SequenceReport> rows;  // whole, not yet reported
  if (more.ok() && status.ok()) status = TakeUp(rows);
  if (!more.ok() || !status.ok()) return more.ok() ? status : more.status();
  const std::optional<int64_t> batch = input_->batch();
  bool several = !rows.empty();
  Shape shape;
  for (const SequenceReport& row : rows) report_.tokens += row.tokens;
  if (!batch.has_value()) {  // else one file, which is whole only with the last of them
    for (SequenceReport& row : rows) {
      status = Done(std::move(row), done);
      if (!status.ok()) return status;
    }
    rows.clear();
  }
  for (; more.ok() && *more; more = input_->NextSequence()) {
    SequenceReport sequence;
    sequence.name = NameOf(*input_, job_.input);
    if (!batch.has_value()) status = output_.Begin(sequence.name);
    if (!status.ok()) return status;
    bool ended = false;  // a file, and another one follows
    absl::StatusOr<Shape> one = RunOne(sequence);
    if (!one.ok()) return one.status();
    shape = *std::move(one);
    if (resume_ != nullptr) resume_->Wait();
    if (watched_ != nullptr) whole_digest_ = watched_->digest();
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
      ended = resume_ != nullptr && resume_->NextFile() && *next;
    }
    report_.tokens += sequence.tokens + sequence.generated.value_or(0);
    if (resume_ != nullptr) {
      ResumeSequence& whole = whole_.emplace_back();
      whole = {sequence.name, sequence.tokens, sequence.mean_nats, "", 0, 0};
      if (!batch.has_value()) {
        const FileStamp stamp = StampOf(sequence.output);
        whole.output = sequence.output;
        whole.output_bytes = stamp.bytes;
        whole.output_mtime_ns = stamp.mtime_ns;
      }
      // Or else an interruption just now would cost all of this sequence.
      if (ended) PutPoint(Boundary(), 0, RunResume::Clock::now());
    }
    if (batch.has_value()) {
      rows.push_back(std::move(sequence));
      continue;
    }
    status = Done(std::move(sequence), done);
    if (!status.ok()) return status;
  }
  if (!more.ok()) return more.status();
  if (!batch.has_value()) return CheckStop();
  shape.insert(shape.begin(), *batch);
  return CommitRows(shape, std::move(rows), done);
}

absl::Status LocalRun::TakeUp(std::vector<SequenceReport>& rows) {
  if (!cannot_resume_.empty()) {
    if (!output_.kept()) return absl::OkStatus();
    unlink((options_.out + ".resume").c_str());  // what it speaks of is now begun anew
    return output_.TakeUp({}, 0);
  }
  partial_ = output_.temporary();
  resume_ = std::make_unique<RunResume>(options_.out, job_.model, model_stamps_,
                                        options_.checkpoint_seconds);
  const auto say = [&](const std::string& what) {
    if (options_.quiet) return;
    std::fprintf(stderr, "longwave: %s %s\n", resume_->path().c_str(), what.c_str());
  };
  absl::StatusOr<std::optional<ResumePoint>> point =
      resume_->Load(RunIdentity(job_, chunk_, *model_), partial_);
  absl::Status moved = point.status();
  if (moved.ok() && point->has_value()) moved = MoveTo(**point);
  if (!moved.ok()) {
    say(absl::StrCat("is not used: ", moved.message()));
    resume_->Remove();
    absl::Status again = OpenInput();
    if (again.ok()) again = input_->NextSequence().status();
    return again.ok() ? output_.TakeUp({}, 0) : again;
  }
  if (!point->has_value()) return output_.TakeUp({}, 0);
  std::vector<std::string> committed;
  for (const ResumeSequence& sequence : (*point)->done) {
    SequenceReport& row = rows.emplace_back();
    row.name = sequence.name;
    row.tokens = sequence.tokens;
    row.mean_nats = sequence.mean_nats;
    row.output = sequence.output.empty() ? options_.out : sequence.output;
    if (!sequence.output.empty()) committed.push_back(sequence.output);
    report_.resumed_tokens += sequence.tokens;
  }
  report_.resumed_tokens += (*point)->boundary.position;
  progress_->GoOnFrom(report_.resumed_tokens);
  say(absl::StrCat("is taken up: goes on after ", WithCommas(report_.resumed_tokens), " tokens"));
  whole_ = (*point)->done;
  whole_digest_ = (*point)->done_digest;
  return output_.TakeUp(committed, (*point)->elements);
}

absl::Status LocalRun::MoveTo(const ResumePoint& point) {
  const auto changed = [&](absl::string_view what) {
    return absl::FailedPreconditionError(absl::StrCat(job_.input, " has changed: ", what));
  };
  for (const ResumeSequence& sequence : point.done) {
    if (NameOf(*input_, job_.input) != sequence.name) return changed(sequence.name);
    const absl::StatusOr<int64_t> tokens =
        watched_->Skip(std::numeric_limits<int64_t>::max(), chunk_);
    if (!tokens.ok() || *tokens != sequence.tokens) return changed(sequence.name);
    if (&sequence == &point.done.back() && watched_->digest() != point.done_digest) {
      return changed("its tokens");
    }
    const absl::StatusOr<bool> more = input_->NextSequence();
    if (!more.ok() || !*more) return changed("it has fewer sequences");
  }
  const int64_t position = point.boundary.position;
  if (position == 0) return absl::OkStatus();
  const absl::StatusOr<int64_t> tokens = watched_->Skip(position, chunk_);
  if (!tokens.ok() || *tokens != position || watched_->digest() != point.digest) {
    return changed("its tokens");
  }
  absl::Status imported = ImportBoundary(point.boundary, *runner_, *task_);
  standing_ = imported.ok();
  return imported;
}

absl::Status LocalRun::KeepPoint() {
  const RunResume::Clock::time_point began = RunResume::Clock::now();
  const auto sink = [&](absl::Span<const float> values) { return output_.Append(values); };
  absl::Status status = task_->Flush(*runner_, sink);
  if (!status.ok()) return status;
  const absl::StatusOr<int64_t> elements = output_.Flush();
  if (!elements.ok()) return elements.status();
  absl::StatusOr<Boundary> boundary = ExportBoundary(*runner_, *task_);
  if (!boundary.ok()) return boundary.status();
  PutPoint(*std::move(boundary), *elements, began);
  return absl::OkStatus();
}

void LocalRun::PutPoint(Boundary boundary, int64_t elements, RunResume::Clock::time_point began) {
  ResumePoint point;
  point.identity = RunIdentity(job_, chunk_, *model_);
  point.done = whole_;
  point.done_digest = whole_digest_;
  point.digest = watched_->digest();
  point.elements = elements;
  point.boundary = std::move(boundary);
  resume_->Put(std::move(point), partial_, began);
}

absl::StatusOr<LocalRun::Shape> LocalRun::RunOne(SequenceReport& sequence) {
  const bool generates = job_.task == Task::kGenerate;
  sequence_ = &sequence;
  if (generates) sequence.generated = 0;
  if (!std::exchange(standing_, false)) {
    runner_->Reset();
    task_->Reset();
  }
  absl::StatusOr<int64_t> tokens = ContinueSequence(
      *task_, *runner_, *input_, chunk_,
      [&](absl::Span<const float> values) { return output_.Append(values); },
      [&](int64_t done) {
        absl::Status status = Tick(done, generates ? -1 : input_->FractionRead());
        const bool kept = resume_ != nullptr && output_.kept();
        if (!kept || (status.ok() && !resume_->Due())) return status;
        absl::Status point = KeepPoint();
        return point.ok() ? status : point;
      },
      generates ? job_.max_new_tokens - 1 : 0);  // the last one is not run
  if (!tokens.ok()) return tokens.status();
  sequence.tokens = *tokens;
  if (job_.task == Task::kScore && *tokens > 1) {
    sequence.mean_nats =
        static_cast<const ScoreTask&>(*task_).total_nats() / static_cast<double>(*tokens - 1);
  }
  return task_->OutputShape(*tokens);
}

absl::Status LocalRun::Emit(int32_t token) {
  SequenceReport& sequence = *sequence_;
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
  if (status.ok() && options_.StreamsText()) {
    std::string text = first && report_.tokens > 0 ? "\n" : "";  // a sequence was before this one
    if (bytes) {
      text.push_back(static_cast<char>(token));
    } else {
      absl::StrAppend(&text, first ? "" : " ", token);
    }
    status = PrintOut(text);
  }
  return status.ok() ? Tick(runner_->position() + 1, -1) : status;
}

}  // namespace longwave

#include "services/cluster/planner.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/token_input.h"
#include "scheduler/protocol/messages.h"

namespace longwave {
namespace {

constexpr int64_t kTokensAtOnce = 1 << 20;

absl::Status CheckLogits(const Job& job, int64_t tokens) {
  const int64_t most = job.spec.max_logits_bytes / static_cast<int64_t>(sizeof(float));
  if (job.spec.task != Task::kLogits || tokens <= most / job.columns) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("logits of more than ", most / job.columns, " tokens x vocabulary ", job.columns,
                   " pass max_logits_bytes ", job.spec.max_logits_bytes));
}

}  // namespace

absl::StatusOr<bool> Planner::PlanOne(const std::function<bool()>& stop, int64_t now_ms) {
  absl::StatusOr<std::optional<Job>> job = Take();
  if (!job.ok()) return job.status();
  if (!job->has_value()) return false;
  absl::Status planned = PlanJob(**job, stop, now_ms);
  const std::lock_guard<std::mutex> lock(mutex_);
  busy_.erase((*job)->id);
  if (!planned.ok()) return planned;
  return true;
}

// The lock is held while the store is read: who is busy then is done after that, or was in time to
// be no longer found.
absl::StatusOr<std::optional<Job>> Planner::Take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<std::vector<Job>> jobs = store_.Unplanned(static_cast<int64_t>(busy_.size()) + 1);
  if (!jobs.ok()) return jobs.status();
  for (Job& job : *jobs) {
    if (busy_.insert(job.id).second) return std::move(job);
  }
  return std::nullopt;
}

absl::Status Planner::PlanJob(const Job& job, const std::function<bool()>& stop, int64_t now_ms) {
  const absl::StatusOr<Plan> plan = WriteTokens(job, stop);
  if (stop()) return absl::OkStatus();  // it is planned anew after the next start
  absl::Status status = plan.status();
  if (plan.ok()) {
    status = store_.SetPlan(job.id, *plan, now_ms);
  } else if (absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
             absl::IsDataLoss(status)) {
    status = store_.FailJob(job.id, std::string(status.message()), now_ms);
  }
  if (absl::IsAborted(status) || absl::IsNotFound(status)) {
    // Cancelled or deleted meanwhile; or planned by another server, whose tokens these are.
    const absl::StatusOr<Job> now = store_.Get(job.id);
    const bool gone = absl::IsNotFound(now.status()) || (now.ok() && IsOver(now->state));
    status = gone ? RemoveTokens(job.id) : now.status();
  }
  return status;
}

absl::Status Planner::RemoveTokens(const std::string& job) {
  return objects_.Delete(TokensName(job));
}

absl::StatusOr<Plan> Planner::WriteTokens(const Job& job, const std::function<bool()>& stop) {
  const absl::StatusOr<ModelEntry> model = models_.Find(job.spec.model);
  if (!model.ok()) return model.status();
  const absl::StatusOr<StoredFile> file = store_.GetFile(job.spec.input);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<ByteSource>> packed =
      objects_.OpenSource(FileName(file->id), file->sha256);
  if (!packed.ok()) return packed.status();
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Unpacked(*std::move(packed));
  if (!source.ok()) return source.status();
  absl::StatusOr<std::unique_ptr<TokenInput>> opened =
      TokenInput::FromSource(*std::move(source), InputFormat::kAuto, file->name);
  if (!opened.ok()) return opened.status();
  TokenInput& input = **opened;
  const absl::StatusOr<bool> any = input.NextSequence();
  if (!any.ok()) return any.status();
  if (input.tokens_are_bytes() && model->config.tokenizer != "bytes") {
    return absl::InvalidArgumentError(absl::StrCat("input ", file->name, ": model ", job.spec.model,
                                                   " has no tokenizer; give token ids as .npy"));
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = objects_.Create(TokensName(job.id));
  if (!writer.ok()) return writer.status();
  Plan plan{0, input.tokens_are_bytes() ? 1 : int64_t{sizeof(int32_t)}};
  std::vector<int32_t> tokens(kTokensAtOnce);
  std::string bytes;
  int64_t got = kTokensAtOnce;
  while (got == kTokensAtOnce) {
    if (stop()) return absl::CancelledError("the server stops");
    const absl::StatusOr<int64_t> read = input.Read(absl::MakeSpan(tokens));
    if (!read.ok()) return read.status();
    got = *read;
    plan.length += got;
    absl::Status status = CheckLogits(job, plan.length);
    if (!status.ok()) return status;
    if (plan.token_bytes == 1) {
      bytes.assign(tokens.begin(), tokens.begin() + got);
    } else {
      bytes.assign(reinterpret_cast<const char*>(tokens.data()), got * sizeof(int32_t));
    }
    status = (*writer)->Append(bytes);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<bool> another = input.HasNextSequence();
  if (!another.ok()) return another.status();
  if (*another || input.batch().has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "input ", file->name, " has several sequences: a job is of one (longwave run takes them)"));
  }
  const absl::StatusOr<ObjectInfo> written = (*writer)->Commit();
  if (!written.ok()) return written.status();
  return plan;
}

}  // namespace longwave

#include "services/cluster/planner.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/npy.h"
#include "formats/token_input.h"
#include "scheduler/protocol/messages.h"
#include "services/job_task.h"
#include "services/output_files.h"
#include "services/run_limits.h"
#include "services/run_options.h"
#include "services/text.h"
#include "worker/executor/tasks.h"

namespace longwave {
namespace {

constexpr int64_t kTokensAtOnce = 1 << 20;
constexpr size_t kMostRecords = 100000;

// What a job may not ask for, whoever would run it.
absl::Status Refused(const absl::Status& status) {
  return status.ok() ? status : absl::InvalidArgumentError(status.message());
}

// As they are in a worker without a GPU, which has them in float32.
absl::Status CheckCaches(const ModelConfig& config, int64_t length) {
  const int64_t layers = static_cast<int64_t>(config.attn_layer_idx.size());
  if (layers == 0) return absl::OkStatus();
  const int64_t each = 2 * layers * config.d_model * int64_t{sizeof(float)};
  const int64_t budget = RunOptions::DefaultCacheBudget();
  if (length <= budget / each) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("attention's caches for ", length, " tokens need ",
                                                 each, " bytes for each, the budget is ", budget,
                                                 " bytes, enough for ", budget / each, " tokens"));
}

// Adds one more sequence to the plan.
void Add(SequenceRow row, Plan& plan) {
  std::vector<SequenceRow>& rows = plan.sequences;
  plan.length += row.length;
  if (!rows.empty() && row.name.empty() && rows.back().length == row.length) {
    ++rows.back().repeats;
  } else {
    rows.push_back(std::move(row));
  }
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
  const absl::StatusOr<Plan> plan = WriteInput(job, stop);
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

absl::StatusOr<Plan> Planner::WriteInput(const Job& job, const std::function<bool()>& stop) {
  const absl::StatusOr<ModelEntry> model = models_.Find(job.spec.model);
  if (!model.ok()) return model.status();
  const absl::StatusOr<StoredFile> file = store_.GetFile(job.spec.input);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::unique_ptr<ByteSource>> packed =
      objects_.OpenSource(FileName(file->id), file->sha256, file->name);
  if (!packed.ok()) return packed.status();
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Unpacked(*std::move(packed));
  if (!source.ok()) return source.status();
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = objects_.Create(TokensName(job.id));
  if (!writer.ok()) return writer.status();
  absl::StatusOr<Plan> plan = absl::InternalError("");
  if (job.spec.task == Task::kTransform) {
    plan = WriteRows(job, model->config, file->name, *std::move(source), **writer, stop);
  } else {
    plan = WriteTokens(job, model->config, file->name, *std::move(source), **writer, stop);
  }
  if (!plan.ok()) return plan;
  absl::Status written = (*writer)->Commit().status();
  if (!written.ok()) return written;
  return plan;
}

absl::StatusOr<Plan> Planner::WriteTokens(const Job& job, const ModelConfig& config,
                                          const std::string& name,
                                          std::unique_ptr<ByteSource> source, ObjectWriter& writer,
                                          const std::function<bool()>& stop) {
  absl::StatusOr<std::unique_ptr<TokenInput>> opened =
      TokenInput::FromSource(std::move(source), InputFormat::kAuto, name);
  if (!opened.ok()) return opened.status();
  TokenInput& input = **opened;
  absl::StatusOr<bool> more = input.NextSequence();
  if (!more.ok()) return more.status();
  if (input.tokens_are_bytes() && config.tokenizer != "bytes") {
    return absl::InvalidArgumentError(absl::StrCat("input ", name, ": model ", job.spec.model,
                                                   " has no tokenizer; give token ids as .npy"));
  }
  Plan plan{0, input.tokens_are_bytes() ? 1 : int64_t{sizeof(int32_t)}, input.batch().value_or(0)};
  const int64_t made = job.spec.task == Task::kGenerate ? job.spec.max_new_tokens - 1 : 0;
  std::vector<int32_t> tokens(kTokensAtOnce);
  std::string bytes;
  std::set<std::string> names;
  for (; more.ok() && *more; more = input.NextSequence()) {
    SequenceRow row;
    if (plan.batch == 0) {
      const std::string& record = input.sequence().name;
      row.name = SafeName(record.empty() ? BaseName(name) : record);
      if (!names.insert(row.name).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("input ", name, ": record \"", record,
                         "\" would overwrite the output of a record before it: give the records "
                         "different names"));
      }
      if (names.size() > kMostRecords) {
        return absl::InvalidArgumentError(absl::StrCat("input ", name, ": more than ", kMostRecords,
                                                       " records: give a job a part of them"));
      }
    }
    for (int64_t got = kTokensAtOnce; got == kTokensAtOnce;) {
      if (stop()) return absl::CancelledError("the server stops");
      const absl::StatusOr<int64_t> read = input.Read(absl::MakeSpan(tokens));
      if (!read.ok()) return read.status();
      got = *read;
      row.given += got;
      if (job.spec.task == Task::kLogits) {
        const int64_t all = row.given + (plan.batch > 0 ? plan.length : 0);
        absl::Status fits = Refused(CheckLogits(job.spec, job.columns, all));
        if (!fits.ok()) return fits;
      }
      if (plan.token_bytes == 1) {
        bytes.assign(tokens.begin(), tokens.begin() + got);
      } else {
        bytes.assign(reinterpret_cast<const char*>(tokens.data()), got * sizeof(int32_t));
      }
      absl::Status status = writer.Append(bytes);
      if (!status.ok()) return status;
    }
    row.length = row.given + made;
    absl::Status fits = CheckCaches(config, row.length);
    if (!fits.ok()) return fits;
    Add(std::move(row), plan);
  }
  if (!more.ok()) return more.status();
  return plan;
}

absl::StatusOr<Plan> Planner::WriteRows(const Job& job, const ModelConfig& config,
                                        const std::string& name, std::unique_ptr<ByteSource> source,
                                        ObjectWriter& writer, const std::function<bool()>& stop) {
  absl::StatusOr<std::unique_ptr<NpyReader>> opened = NpyReader::Open(std::move(source));
  if (!opened.ok()) return opened.status();
  NpyReader& reader = **opened;
  const int64_t width = config.d_model;
  const absl::StatusOr<SignalShape> shape = ShapeOfSignal(name, reader.header(), width);
  if (!shape.ok()) return shape.status();
  Plan plan{0, width * int64_t{sizeof(float)}, shape->batch.value_or(0)};
  const int64_t most = std::max<int64_t>(kTokensAtOnce / width, 1);
  std::vector<float> values;
  for (int64_t i = 0; i < shape->batch.value_or(1); ++i) {
    for (int64_t first = 0; first < shape->rows; first += most) {
      if (stop()) return absl::CancelledError("the server stops");
      values.resize(std::min(most, shape->rows - first) * width);
      const absl::StatusOr<int64_t> got = reader.ReadFloats(absl::MakeSpan(values));
      if (!got.ok()) return got.status();
      absl::Status status = CheckFinite(values, first, width);
      if (status.ok()) {
        status = writer.Append(
            {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
      }
      if (!status.ok()) return status;
    }
    Add({"", 1, shape->rows, shape->rows}, plan);
  }
  return plan;
}

}  // namespace longwave

#include "services/local_run.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/gpu/queue.h"
#include "services/device.h"
#include "services/run_limits.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

OutputFiles::Kind OutputKind(const JobSpec& job, const std::string& path) {
  if (job.task != Task::kGenerate) return OutputFiles::Kind::kFloats;
  return absl::EndsWith(path, ".npy") ? OutputFiles::Kind::kIds : OutputFiles::Kind::kBytes;
}

// Why a run of these options could not go on after an interruption; empty: it could.
std::string CannotResume(const RunOptions& options) {
  if (options.out.empty()) return "it has no --out";
  if (options.job.task == Task::kGenerate || options.job.task == Task::kTransform) {
    return absl::StrCat("its task is ", Name(options.job.task));
  }
  struct stat input;
  if (stat(options.job.input.c_str(), &input) != 0 || !S_ISREG(input.st_mode)) {
    return "its input is not a file that can be read again";
  }
  return "";
}

}  // namespace

absl::StatusOr<RunReport> LocalRun::Run(SequenceDone done) {
  absl::Status status = Open();
  if (!status.ok()) return status;
  const bool silent = options_.quiet || options_.StreamsText();
  progress_ = std::make_unique<Progress>(Progress::StyleOfStderr(silent));
  status = job_.task == Task::kTransform ? RunTransforms(done) : RunTokens(done);
  progress_->Clear();
  if (resume_ != nullptr && absl::IsCancelled(status)) {
    if (resume_->Wait()) output_.Keep();
  } else if (resume_ != nullptr) {
    resume_->Remove();
  }
  if (absl::IsCancelled(status)) return Stopped(status);
  if (absl::IsInvalidArgument(status) && absl::StartsWith(status.message(), "token id ")) {
    return absl::InvalidArgumentError(absl::StrCat(job_.input, ": ", status.message()));
  }
  if (!status.ok()) return status;
  report_.seconds = progress_->seconds();
  report_.outputs = output_.committed();
  return std::move(report_);
}

absl::Status LocalRun::Stopped(const absl::Status& status) {
  if (options_.out.empty()) return status;
  std::string more = absl::StrCat("; such a run cannot go on later: ", cannot_resume_);
  if (resume_ != nullptr) {
    more = resume_->Wait() ? absl::StrCat("; the same command goes on from ", resume_->path()) : "";
  }
  return absl::CancelledError(absl::StrCat(status.message(), more));
}

absl::Status LocalRun::Open() {
  cannot_resume_ = CannotResume(options_);
  absl::StatusOr<OutputFiles> output = OutputFiles::Open(
      options_.out, OutputKind(job_, options_.out),
      {job_.input, job_.model + "/config.json", job_.model + "/model.safetensors"},
      cannot_resume_.empty());
  if (!output.ok()) return output.status();
  output_ = *std::move(output);
  if (cannot_resume_.empty() && !output_.kept()) {
    cannot_resume_ = absl::StrCat(options_.out, ".partial is another run's, or cannot be locked");
  }
  model_stamps_ = StampsOfModel(job_.model);
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(job_.model, options_.model);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  absl::Status suits = CheckTaskSuits(*model_, job_.task);
  if (!suits.ok()) return suits;
  if (cannot_resume_.empty() && model_->attention_layers() > 0) {
    cannot_resume_ = "its model has attention, whose caches are kept nowhere";
  }
  pool_ = std::make_unique<ThreadPool>(options_.threads);
  report_.model = job_.model;
  report_.task = Name(job_.task);
  report_.device = model_->device().ToString();
  if (model_->device().is_gpu()) report_.device_name = DeviceName(model_->device());
  report_.dtype = Name(model_->dtype());
  report_.chunk = job_.chunk;
  report_.threads = pool_->threads();
  return absl::OkStatus();
}

absl::Status LocalRun::Prepare(int64_t length, int64_t cached) {
  chunk_ = length > 0 ? std::min(job_.chunk, length) : job_.chunk;
  const bool gpu = model_->device().is_gpu();
  absl::Status fits = absl::OkStatus();
  if (!gpu) fits = CheckChunkFits(*model_, chunk_, pool_->threads(), PhysicalMemoryBytes());
  if (fits.ok() && cached > 0) fits = CheckCacheFits(*model_, cached, options_.cache_budget_bytes);
  if (fits.ok() && gpu) fits = ShortenChunk(cached);
  if (!fits.ok()) return fits;
  RunnerOptions options;
  options.chunk = chunk_;
  options.cache_budget_bytes = options_.cache_budget_bytes;
  options.cache_tokens = std::max<int64_t>(cached, 0);
  absl::StatusOr<std::unique_ptr<SequenceRunner>> runner =
      SequenceRunner::Create(model_, options, pool_.get());
  if (!runner.ok()) return runner.status();
  runner_ = *std::move(runner);
  return absl::OkStatus();
}

absl::Status LocalRun::ShortenChunk(int64_t cached) {
  const Device device = model_->device();
  absl::StatusOr<gpu::MemoryInfo> memory = gpu::GetMemoryInfo(device.index);
  if (!memory.ok()) return memory.status();
  // A sixteenth is left to others and to what falls between allocations.
  const int64_t caches = cached > 0
                             ? model_->cache_bytes(cached)
                             : std::min(model_->cache_bytes(chunk_), options_.cache_budget_bytes);
  const int64_t left =
      memory->free_bytes - memory->free_bytes / 16 - model_->state_bytes() - caches;
  absl::StatusOr<int64_t> fits = ChunkThatFits(*model_, chunk_, left);
  if (!fits.ok()) return fits.status();
  if (*fits < chunk_) {
    std::fprintf(stderr,
                 "longwave: --chunk %lld needs %s and %s has %s left: it is shortened to "
                 "%lld tokens\n",
                 static_cast<long long>(chunk_),
                 HumanBytes(model_->workspace_bytes(chunk_, 0)).c_str(), device.ToString().c_str(),
                 HumanBytes(left).c_str(), static_cast<long long>(*fits));
    chunk_ = report_.chunk = *fits;
  }
  return absl::OkStatus();
}

absl::Status LocalRun::Tick(int64_t tokens, double fraction) {
  progress_->Update(report_.tokens + tokens, fraction);
  return CheckStop();
}

absl::Status LocalRun::CommitRows(const Shape& shape, std::vector<SequenceReport> rows,
                                  SequenceDone done) {
  absl::Status status = CheckStop();
  if (status.ok()) status = output_.Commit(shape, false).status();
  for (size_t i = 0; status.ok() && i < rows.size(); ++i) status = Done(std::move(rows[i]), done);
  return status;
}

absl::Status LocalRun::Done(SequenceReport sequence, SequenceDone done) {
  progress_->Clear();
  absl::Status status = done(sequence);
  if (options_.json) report_.sequences.push_back(std::move(sequence));
  return status;
}

}  // namespace longwave

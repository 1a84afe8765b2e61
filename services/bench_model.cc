#include "services/bench_model.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/queue.h"
#include "worker/executor/sequence_runner.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class ModelBench {
 public:
  explicit ModelBench(const ModelBenchOptions& options)
      : options_(options), pool_(options.threads) {}
  absl::StatusOr<ModelBenchResult> Run();

 private:
  bool scores() const { return options_.task == "score"; }
  absl::Status Check() const;
  absl::Status Prepare();
  absl::Status Once() { return scores() ? Score() : Generate(); }
  absl::Status Score();
  absl::Status Generate();
  absl::StatusOr<int64_t> BytesInUse() const;

  const ModelBenchOptions& options_;
  ModelBenchResult result_;
  ThreadPool pool_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<SequenceRunner> runner_;
  std::vector<int32_t> tokens_;  // score: (tokens + 1); generate: (chunks of the prompt, batch, n)
  std::vector<int32_t> made_;
};

absl::Status ModelBench::Check() const {
  if (!scores() && options_.task != "generate") {
    return absl::InvalidArgumentError(
        absl::StrCat("--task ", options_.task, ": must be score or generate"));
  }
  constexpr int64_t kMost = int64_t{1} << 32;
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "chunk", options_.chunk, 1, kMost));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "tokens", options_.tokens, 1, kMost));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "batch", options_.batch, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "prompt", options_.prompt, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "new-tokens", options_.new_tokens, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "runs", options_.runs, 1, 1000));
  return CheckRange("bench", "threads", options_.threads, 0, 1024);
}

absl::StatusOr<int64_t> ModelBench::BytesInUse() const {
  if (!options_.model.device.is_gpu()) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return int64_t{usage.ru_maxrss} * 1024;
  }
  const absl::StatusOr<gpu::MemoryInfo> memory = gpu::GetMemoryInfo(options_.model.device.index);
  if (!memory.ok()) return memory.status();
  return memory->total_bytes - memory->free_bytes;
}

absl::Status ModelBench::Prepare() {
  const absl::StatusOr<ModelConfig> config = NamedShape(options_.shape);
  if (!config.ok()) return config.status();
  LONGWAVE_ASSIGN_OR_RETURN(model_, Model::Random(*config, options_.model));
  RunnerOptions runner;
  runner.chunk = std::min(options_.chunk, scores() ? options_.tokens : options_.prompt);
  runner.batch = scores() ? 1 : options_.batch;
  runner.cache_tokens = scores() ? options_.tokens : options_.prompt + options_.new_tokens;
  runner.cache_budget_bytes = model_->cache_bytes(runner.cache_tokens, runner.batch);
  LONGWAVE_ASSIGN_OR_RETURN(runner_, SequenceRunner::Create(model_, runner, &pool_));
  tokens_.resize(scores() ? options_.tokens + 1 : options_.batch * options_.prompt);
  std::mt19937 random(1);
  for (int32_t& token : tokens_) token = static_cast<int32_t>(random() % config->vocab_size);
  made_.resize(options_.batch * options_.new_tokens);
  result_.parameters = model_->parameters();
  result_.weight_bytes = model_->weight_bytes();
  return absl::OkStatus();
}

absl::Status ModelBench::Score() {
  const absl::Span<const int32_t> tokens = tokens_;
  double nats = 0;
  const auto take = [&](int64_t left) {
    while (runner_->losses_pending() > left) {
      const absl::StatusOr<absl::Span<const float>> losses = runner_->TakeTokenLoss();
      if (!losses.ok()) return losses.status();
      for (float loss : *losses) nats += loss;
    }
    return absl::OkStatus();
  };
  runner_->Reset();
  for (int64_t t = 0; t < options_.tokens; t += options_.chunk) {
    const size_t n = static_cast<size_t>(std::min(options_.chunk, options_.tokens - t));
    LONGWAVE_RETURN_IF_ERROR(runner_->Forward(tokens.subspan(t, n)));
    LONGWAVE_RETURN_IF_ERROR(runner_->StartTokenLoss(tokens.subspan(t + 1, n)));
    LONGWAVE_RETURN_IF_ERROR(take(runner_->losses_ahead()));
  }
  LONGWAVE_RETURN_IF_ERROR(take(0));
  result_.mean_nats = nats / static_cast<double>(options_.tokens);
  return std::isfinite(nats) ? absl::OkStatus()
                             : absl::InternalError(absl::StrCat("the loss is ", nats));
}

absl::Status ModelBench::Generate() {
  const Clock::time_point begin = Clock::now();
  runner_->Reset();
  for (int64_t t = 0; t < options_.prompt; t += options_.chunk) {
    const int64_t n = std::min(options_.chunk, options_.prompt - t) * options_.batch;
    LONGWAVE_RETURN_IF_ERROR(runner_->Forward(
        absl::MakeConstSpan(tokens_).subspan(t * options_.batch, static_cast<size_t>(n))));
  }
  LONGWAVE_RETURN_IF_ERROR(runner_->Synchronize());
  result_.prompt_seconds = Since(begin);
  return runner_->Greedy(options_.new_tokens, absl::MakeSpan(made_));
}

absl::StatusOr<ModelBenchResult> ModelBench::Run() {
  LONGWAVE_RETURN_IF_ERROR(Check());
  const absl::StatusOr<int64_t> before = BytesInUse();
  if (!before.ok()) return before.status();
  LONGWAVE_RETURN_IF_ERROR(Prepare());
  LONGWAVE_RETURN_IF_ERROR(Once());
  std::vector<double> seconds;
  for (int i = 0; i < options_.runs; ++i) {
    const Clock::time_point begin = Clock::now();
    LONGWAVE_RETURN_IF_ERROR(Once());
    seconds.push_back(Since(begin));
  }
  const absl::StatusOr<int64_t> after = BytesInUse();
  if (!after.ok()) return after.status();
  result_.peak_bytes = options_.model.device.is_gpu() ? *after - *before : *after;
  std::sort(seconds.begin(), seconds.end());
  result_.run = {seconds[seconds.size() / 2], seconds.front(), seconds.back(), options_.runs};
  const int64_t made = scores() ? options_.tokens : options_.batch * options_.new_tokens;
  result_.tokens_per_second = static_cast<double>(made) / result_.run.median;
  const double prompt_seconds = result_.prompt_seconds;
  PartTimer timer;
  runner_->set_timer(&timer);
  LONGWAVE_RETURN_IF_ERROR(Once());
  LONGWAVE_ASSIGN_OR_RETURN(result_.part_seconds, timer.Seconds());
  result_.prompt_seconds = prompt_seconds;
  return result_;
}

}  // namespace

absl::StatusOr<ModelBenchResult> BenchModel(const ModelBenchOptions& options) {
  return ModelBench(options).Run();
}

}  // namespace longwave

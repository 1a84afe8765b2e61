#include "services/job_task.h"

#include <utility>

namespace longwave {
namespace {

int64_t MostLogits(const JobSpec& job) {
  return job.max_logits_bytes / static_cast<int64_t>(sizeof(float));
}

}  // namespace

std::unique_ptr<ChunkTask> MakeTask(const JobSpec& job, const Model& model, int64_t chunk,
                                    TokenSink made) {
  const ModelConfig& config = model.config();
  switch (job.task) {
    case Task::kScore:
      return std::make_unique<ScoreTask>(chunk);
    case Task::kEmbed:
      return std::make_unique<EmbedTask>(config.d_model, job.window);
    case Task::kLogits:
      return std::make_unique<LogitsTask>(config.vocab_size, MostLogits(job));
    case Task::kGenerate:
      return std::make_unique<GenerateTask>(SamplerOptions{.temperature = job.temperature,
                                                           .top_k = job.top_k,
                                                           .top_p = job.top_p,
                                                           .seed = job.seed},
                                            config.vocab_size, job.max_new_tokens, std::move(made));
    case Task::kTransform:
      return std::make_unique<TransformTask>(config.d_model);
  }
  return nullptr;
}

absl::Status CheckLogits(const JobSpec& job, int64_t vocabulary, int64_t tokens) {
  return LogitsTask(vocabulary, MostLogits(job)).Check(tokens);
}

}  // namespace longwave

// What a job's spec asks of a model: the task, for `longwave run` and for workers alike.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "scheduler/job.h"
#include "worker/executor/tasks.h"
#include "worker/model/model.h"

namespace longwave {

// `chunk`: the most tokens of one. `made`: takes what generate makes.
std::unique_ptr<ChunkTask> MakeTask(const JobSpec& job, const Model& model, int64_t chunk,
                                    TokenSink made);

// ResourceExhausted where the logits of `tokens` tokens pass what the job allows.
absl::Status CheckLogits(const JobSpec& job, int64_t vocabulary, int64_t tokens);

}  // namespace longwave

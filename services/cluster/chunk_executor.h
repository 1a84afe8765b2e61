// One chunk of a job, from its assignment to its output and boundary in the object store. The chunk
// is computed by the same task and runner as `longwave run` uses, from the state that the boundary
// before it holds: its bytes are those of an undisturbed run.
//
// Thread safety: one caller.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "scheduler/object_store.h"
#include "scheduler/protocol/messages.h"
#include "services/cluster/worker_loop.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/tasks.h"
#include "worker/model/model.h"

namespace longwave {

class ChunkExecutor {
 public:
  ChunkExecutor(std::unique_ptr<ObjectStore> objects, std::string models,
                const ModelOptions& options, int threads)
      : objects_(std::move(objects)),
        models_(std::move(models)),
        options_(options),
        pool_(threads) {}

  // Done, or Failed. `final` is set where another worker would fail the same way: what the job asks
  // for cannot be, or its objects are damaged. `health` is an error where the device, or this
  // program, is what failed.
  WorkerLoop::Executed Run(const Assign& assign);

 private:
  absl::StatusOr<Done> Compute(const Assign& assign);
  absl::Status Prepare(const Assign& assign);  // model_, runner_ and task_
  absl::Status TakeUp(const Assign& assign, int64_t position);
  absl::StatusOr<std::vector<int32_t>> Tokens(const Assign& assign, int64_t first, int64_t count);
  absl::StatusOr<ObjectInfo> WriteBoundary(const Assign& assign);

  std::unique_ptr<ObjectStore> objects_;
  const std::string models_;
  const ModelOptions options_;
  ThreadPool pool_;
  std::string model_hash_;  // of model_
  std::shared_ptr<const Model> model_;
  int64_t chunk_ = 0;  // that runner_ was made for
  std::unique_ptr<SequenceRunner> runner_;
  std::unique_ptr<ChunkTask> task_;
};

}  // namespace longwave

// Chunks of jobs through models: each is computed by the same task and runner as `longwave run`
// uses, from the states that the chunk before hands on, while that is still computed or out of its
// boundary. Its bytes are those of an undisturbed run.
//
// Thread safety: as ChunkPipeline.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/thread_pool.h"
#include "observability/worker_probe.h"
#include "scheduler/object_store.h"
#include "services/cluster/chunk_pipeline.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/tasks.h"
#include "worker/links/link_flow.h"
#include "worker/model/model.h"

namespace longwave {

class ChunkExecutor final : public ChunkPipeline {
 public:
  // `name`: the worker's, for traces. `wavefront`: see WaveFlow.
  ChunkExecutor(std::string name, std::unique_ptr<ObjectStore> objects, std::string models,
                const ModelOptions& options, int threads, bool wavefront, Exchange* exchange,
                WorkerProbe& probe, FinishedFn finished);
  ~ChunkExecutor() override;

 private:
  struct Work;

  std::unique_ptr<ChunkWork> NewWork(const Assign& assign) override;
  absl::Status Compute(ChunkWork& work) override;
  absl::Status TakeValues(ChunkWork& work) override;
  absl::StatusOr<Done> Store(ChunkWork& work) override;
  absl::Status Fill(const ChunkWork& work, const BoundaryObject& object,
                    StateStream& stream) override;
  void Discard(const ChunkKey& key) override { RemoveChunk(key, *objects_); }
  bool IsFinal(const absl::Status& status) const override;

  absl::Status Prepare(Work& work);  // model_, runner_ and flow_
  absl::Status Run(Work& work);
  absl::Status RunSerial(Work& work);
  absl::Status ReadInput(Work& work);
  absl::Status ReadValues(Work& work);
  absl::Status TakeCarry(Work& work);
  absl::Status TakeCaches(const Assign& assign);
  absl::Status GiveCaches(Work& work);
  absl::Status StoreStates(Work& work);
  void WriteTrace(Work& work);
  absl::Status Wrote(absl::Status status);  // what came of a write of output or boundary

  const std::string name_;
  const std::unique_ptr<ObjectStore> objects_;
  const std::string models_;
  const ModelOptions options_;
  const bool wavefront_;
  WorkerProbe& probe_;
  ThreadPool pool_;
  std::string model_hash_;  // of model_
  std::shared_ptr<const Model> model_;
  int64_t chunk_ = 0;  // that runner_ was made for
  std::unique_ptr<SequenceRunner> runner_;
  std::unique_ptr<LinkFlow> flow_;
  // Attention's caches in runner_ are as of this boundary; empty: of none. And the epochs of their
  // sequence's chunks.
  std::string stands_;
  std::vector<double> cache_epochs_;
};

}  // namespace longwave

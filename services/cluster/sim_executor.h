// A simulated device: sleeps where a model would compute, and passes states, outputs and boundaries
// as a real one does. For tests of scheduling with many more workers than there are processors.
//
// A chunk of the job's full length takes `layers` x `layer_ms`, a shorter one in proportion. In
// each layer the state goes out as soon as the `early` part of the layer's time is over and the
// state of the chunk before is there. States are numbers that depend on the job's every chunk
// before: a worker that took up a wrong one fails the job.
//
// Thread safety: as ChunkPipeline.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/object_store.h"
#include "services/cluster/chunk_pipeline.h"

namespace longwave {

struct SimDevice {
  double layer_ms = 1;
  int64_t layers = 24;
  int64_t state_bytes = 4096;  // of a layer
  double early = 0.25;
  int64_t fails_after = 0;  // chunks; then the device fails. 0: never
  bool wave = false;        // the state goes out at the layer's end: what state passing saves

  std::string ToString() const;  // "sim:layer_ms=1,layers=24,..."
};

// "sim", or "sim:NAME=VALUE,...". InvalidArgument names what is wrong.
absl::StatusOr<SimDevice> ParseSimDevice(absl::string_view text);
bool IsSimDevice(absl::string_view text);

class SimExecutor final : public ChunkPipeline {
 public:
  SimExecutor(std::unique_ptr<ObjectStore> objects, const SimDevice& device, Exchange* exchange,
              WorkerProbe& probe, FinishedFn finished);
  ~SimExecutor() override;

 private:
  absl::Status Compute(ChunkWork& work) override;
  absl::Status TakeValues(ChunkWork& work) override;
  absl::StatusOr<Done> Store(ChunkWork& work) override;
  absl::Status Fill(const ChunkWork& work, const BoundaryObject& object,
                    StateStream& stream) override;
  void Discard(const ChunkKey& key) override { RemoveChunk(key, *objects_); }
  bool IsFinal(const absl::Status& status) const override;

  StateBytes State(uint64_t value) const;
  absl::StatusOr<ObjectInfo> WriteBoundary(const ChunkWork& work);

  const std::unique_ptr<ObjectStore> objects_;
  const SimDevice device_;
  WorkerProbe& probe_;
  int64_t computed_ = 0;  // chunks
};

}  // namespace longwave

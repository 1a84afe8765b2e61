// A worker's chunks from assignment to result, several under way: one is computed while the results
// of the one before are stored and the next one waits. What computing and storing is, belongs to
// the class that derives from this: the models (ChunkExecutor), or a simulated device.
//
//   Add -> queue -> Compute (a thread) -> TakeValues, Store (another) -> `finished`
//
// Thread safety: the public calls are safe. The virtual ones: Compute() on one thread, TakeValues()
// and Store() on another, so that Compute() of a chunk may run beside TakeValues() of the one
// before, never of an earlier one.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/boundary.h"
#include "observability/worker_probe.h"
#include "scheduler/object_store.h"
#include "scheduler/protocol/messages.h"
#include "worker/links/exchange.h"

namespace longwave {

// A chunk under way.
struct ChunkWork {
  explicit ChunkWork(const Assign& to_do) : assign(to_do) {}
  virtual ~ChunkWork() = default;

  const Assign assign;
  const ChunkKey& key() const { return assign.key; }
  int64_t count() const { return assign.tokens; }
  int64_t position() const { return assign.start_position + assign.first; }

  std::shared_ptr<StateStream> before, after;  // set by Compute()
  std::atomic<bool> dropped = false;

 private:
  friend class ChunkPipeline;
  BoundaryObject boundary;   // committed meanwhile
  int64_t boundary_ms = -1;  // when that became known
  int64_t began_us = 0;
};

// The objects of a chunk that will not be committed. What fails here is only left over.
void RemoveChunk(const ChunkKey& key, ObjectStore& objects);

// The boundary of this object, of this model and position, in at most `most` bytes. Errors: the
// store's; DataLoss, FailedPrecondition and InvalidArgument for another, with its name. `probe`
// (null: none) is told of a chunk that starts from it.
absl::StatusOr<Boundary> ReadBoundary(ObjectStore& objects, const BoundaryObject& object,
                                      const std::string& model_hash, int64_t position, int64_t most,
                                      WorkerProbe* probe);

class ChunkPipeline {
 public:
  struct Finished {
    Message message;      // Done, Failed, or HandBack where the object store has no room
    absl::Status health;  // an error: this worker is of no use any more
  };
  // Called on a thread of the pipeline.
  using FinishedFn = std::function<void(const Finished&)>;

  ChunkPipeline(Exchange* exchange, FinishedFn finished)
      : exchange_(exchange), finished_(std::move(finished)) {}
  virtual ~ChunkPipeline() = default;

  void Add(const Assign& assign);
  // The chunk before `key` is committed: a link that has not brought all is no longer waited for.
  void BoundaryReady(const ChunkKey& key, const BoundaryObject& object);
  // Nobody wants the chunk any more: computed no further, not reported, and what was stored of it
  // is removed.
  void Drop(const ChunkKey& key);
  // Its boundary is in the object store for all to find.
  void Committed(const ChunkKey& key);
  // Those whose computation has not begun: they are forgotten.
  std::vector<ChunkKey> TakeBackQueued();

 protected:
  void Start();
  // The destructor of what derives from this calls it first.
  void Stop();
  Exchange* exchange() const { return exchange_; }  // null: no links

  virtual std::unique_ptr<ChunkWork> NewWork(const Assign& assign) {
    return std::make_unique<ChunkWork>(assign);
  }
  // Sets the streams and runs the model.
  virtual absl::Status Compute(ChunkWork& work) = 0;
  virtual absl::Status TakeValues(ChunkWork& work) = 0;
  virtual absl::StatusOr<Done> Store(ChunkWork& work) = 0;
  // Puts the tensors of a boundary object into the stream.
  virtual absl::Status Fill(const ChunkWork& work, const BoundaryObject& object,
                            StateStream& stream) = 0;
  // Removes what Store() wrote.
  virtual void Discard(const ChunkKey& key) = 0;
  // Whether another worker would fail in the same way.
  virtual bool IsFinal(const absl::Status& status) const = 0;

  // For Compute(): the stream of the chunk before, filled from the boundary where it is committed,
  // `zeros` where there is none.
  absl::StatusOr<std::shared_ptr<StateStream>> StreamBefore(
      ChunkWork& work, int64_t tensors, const std::function<void(StateStream&)>& zeros);
  std::shared_ptr<StateStream> StreamAfter(const ChunkWork& work, int64_t tensors);
  // For Compute(): until no earlier chunk has values to be taken.
  void WaitForValues();

 private:
  using WorkPtr = std::shared_ptr<ChunkWork>;
  void ComputeLoop();
  void StoreLoop();
  void FillLoop();
  void Fail(const ChunkWork& work, const absl::Status& status);
  void HandBackLater(const ChunkWork& work, const absl::Status& status);
  // The result is known, or unwanted.
  void Forget(const WorkPtr& work);
  absl::Status Guarded(const std::function<absl::Status()>& step);

  Exchange* const exchange_;
  FinishedFn finished_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::deque<WorkPtr> queued_;
  std::deque<WorkPtr> computed_;       // the first is being stored
  std::vector<WorkPtr> all_;           // queued, in work, computed
  std::vector<ChunkKey> stored_;       // reported as done, and not settled
  std::vector<ChunkKey> discard_;      // for the thread of FillLoop()
  int64_t untaken_ = 0;                // chunks computed whose values are not taken
  std::deque<std::string> committed_;  // streams that may still be wanted, oldest first
  int64_t values_us_ = 0;              // when values were taken last
  std::string model_hash_;             // of the latest chunk computed,
  int64_t tensors_ = 0;                // and how many tensors its stream has
  std::vector<std::thread> threads_;
};

}  // namespace longwave

// A worker's talk with its scheduler: says how it is with it, takes chunks, and repeats each result
// until the scheduler has answered it. A scheduler that goes away and comes back loses nothing: the
// computation goes on in between. Where it stays away for a lease time, the worker tries the other
// servers that it was told of, in turn; where it drains, the next one after two heartbeats.
//
// Thread safety: one thread owns the loop and the socket; chunks are computed by the pipeline's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/worker_probe.h"
#include "scheduler/protocol/sockets.h"
#include "services/cluster/chunk_pipeline.h"

namespace longwave {

struct WorkerLoopOptions {
  std::string device;
  std::string links;                      // its Exchange's endpoint; empty: none
  WorkerProbe* probe = nullptr;           // outlives the loop
  std::string uid;                        // see Hello
  int64_t slots = 2;                      // chunks at a time: one in work, one that waits for it
  std::vector<std::string> servers = {};  // their endpoints; the loop begins at the first
  // When a server drains: waits for another, or for the same again. Needs `servers` and `connect`.
  bool stays = false;
  // A server that says nothing for so long is left, until one has said its lease time.
  int64_t silence_ms = 6000;
  // Opens the socket to another scheduler, where this one says that it does not lead, or nothing.
  std::function<absl::StatusOr<std::unique_ptr<MessageSocket>>(const std::string& endpoint)>
      connect;
};

class WorkerLoop {
 public:
  // Makes what computes, once the scheduler has said where objects and models are.
  using PrepareFn = std::function<absl::StatusOr<std::unique_ptr<ChunkPipeline>>(
      const Welcome&, ChunkPipeline::FinishedFn)>;

  WorkerLoop(std::unique_ptr<MessageSocket> socket, WorkerLoopOptions options, PrepareFn prepare)
      : socket_(std::move(socket)), options_(std::move(options)), prepare_(std::move(prepare)) {}

  // Until `stop` says so, or the scheduler drains this worker and it does not stay: then the chunk
  // in work is finished and committed first, as long as the scheduler answers. An error where this
  // worker cannot go on: it has said so to the scheduler first.
  absl::Status Run(const std::function<bool()>& stop);

 private:
  using Key = std::pair<std::string, int64_t>;  // job, chunk
  struct Held {
    ChunkKey key;
    std::optional<Message> result;
  };

  absl::Status Handle(const Message& message);
  void Known(bool known);
  void Take(const Assign& assign);
  void TakeResults();
  void Leave(bool for_good);
  void Rest();
  void Settled(const ChunkKey& key, bool committed);
  Held* Find(const ChunkKey& key);
  absl::Status Follow(const std::string& endpoint);
  absl::Status Connect(const std::string& endpoint);
  // After a lease time of silence: to the next server.
  void LeaveSilentServer();
  void TryNextServer();
  void Speak();  // all that there is to say; also the heartbeat

  std::unique_ptr<MessageSocket> socket_;
  const WorkerLoopOptions options_;
  PrepareFn prepare_;
  Welcome welcome_;
  bool known_ = false;  // by the scheduler
  int64_t started_ms_ = 0;
  int64_t heard_ms_ = 0;         // from a scheduler
  int64_t tried_ms_ = 0;         // the latest connection
  size_t server_ = 0;            // of options_.servers: the latest tried
  std::string silent_;           // the endpoint that was left, not to be followed to
  int64_t silent_until_ms_ = 0;  // before this
  bool leaving_ = false;         // takes no more chunks from this server
  bool for_good_ = false;        // nor from another
  bool resting_ = false;         // drained: says nothing
  int64_t rest_until_ms_ = 0, said_ms_ = 0;
  absl::Status health_;
  std::map<Key, Held> held_;
  std::mutex mutex_;
  std::vector<ChunkPipeline::Finished> finished_;  // guarded by mutex_
  std::unique_ptr<ChunkPipeline> pipeline_;        // its threads use what is above
};

}  // namespace longwave

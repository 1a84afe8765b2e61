// A worker's talk with its scheduler: asks for chunks, says that it is alive while one is computed,
// and repeats each result until the scheduler has answered it. A scheduler that goes away and comes
// back loses nothing: the computation goes on in between.
//
//   unknown --Welcome--> idle --Assign--> computing --> result --Committed, Dropped--> idle
//
// Thread safety: one thread owns the loop and the socket; chunks are computed on another, made
// here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "scheduler/protocol/sockets.h"

namespace longwave {

class WorkerLoop {
 public:
  struct Executed {
    Message message;      // Done or Failed
    absl::Status health;  // an error: this worker is of no use any more
  };
  using ExecuteFn = std::function<Executed(const Assign&)>;
  // Makes what executes, once the scheduler has said where objects and models are.
  using PrepareFn = std::function<absl::StatusOr<ExecuteFn>(const Welcome&)>;

  WorkerLoop(std::unique_ptr<MessageSocket> socket, std::string device, PrepareFn prepare)
      : socket_(std::move(socket)), device_(std::move(device)), prepare_(std::move(prepare)) {}
  ~WorkerLoop();

  // Until the scheduler drains this worker, or `stop` says so: then the chunk is finished and
  // committed first, if the scheduler answers within a lease time. An error where this worker
  // cannot go on: it has said so to the scheduler first.
  absl::Status Run(const std::function<bool()>& stop);

 private:
  absl::Status Handle(const Message& message);
  void Start(const Assign& assign);
  void Compute(const Assign& assign);
  void TakeResult();
  void Settled(const ChunkKey& key);
  bool Computing() const { return work_.has_value() && !result_.has_value(); }
  void Speak();  // what there is to say now; also the heartbeat

  std::unique_ptr<MessageSocket> socket_;
  const std::string device_;
  PrepareFn prepare_;
  ExecuteFn execute_;
  Welcome welcome_;
  bool known_ = false;  // by the scheduler
  bool leaving_ = false;
  std::optional<Assign> work_;
  std::optional<Message> result_;  // of work_
  absl::Status health_;
  std::thread thread_;  // computes work_
  std::mutex mutex_;
  std::optional<Executed> computed_;  // by thread_, guarded by mutex_
};

}  // namespace longwave

// The thread of the scheduler: a Dispatcher over the socket that workers reach.
//
// Thread safety: safe.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/dispatcher.h"
#include "scheduler/protocol/sockets.h"

namespace longwave {

class DispatchLoop {
 public:
  // `health`: called, on the loop's thread, with what came of each change from well to unwell and
  // back.
  DispatchLoop(JobStore& store, const DispatcherOptions& options,
               std::unique_ptr<MessageSocket> socket,
               std::function<void(const absl::Status&)> health);
  ~DispatchLoop();  // ends the thread

  absl::Status Start();
  void Wake() { socket_->waker().Wake(); }  // there may be something to give out
  void WorkerEnded(const std::string& worker);
  void StartDrain();
  size_t workers() const;
  std::vector<WorkerInfo> Workers() const;  // as of the latest turn of the loop
  const std::string& endpoint() const { return socket_->endpoint(); }

 private:
  void Run();
  void Post(std::function<void()> work);

  std::unique_ptr<MessageSocket> socket_;
  Dispatcher dispatcher_;
  std::function<void(const absl::Status&)> health_;
  mutable std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // for the loop's thread
  std::atomic<bool> stop_ = false;
  std::vector<WorkerInfo> workers_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace longwave

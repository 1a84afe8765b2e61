// The thread of the scheduler: a Dispatcher over the socket that workers reach, while this server
// leads. While another does, workers are told where that one is.
//
// Thread safety: safe.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/dispatcher.h"
#include "scheduler/leadership.h"
#include "scheduler/protocol/sockets.h"

namespace longwave {

class DispatchLoop {
 public:
  // `health`: called, on the loop's thread, with what came of each change from well to unwell and
  // back. `advertise`: where workers are told to connect; empty: the socket's address.
  DispatchLoop(JobStore& store, const DispatcherOptions& options,
               std::unique_ptr<MessageSocket> socket, const std::string& advertise,
               std::function<void(const absl::Status&)> health);
  ~DispatchLoop();  // ends the thread

  void Start();
  bool leads() const { return leads_; }
  void Wake() { socket_->waker().Wake(); }  // there may be something to give out
  void WorkerEnded(const std::string& worker);
  void StartDrain();
  size_t workers() const;
  std::vector<WorkerInfo> Workers() const;                   // as of 0.2 s ago at most
  const std::string& endpoint() const { return endpoint_; }  // advertised

 private:
  void Run();
  // Looks who leads, and begins or ends to.
  absl::Status Beat();
  void Lead(const Leader& leader);
  void Follow(const Leader& leader);
  void Receive();
  void TellProbe();
  void TellWorkers();
  void TellDispatch(std::chrono::steady_clock::duration took);
  void Post(std::function<void()> work);

  JobStore& store_;
  const DispatcherOptions options_;
  std::unique_ptr<MessageSocket> socket_;
  const std::string endpoint_;
  Leadership leadership_;
  Leader leader_;
  int64_t beat_ms_ = 0, told_ms_ = 0;
  std::chrono::steady_clock::duration unsaid_{};  // the scheduler's time, of chunks to come
  int64_t dispatched_ = 0;
  bool draining_ = false;
  std::unique_ptr<Dispatcher> dispatcher_;  // while this server leads
  std::function<void(const absl::Status&)> health_;
  mutable std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // for the loop's thread
  std::atomic<bool> stop_ = false, leads_ = false;
  std::vector<WorkerInfo> workers_;               // guarded by mutex_
  std::chrono::steady_clock::time_point copied_;  // when they were
  std::thread thread_;
};

}  // namespace longwave

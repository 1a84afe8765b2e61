// What a server that leads does beside dispatching, on threads of its own because the object
// store may be slow: writes the manifests of jobs that are complete, and removes from the object
// store what nothing names any more, and counts, for metrics, what is in the database.
//
// Thread safety: safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "observability/server_probe.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"
#include "scheduler/token_store.h"
#include "services/cluster/dispatch_loop.h"

namespace longwave {

class Housekeeper {
 public:
  // All outlive it. `health`: called with what came of each change from well to unwell and back.
  Housekeeper(JobStore& store, ObjectStore& objects, const DispatchLoop& loop, ServerProbe& probe,
              std::function<void(const absl::Status&)> health);
  ~Housekeeper();  // ends the thread
  void Wake();     // a job is complete

 private:
  void Run();
  void RunSweeps();
  absl::Status Finish();
  absl::Status Count();
  absl::Status CountJobs();

  JobStore& store_;
  TokenStore tokens_;
  ObjectStore& objects_;
  const DispatchLoop& loop_;  // whether this server leads, and who its workers are
  ServerProbe& probe_;
  const std::function<void(const absl::Status&)> health_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false, woken_ = true;
  std::thread thread_;
  std::thread sweeper_;  // goes through all objects: nobody waits for it
};

}  // namespace longwave

// What a server that leads does beside dispatching, on a thread of its own because the object store
// may be slow: writes the manifests of jobs that are complete, and removes from the object store
// what nothing names any more, and counts the queue.
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

namespace longwave {

class Housekeeper {
 public:
  // `leads`: whether this server leads now. `health`: called with what came of each change from
  // well to unwell and back.
  Housekeeper(JobStore& store, ObjectStore& objects, ServerProbe& probe,
              std::function<bool()> leads, std::function<void(const absl::Status&)> health);
  ~Housekeeper();  // ends the thread
  void Wake();     // a job is complete

 private:
  void Run();
  absl::Status Finish();
  absl::Status Count();

  JobStore& store_;
  ObjectStore& objects_;
  ServerProbe& probe_;
  const std::function<bool()> leads_;
  const std::function<void(const absl::Status&)> health_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false, woken_ = true;
  std::thread thread_;
};

}  // namespace longwave

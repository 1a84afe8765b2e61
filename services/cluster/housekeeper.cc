#include "services/cluster/housekeeper.h"

#include <chrono>
#include <utility>
#include <vector>

#include "observability/log.h"
#include "scheduler/finish_job.h"
#include "scheduler/garbage.h"
#include "services/cluster/api.h"

namespace longwave {
namespace {

constexpr std::chrono::milliseconds kLook{1000};  // complete jobs that nobody woke us for
constexpr int64_t kFinishAtOnce = 16;
constexpr int64_t kCountMs = 5000;
constexpr int64_t kSweepMs = 10 * 60 * 1000;

}  // namespace

Housekeeper::Housekeeper(JobStore& store, ObjectStore& objects, ServerProbe& probe,
                         std::function<bool()> leads,
                         std::function<void(const absl::Status&)> health)
    : store_(store),
      objects_(objects),
      probe_(probe),
      leads_(std::move(leads)),
      health_(std::move(health)),
      thread_([this] { Run(); }) {}

Housekeeper::~Housekeeper() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Housekeeper::Wake() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Housekeeper::Run() {
  bool well = true;
  int64_t swept_ms = 0, counted_ms = 0;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, kLook, [&] { return stop_ || woken_; });
      if (stop_) return;
      woken_ = false;
    }
    if (!leads_()) continue;
    absl::Status status = Finish();
    if (status.ok() && WallClockMs() > counted_ms + kCountMs) {
      counted_ms = WallClockMs();
      status = Count();
    }
    if (status.ok() && WallClockMs() > swept_ms + kSweepMs) {
      swept_ms = WallClockMs();
      const auto stop = [this] {
        const std::lock_guard<std::mutex> lock(mutex_);
        return stop_;
      };
      const auto swept = Sweep(objects_, store_, swept_ms, SweepOptions(), stop);
      status = swept.status();
      if (swept.ok() && swept->partial + swept->objects > 0) {
        log::Info(
            "garbage removed",
            {{"objects", swept->objects}, {"bytes", swept->bytes}, {"unfinished", swept->partial}});
      }
    }
    if (status.ok() != well) {
      well = status.ok();
      health_(status);
    }
  }
}

absl::Status Housekeeper::Count() {
  const absl::StatusOr<QueueSummary> queue = store_.Queue();
  if (!queue.ok()) return queue.status();
  probe_.QueueIs({queue->tokens, queue->chunks_waiting, queue->chunks_leased,
                  queue->chunks_committed, queue->jobs_queued, queue->jobs_running});
  return absl::OkStatus();
}

absl::Status Housekeeper::Finish() {
  while (true) {
    const absl::StatusOr<std::vector<Job>> jobs = store_.Complete(kFinishAtOnce);
    if (!jobs.ok()) return jobs.status();
    for (const Job& job : *jobs) {
      absl::Status finished = FinishJob(job, store_, objects_, WallClockMs());
      if (!finished.ok()) return finished;
      log::Info("job succeeded", {{"job", job.id}});
    }
    if (static_cast<int64_t>(jobs->size()) < kFinishAtOnce) return absl::OkStatus();
  }
}

}  // namespace longwave

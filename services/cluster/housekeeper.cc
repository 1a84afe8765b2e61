#include "services/cluster/housekeeper.h"

#include <chrono>
#include <limits>
#include <map>
#include <set>
#include <string>
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
constexpr int64_t kCountRest = 50;   // times as long as counting took, it is not done again
constexpr int64_t kMostShown = 100;  // jobs, and tenants, that have series of their own
constexpr std::chrono::milliseconds kSweep{10 * 60 * 1000};

}  // namespace

Housekeeper::Housekeeper(JobStore& store, ObjectStore& objects, const DispatchLoop& loop,
                         ServerProbe& probe, std::function<void(const absl::Status&)> health)
    : store_(store),
      tokens_(store.database()),
      objects_(objects),
      loop_(loop),
      probe_(probe),
      health_(std::move(health)),
      thread_([this] { Run(); }),
      sweeper_([this] { RunSweeps(); }) {}

Housekeeper::~Housekeeper() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  sweeper_.join();
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
  int64_t count_ms = 0;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, kLook, [&] { return stop_ || woken_; });
      if (stop_) return;
      woken_ = false;
    }
    if (!loop_.leads()) continue;
    absl::Status status = Finish();
    if (const int64_t began_ms = WallClockMs(); status.ok() && began_ms >= count_ms) {
      status = Count();
      const int64_t now_ms = WallClockMs();
      count_ms = now_ms + kCountRest * (now_ms - began_ms);
    }
    if (status.ok() != well) {
      well = status.ok();
      health_(status);
    }
  }
}

void Housekeeper::RunSweeps() {
  const auto stopped = [this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stop_;
  };
  while (!stopped()) {
    const bool leads = loop_.leads();
    if (leads) {
      const auto swept = Sweep(objects_, store_, WallClockMs(), SweepOptions(), stopped);
      if (!swept.ok()) {
        log::Warning("garbage stays for now", {{"error", swept.status().message()}});
      } else if (swept->partial + swept->objects > 0) {
        log::Info(
            "garbage removed",
            {{"objects", swept->objects}, {"bytes", swept->bytes}, {"unfinished", swept->partial}});
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, leads ? kSweep : kLook, [&] { return stop_; });
  }
}

absl::Status Housekeeper::Count() {
  const absl::StatusOr<QueueSummary> queue = store_.Queue();
  if (!queue.ok()) return queue.status();
  probe_.QueueIs({queue->tokens, queue->chunks_waiting, queue->chunks_leased,
                  queue->chunks_committed, queue->jobs_queued, queue->jobs_running});
  const auto expiries = tokens_.NextExpiries(WallClockMs(), kMostShown);
  if (!expiries.ok()) return expiries.status();
  std::vector<std::pair<std::string, double>> seconds;
  for (const auto& [tenant, ms] : *expiries) seconds.emplace_back(tenant, ms / 1000.0);
  probe_.TokenExpiriesAre(seconds);
  return CountJobs();
}

absl::Status Housekeeper::CountJobs() {
  JobFilter filter;
  filter.state = JobState::kRunning;
  const auto jobs = store_.List(filter, std::numeric_limits<int64_t>::max(), kMostShown);
  if (!jobs.ok()) return jobs.status();
  std::map<std::string, std::set<std::string>> workers;  // of each job
  for (const WorkerInfo& worker : loop_.Workers()) {
    for (const ChunkKey& key : worker.chunks) workers[key.job].insert(worker.name);
  }
  std::vector<ServerProbe::RunningJob> running;
  for (const Job& job : *jobs) {
    running.push_back({job.id, job.length, job.tokens_done, job.chunk_count - job.next,
                       job.leases(), job.committed, static_cast<int64_t>(workers[job.id].size())});
  }
  probe_.RunningJobsAre(running);
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

// What a server (`longwave serve`) measures: verbs for those who do the work, and the text that
// Prometheus reads. docs/metrics.md has every name, unit and meaning.
//
// Thread safety: safe. Lifetime: those who have a probe are outlived by it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "observability/request_probe.h"

namespace longwave {

class ServerProbe {
 public:
  ServerProbe();
  ~ServerProbe();

  // Chunks on their way.
  void Dispatched(int64_t tokens);    // leased to a worker
  void DispatchTook(double seconds);  // the scheduler's own time for one chunk
  void ChunkCommitted(int64_t tokens);
  void LeaseLost();                       // its worker is gone
  void ChunksCut(int64_t chunks);         // taken back without blame: one before them was lost
  void ChunkHandedBack();                 // by a worker that leaves
  void Retried();                         // a worker reported an error that is tried again
  void StaleReport();                     // of an older epoch: refused
  void JobOver(absl::string_view state);  // "succeeded", "failed", "cancelled"
  void JobPoisoned();                     // it failed because its chunk lost too many workers

  // What is there now.
  struct Queue {
    int64_t tokens = 0;  // of jobs that are not over, not committed yet
    int64_t chunks_waiting = 0, chunks_leased = 0, chunks_committed = 0;  // of jobs not over
    int64_t jobs_queued = 0, jobs_running = 0;
  };
  void QueueIs(const Queue& queue);

  // Jobs that run, all that are to have series: those of others end. The caller bounds their
  // number.
  struct RunningJob {
    std::string id;
    int64_t tokens = 0, tokens_committed = 0;
    int64_t chunks_waiting = 0, chunks_leased = 0, chunks_committed = 0;
    int64_t workers = 0;  // that have chunks of it
  };
  void RunningJobsAre(const std::vector<RunningJob>& jobs);
  // The next expiry of a token of each tenant that has one: tenant, seconds since 1970.
  void TokenExpiriesAre(const std::vector<std::pair<std::string, double>>& expiries);

  enum class WorkerState { kIdle, kBusy, kDraining };
  void WorkerIs(const std::string& worker, const std::string& device, WorkerState state);
  void WorkerSpeed(const std::string& worker, double tokens_per_second);
  void WorkerGone(const std::string& worker);  // with all its series
  void DeviceFailed();                         // a worker says that it ends because of that
  // Of several servers one leads. One that does not has no queue and no workers.
  void Leads(bool leads, int64_t term);

  // `route`: the path with names for its variable parts, "/v1/jobs/{id}"; never what a client
  // typed, or there would be as many series as jobs.
  void ApiRequest(absl::string_view route, absl::string_view method, int status, double seconds);

  RequestProbe& database() const;  // transactions and queries
  RequestProbe& objects() const;

  // The text format of Prometheus, version 0.0.4.
  std::string Text() const;
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Seconds until `queued` tokens are computed by `workers` workers, `measured` of which are known to
// do `speed` tokens a second in sum. Those not yet measured count as the mean of those that are,
// or, where none is, as `otherwise` each. No worker counts as one: the queue is then what one
// worker would take, so that the figure says how many to start.
double DrainSeconds(int64_t queued, int64_t workers, int64_t measured, double speed,
                    double otherwise);

}  // namespace longwave

#include "observability/server_probe.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "observability/registry.h"

namespace longwave {

using metrics::Counter;
using metrics::Gauge;
using metrics::Histogram;

namespace {

// Of a worker, before any was ever measured.
constexpr double kAssumedSpeed = 10000;  // tokens per second
constexpr const char* kWorkerStates[] = {"idle", "busy", "draining"};
constexpr absl::string_view kMethods[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};
constexpr const char* kJobEnds[] = {"succeeded", "failed", "cancelled"};

}  // namespace

struct ServerProbe::Impl {
  metrics::Registry registry;
  Counter& dispatched_tokens =
      metrics::OneCounter(registry, "longwave_tokens_dispatched_total",
                          "Tokens of chunks leased to workers, repeated ones too");
  Counter& dispatched = metrics::OneCounter(registry, "longwave_chunks_dispatched_total",
                                            "Chunks leased to workers, repeated ones too");
  Histogram& dispatch_seconds = metrics::Histograms(registry, "longwave_dispatch_seconds",
                                                    "Time the scheduler worked for one chunk")
                                    .Add({}, metrics::Fine());
  Counter& committed_tokens = metrics::OneCounter(registry, "longwave_tokens_committed_total",
                                                  "Tokens of chunks that were committed");
  Counter& committed = metrics::OneCounter(registry, "longwave_chunks_committed_total",
                                           "Chunks that were committed");
  Counter& losses = metrics::OneCounter(registry, "longwave_lease_losses_total",
                                        "Leases that ended because the worker was gone");
  Counter& cut = metrics::OneCounter(registry, "longwave_chunks_cut_total",
                                     "Chunks taken back because one before them was lost");
  Counter& handed_back = metrics::OneCounter(registry, "longwave_chunks_handed_back_total",
                                             "Chunks given back by workers that leave");
  Counter& retries =
      metrics::OneCounter(registry, "longwave_retries_total",
                          "Chunks that are tried again after a worker reported an error");
  Counter& stale = metrics::OneCounter(registry, "longwave_stale_reports_total",
                                       "Reports under an older epoch, refused");
  metrics::Family<Counter>& jobs_over =
      metrics::Counters(registry, "longwave_jobs_over_total", "Jobs that ended, by state");
  Counter& poisoned =
      metrics::OneCounter(registry, "longwave_jobs_poisoned_total",
                          "Jobs that failed because one of their chunks lost too many workers");

  Gauge& queue_tokens = metrics::OneGauge(registry, "longwave_queue_tokens",
                                          "Tokens of jobs that are not over, not committed yet");
  Gauge& drain = metrics::OneGauge(registry, "longwave_drain_seconds",
                                   "Queued tokens over the workers' tokens per second");
  metrics::Family<Gauge>& chunks =
      metrics::Gauges(registry, "longwave_chunks", "Chunks of jobs that are not over, by state");
  Gauge &waiting = chunks.Add({{"state", "waiting"}}), &leased = chunks.Add({{"state", "leased"}}),
        &done = chunks.Add({{"state", "committed"}});
  metrics::Family<Gauge>& jobs =
      metrics::Gauges(registry, "longwave_jobs", "Jobs that are not over, by state");
  Gauge &queued = jobs.Add({{"state", "queued"}}), &running = jobs.Add({{"state", "running"}});

  metrics::Family<Gauge>& workers_by_state =
      metrics::Gauges(registry, "longwave_workers", "Workers, by state");
  metrics::Family<Gauge>& worker_speed =
      metrics::Gauges(registry, "longwave_worker_tokens_per_second",
                      "Tokens per second that a worker was measured at");
  Counter& device_failures =
      metrics::OneCounter(registry, "longwave_device_failures_total",
                          "Workers that ended because their device stopped working");

  metrics::Family<Gauge>& job_tokens =
      metrics::Gauges(registry, "longwave_job_tokens", "Tokens of a job that runs");
  metrics::Family<Gauge>& job_tokens_committed =
      metrics::Gauges(registry, "longwave_job_tokens_committed", "Those that are committed");
  metrics::Family<Gauge>& job_chunks =
      metrics::Gauges(registry, "longwave_job_chunks", "Chunks of a job that runs, by state");
  metrics::Family<Gauge>& job_workers =
      metrics::Gauges(registry, "longwave_job_workers", "Workers that have chunks of the job");
  metrics::Family<Gauge>& token_expiry =
      metrics::Gauges(registry, "longwave_token_expiry_timestamp_seconds",
                      "When the next token of a tenant expires, since 1970");

  RequestProbe database{metrics::Histograms(registry, "longwave_store_seconds",
                                            "Seconds of transactions and queries of the database")
                            .Add({}, metrics::Coarse()),
                        metrics::OneCounter(registry, "longwave_store_errors_total",
                                            "Transactions and queries that the database failed")};
  RequestProbe objects = metrics::ObjectRequests(registry);

  Gauge& leader = metrics::OneGauge(registry, "longwave_leader", "1 while this server leads");
  Gauge& term = metrics::OneGauge(registry, "longwave_leader_term",
                                  "Term of the leader that this server knows of");
  metrics::Family<Histogram>& api =
      metrics::Histograms(registry, "longwave_api_request_seconds",
                          "Seconds of HTTP requests, by route, method and status");

  struct Worker {
    WorkerState state = WorkerState::kIdle;
    std::string device;
    double tokens_per_second = 0;  // 0: not measured
    Gauge* speed = nullptr;
  };
  // Series of what comes and goes.
  using Series = std::set<std::pair<metrics::Family<Gauge>*, Gauge*>>;
  std::mutex mutex;  // of all below
  Queue queue;
  std::map<std::string, Worker> workers;
  Series of_jobs, of_tokens;
  double last_speed = kAssumedSpeed;  // that any worker was measured at

  void Update() {  // REQUIRES: mutex. What depends on several things.
    int64_t count[3] = {}, measured = 0;
    double speed = 0;
    for (const auto& [name, worker] : workers) {
      ++count[static_cast<int>(worker.state)];
      measured += worker.tokens_per_second > 0;
      speed += worker.tokens_per_second;
    }
    for (int i = 0; i < 3; ++i) {
      workers_by_state.Add({{"state", kWorkerStates[i]}}).Set(static_cast<double>(count[i]));
    }
    queue_tokens.Set(static_cast<double>(queue.tokens));
    waiting.Set(static_cast<double>(queue.chunks_waiting));
    leased.Set(static_cast<double>(queue.chunks_leased));
    done.Set(static_cast<double>(queue.chunks_committed));
    queued.Set(static_cast<double>(queue.jobs_queued));
    running.Set(static_cast<double>(queue.jobs_running));
    drain.Set(DrainSeconds(queue.tokens, static_cast<int64_t>(workers.size()), measured, speed,
                           last_speed));
  }
  void Remove(const Worker& worker) {
    if (worker.speed != nullptr) worker_speed.Remove(worker.speed);
  }
  static void Add(Series& series, metrics::Family<Gauge>& family, const prometheus::Labels& labels,
                  double value) {
    Gauge& gauge = family.Add(labels);
    gauge.Set(value);
    series.emplace(&family, &gauge);
  }
  static void Replace(Series& series, Series now) {
    for (const auto& one : series) {
      if (now.count(one) == 0) one.first->Remove(one.second);
    }
    series = std::move(now);
  }
};

double DrainSeconds(int64_t queued, int64_t workers, int64_t measured, double speed,
                    double otherwise) {
  if (queued <= 0) return 0;
  const double each = measured > 0 ? speed / static_cast<double>(measured) : otherwise;
  return static_cast<double>(queued) / (each * static_cast<double>(std::max<int64_t>(workers, 1)));
}

ServerProbe::ServerProbe() : impl_(std::make_unique<Impl>()) {
  metrics::BuildInfo(impl_->registry);
  for (const char* state : kJobEnds) impl_->jobs_over.Add({{"state", state}});
  impl_->Update();
}
ServerProbe::~ServerProbe() = default;

void ServerProbe::Dispatched(int64_t tokens) {
  impl_->dispatched.Increment();
  impl_->dispatched_tokens.Increment(static_cast<double>(tokens));
}
void ServerProbe::DispatchTook(double seconds) { impl_->dispatch_seconds.Observe(seconds); }
void ServerProbe::ChunkCommitted(int64_t tokens) {
  impl_->committed.Increment();
  impl_->committed_tokens.Increment(static_cast<double>(tokens));
}
void ServerProbe::LeaseLost() { impl_->losses.Increment(); }
void ServerProbe::ChunksCut(int64_t chunks) { impl_->cut.Increment(static_cast<double>(chunks)); }
void ServerProbe::ChunkHandedBack() { impl_->handed_back.Increment(); }
void ServerProbe::Retried() { impl_->retries.Increment(); }
void ServerProbe::StaleReport() { impl_->stale.Increment(); }
void ServerProbe::JobOver(absl::string_view state) {
  impl_->jobs_over.Add({{"state", std::string(state)}}).Increment();
}
void ServerProbe::JobPoisoned() { impl_->poisoned.Increment(); }

void ServerProbe::QueueIs(const Queue& queue) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->queue = queue;
  impl_->Update();
}

void ServerProbe::WorkerIs(const std::string& worker, const std::string& device,
                           WorkerState state) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  Impl::Worker& known = impl_->workers[worker];
  known.device = device;
  known.state = state;
  impl_->Update();
}

void ServerProbe::WorkerSpeed(const std::string& worker, double tokens_per_second) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->workers.find(worker);
  if (found == impl_->workers.end() || !(tokens_per_second > 0)) return;
  Impl::Worker& known = found->second;
  if (known.speed == nullptr)
    known.speed = &impl_->worker_speed.Add({{"worker", worker}, {"device", known.device}});
  known.speed->Set(tokens_per_second);
  known.tokens_per_second = impl_->last_speed = tokens_per_second;
  impl_->Update();
}

void ServerProbe::WorkerGone(const std::string& worker) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  const auto found = impl_->workers.find(worker);
  if (found == impl_->workers.end()) return;
  impl_->Remove(found->second);
  impl_->workers.erase(found);
  impl_->Update();
}

void ServerProbe::DeviceFailed() { impl_->device_failures.Increment(); }

void ServerProbe::RunningJobsAre(const std::vector<RunningJob>& jobs) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  Impl::Series now;
  for (const RunningJob& job : jobs) {
    const auto add = [&](metrics::Family<Gauge>& family, int64_t value, const char* state) {
      prometheus::Labels labels = {{"job_id", job.id}};
      if (state != nullptr) labels["state"] = state;
      Impl::Add(now, family, labels, static_cast<double>(value));
    };
    add(impl_->job_tokens, job.tokens, nullptr);
    add(impl_->job_tokens_committed, job.tokens_committed, nullptr);
    add(impl_->job_workers, job.workers, nullptr);
    add(impl_->job_chunks, job.chunks_waiting, "waiting");
    add(impl_->job_chunks, job.chunks_leased, "leased");
    add(impl_->job_chunks, job.chunks_committed, "committed");
  }
  Impl::Replace(impl_->of_jobs, std::move(now));
}

void ServerProbe::TokenExpiriesAre(const std::vector<std::pair<std::string, double>>& expiries) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  Impl::Series now;
  for (const auto& [tenant, seconds] : expiries) {
    Impl::Add(now, impl_->token_expiry, {{"tenant", tenant}}, seconds);
  }
  Impl::Replace(impl_->of_tokens, std::move(now));
}

void ServerProbe::Leads(bool leads, int64_t term) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->leader.Set(leads ? 1 : 0);
  impl_->term.Set(static_cast<double>(term));
  if (leads) return;
  for (const auto& [name, worker] : impl_->workers) impl_->Remove(worker);
  impl_->workers.clear();
  Impl::Replace(impl_->of_jobs, {});
  Impl::Replace(impl_->of_tokens, {});
  impl_->queue = {};
  impl_->Update();
}

void ServerProbe::ApiRequest(absl::string_view route, absl::string_view method, int status,
                             double seconds) {
  // A client may type any method: it does not get a series of its own.
  const bool known =
      std::find(std::begin(kMethods), std::end(kMethods), method) != std::end(kMethods);
  impl_->api
      .Add({{"route", std::string(route)},
            {"method", known ? std::string(method) : "other"},
            {"status", absl::StrCat(status)}},
           metrics::Coarse())
      .Observe(seconds);
}

RequestProbe& ServerProbe::database() const { return impl_->database; }
RequestProbe& ServerProbe::objects() const { return impl_->objects; }

std::string ServerProbe::Text() const { return metrics::Text(impl_->registry); }

}  // namespace longwave

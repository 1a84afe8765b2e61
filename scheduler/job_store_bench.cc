// What the job store takes with 100,000 queued jobs in it, on SQLite and on PostgreSQL, both on the
// disk: submitting at a fixed rate beside a scheduler at work, listing, getting, giving out and
// committing chunks, starting again.
//
//   job_store_bench [JOBS [SECONDS]]
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/job_store.h"
#include "scheduler/testing/test_database.h"

namespace longwave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kSubmitsASecond = 300;
constexpr int kSubmitters = 32;  // as many requests at a time as an API server may have
constexpr size_t kWorkers = 256;
constexpr size_t kBatch = 32;  // chunks asked for, or committed, in one call
constexpr int64_t kNow = 1000000;

double Ms(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

// Times of one kind of call.
class Times {
 public:
  void Take(Clock::time_point from) {
    const double ms = Ms(Clock::now() - from);
    const std::lock_guard<std::mutex> lock(mutex_);
    ms_.push_back(ms);
  }
  void Print(const char* what) {
    std::sort(ms_.begin(), ms_.end());
    if (ms_.empty()) return;
    std::printf("  %-28s %7zu calls  p50 %7.2f ms  p99 %7.2f ms  max %7.2f ms\n", what, ms_.size(),
                ms_[ms_.size() / 2], ms_[ms_.size() * 99 / 100], ms_.back());
  }

 private:
  std::mutex mutex_;
  std::vector<double> ms_;
};

NewJob SomeJob(const std::string& id) {
  NewJob job;
  job.id = id;
  job.idempotency_key = id;
  job.spec.model = "h3-dna";
  job.spec.input = "file";
  job.spec.chunk = 8192;
  job.model_hash = "hash";
  return job;
}

void Fill(JobStore& store, int64_t jobs) {
  Check(store.Create(SomeJob("first"), kNow).status());
  Check(store.SetPlan("first", {81920, 1}, kNow));
  Check(store.database().Write([&](SqlConnection& connection) {
    return connection
        .Run(
            "WITH RECURSIVE numbers (n) AS "
            "(SELECT CAST(2 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < $1) "
            "INSERT INTO jobs (id, number, model, model_hash, input, task, chunk, window_tokens, "
            "max_logits_bytes, output_columns, state, error, length, token_bytes, committed, "
            "epoch, computed, output_bytes, leased, not_before_ms, created_ms, started_ms, "
            "finished_ms, tenant, priority, chunk_count) "
            "SELECT 'job' || n, n, model, model_hash, input, task, chunk, window_tokens, "
            "max_logits_bytes, output_columns, state, error, length, token_bytes, committed, "
            "epoch, computed, output_bytes, leased, not_before_ms, created_ms, started_ms, "
            "finished_ms, 'tenant' || (n % 8), n % 3, chunk_count FROM jobs, numbers",
            {jobs})
        .status();
  }));
  for (int i = 0; i < 8; ++i) Check(store.PutTenant({absl::StrCat("tenant", i), i + 1, 0, 0, 0}));
}

// `chunks` leased and committed in batches; prints what each took of this thread.
void Dispatch(JobStore& store, int64_t chunks, const std::function<bool()>& go_on) {
  timespec cpu_start, cpu_end;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_start);
  Clock::duration taken{};
  int64_t done = 0;
  for (size_t worker = 0; done < chunks && go_on();) {
    const auto start = Clock::now();
    std::vector<LeaseRequest> requests;
    for (size_t i = 0; i < kBatch; ++i) {
      requests.push_back({absl::StrCat("worker", worker++ % kWorkers), 1 << 20, true});
    }
    const auto leases = store.LeaseChunks(requests, kNow);
    Check(leases.status());
    std::vector<Commit> commits;
    for (const auto& lease : *leases) {
      if (!lease.has_value()) continue;
      commits.push_back({lease->key, {lease->key.chunk, lease->key.epoch, 32768, "o", "b"}});
    }
    const auto answers = store.CommitChunks(commits, kNow);
    Check(answers.status());
    for (const auto& answer : *answers) Check(answer.status());
    done += static_cast<int64_t>(commits.size());
    taken += Clock::now() - start;
  }
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_end);
  const double cpu_ms =
      (cpu_end.tv_sec - cpu_start.tv_sec) * 1e3 + (cpu_end.tv_nsec - cpu_start.tv_nsec) / 1e6;
  std::printf(
      "  %lld chunks leased and committed, %zu a call: each %.3f ms, %.3f ms of processor\n",
      static_cast<long long>(done), kBatch, Ms(taken) / done, cpu_ms / done);
}

void Serve(JobStore& store, int64_t seconds) {
  Times submit, list, list_filtered, get, queue;
  const auto start = Clock::now();
  const auto end = start + std::chrono::seconds(seconds);
  std::atomic<int64_t> next = 0;
  std::vector<std::thread> threads;
  threads.reserve(kSubmitters + 1);
  for (int i = 0; i < kSubmitters; ++i) {
    threads.emplace_back([&] {
      while (true) {
        const int64_t number = next++;
        // A request is due at its time, however long the ones before took.
        const auto due = start + std::chrono::microseconds(number * 1000000 / kSubmitsASecond);
        if (due >= end) return;
        std::this_thread::sleep_until(due);
        Check(store.Create(SomeJob(absl::StrCat("new", number)), kNow).status());
        submit.Take(due);
      }
    });
  }
  threads.emplace_back([&] {
    for (int64_t i = 0; Clock::now() < end; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      auto from = Clock::now();
      Check(store.List({}, int64_t{1} << 40, 100).status());
      list.Take(from);
      from = Clock::now();
      Check(store.List({JobState::kQueued, "tenant3", "", {}}, 50000, 100).status());
      list_filtered.Take(from);
      from = Clock::now();
      Check(store.Get(absl::StrCat("job", 2 + i * 7919 % 90000)).status());
      get.Take(from);
      if (i % 100 != 0) continue;
      from = Clock::now();
      Check(store.Queue().status());
      queue.Take(from);
    }
  });
  std::thread scheduler([&] {
    std::printf("  beside it, ");
    Dispatch(store, 1 << 30, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      return Clock::now() < end;
    });
  });
  for (std::thread& thread : threads) thread.join();
  scheduler.join();
  submit.Print(absl::StrCat("submit, ", kSubmitsASecond, "/s").c_str());
  list.Print("list, newest 100");
  list_filtered.Print("list, of a tenant and state");
  get.Print("get");
  queue.Print("summary of the queue");
}

void Bench(const char* name, const std::string& uri, int64_t jobs, int64_t seconds) {
  const auto open = [&] {
    auto database = OpenDatabase(uri);
    Check(database.status());
    auto store = JobStore::Open(*std::move(database));
    Check(store.status());
    return *std::move(store);
  };
  std::printf("%s, %lld queued jobs\n", name, static_cast<long long>(jobs));
  auto store = open();
  Fill(*store, jobs);
  Dispatch(*store, 10000, [] { return true; });
  Serve(*store, seconds);
  store.reset();
  const auto start = Clock::now();
  store = open();
  Check(store->Leased().status());
  Check(store->List({}, int64_t{1} << 40, 100).status());
  Check(store->LeaseChunks({{"w", 1 << 20, true}}, kNow).status());
  std::printf("  opened again, first chunk given: %.1f ms\n", Ms(Clock::now() - start));
}

}  // namespace
}  // namespace longwave

int main(int argc, char** argv) {
  const int64_t jobs = argc > 1 ? atoll(argv[1]) : 100000;
  const int64_t seconds = argc > 2 ? atoll(argv[2]) : 10;
  {
    const longwave::TestDatabase sqlite(longwave::DatabaseKind::kSqlite);
    longwave::Bench("SQLite", sqlite.uri(), jobs, seconds);
  }
  const auto server = longwave::PostgresServer::Start(true);
  if (!server.ok()) {
    std::printf("PostgreSQL: %s\n", server.status().ToString().c_str());
    return 1;
  }
  longwave::Bench("PostgreSQL", *(*server)->NewDatabase(), jobs, seconds);
}

// A fixed set of threads that run index ranges. One ParallelFor at a time; the calling thread works
// too.
//
// Thread safety: ParallelFor may be called from one thread at a time and never from inside another.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace longwave {

class ThreadPool {
 public:
  // threads <= 0: one for each processor this process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(i, worker) once for each i in [0, n), worker in [0, threads()); returns when all are
  // done. Which worker takes which i is not defined, so no result may depend on it. Where fn
  // throws, what has not begun is left out and one of the exceptions is thrown here.
  void ParallelFor(int64_t n, absl::FunctionRef<void(int64_t i, int worker)> fn);

 private:
  using Job = absl::FunctionRef<void(int64_t, int)>;
  void WorkerLoop(int worker);
  void Drain(const Job& job, int worker);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const Job* job_ = nullptr;            // guarded by mutex_
  bool stopping_ = false;               // guarded by mutex_
  std::exception_ptr error_;            // guarded by mutex_
  std::atomic<int64_t> generation_{0};  // written under mutex_, watched without
  std::atomic<int> running_{0};         // workers that have not finished the present job
  std::atomic<int64_t> next_{0};
  int64_t end_ = 0;
};

}  // namespace longwave

#include "kernels/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "hwy/cache_control.h"

namespace longwave {
namespace {

int AvailableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

// Asks for a few microseconds whether it is time.
template <typename F>
bool Look(F ready) {
  for (int i = 0; i < 500; ++i) {
    if (ready()) return true;
    hwy::Pause();
  }
  return ready();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  const int count = threads > 0 ? threads : AvailableProcessors();
  for (int worker = 1; worker < count; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Drain(const Job& job, int worker) {
  try {
    for (;;) {
      const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= end_) return;
      job(i, worker);
    }
  } catch (...) {
    next_.store(end_, std::memory_order_relaxed);
    std::lock_guard<std::mutex> lock(mutex_);
    error_ = std::current_exception();
  }
}

void ThreadPool::WorkerLoop(int worker) {
  int64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    lock.unlock();
    Look([&] { return generation_.load(std::memory_order_acquire) != seen; });
    lock.lock();
    start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
    if (stopping_) return;
    seen = generation_;
    const Job* job = job_;
    lock.unlock();
    Drain(*job, worker);
    const bool last = running_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    lock.lock();
    if (last) done_.notify_one();
  }
}

void ThreadPool::ParallelFor(int64_t n, absl::FunctionRef<void(int64_t, int)> fn) {
  if (workers_.empty() || n <= 1) {
    for (int64_t i = 0; i < n; ++i) fn(i, 0);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    job_ = &fn;
    next_.store(0, std::memory_order_relaxed);
    end_ = n;
    running_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  Drain(fn, 0);
  const auto done = [&] { return running_.load(std::memory_order_acquire) == 0; };
  Look(done);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, done);
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace longwave

#include "kernels/thread_pool.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/stream.h"

namespace longwave {
namespace {

TEST(ThreadPoolTest, CallsEachIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 2, 3, 7, 8, 9, 1000, 30000}) {
      std::vector<std::atomic<int>> calls(n);
      std::atomic<bool> worker_in_range = true;
      pool.ParallelFor(n, [&](int64_t i, int worker) {
        if (worker < 0 || worker >= threads) worker_in_range = false;
        ++calls[i];
      });
      EXPECT_TRUE(worker_in_range);
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(calls[i], 1) << i << " of " << n;
    }
  }
}

TEST(ThreadPoolTest, HasTheThreadsItWasGiven) {
  for (const int threads : {1, 2, 5}) EXPECT_EQ(ThreadPool(threads).threads(), threads);
  EXPECT_GE(ThreadPool(0).threads(), 1);
  EXPECT_EQ(ThreadPool(-3).threads(), ThreadPool(0).threads());
}

// What the indices wrote, without atomics, is seen after the call; many short jobs one after
// another.
TEST(ThreadPoolTest, ReturnsWhenAllIsDone) {
  ThreadPool pool(3);
  std::vector<int64_t> data(64);
  for (int64_t repeat = 1; repeat <= 5000; ++repeat) {
    const int64_t n = 1 + repeat % 64;
    pool.ParallelFor(n, [&](int64_t i, int) { data[i] = repeat * 100 + i; });
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(data[i], repeat * 100 + i);
  }
}

// Scratch belongs to a worker: no two calls of one worker run at once.
TEST(ThreadPoolTest, AWorkerRunsOneIndexAtATime) {
  ThreadPool pool(4);
  std::atomic<int> inside[4] = {};
  std::atomic<bool> overlapped = false;
  for (int repeat = 0; repeat < 50; ++repeat) {
    pool.ParallelFor(200, [&](int64_t, int worker) {
      if (inside[worker].fetch_add(1) != 0) overlapped = true;
      std::this_thread::yield();
      inside[worker].fetch_sub(1);
    });
  }
  EXPECT_FALSE(overlapped);
}

// Indices that wait for each other end only if the threads run together.
TEST(ThreadPoolTest, ThreadsRunAtTheSameTime) {
  ThreadPool pool(3);
  std::atomic<int> arrived = 0;
  pool.ParallelFor(3, [&](int64_t, int) {
    ++arrived;
    while (arrived < 3) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 3);
}

TEST(ThreadPoolTest, CallersMayChange) {
  ThreadPool pool(2);
  int64_t sum = 0;
  for (int caller = 0; caller < 20; ++caller) {
    std::thread([&] {
      std::atomic<int64_t> part = 0;
      pool.ParallelFor(100, [&](int64_t i, int) { part += i; });
      sum += part;
    }).join();
  }
  EXPECT_EQ(sum, 20 * 4950);
}

TEST(ThreadPoolTest, PoolsComeAndGo) {
  std::atomic<int64_t> calls = 0;
  for (int repeat = 0; repeat < 200; ++repeat) {
    ThreadPool pool(1 + repeat % 4);
    if (repeat % 3 != 0) pool.ParallelFor(5, [&](int64_t, int) { ++calls; });
  }
  EXPECT_EQ(calls, 133 * 5);
}

TEST(StreamTest, ScratchIsAlignedGrowsAndStays) {
  ThreadPool pool(2);
  Stream stream(&pool);
  for (int worker = 0; worker < 2; ++worker) {
    for (const int64_t count : {1, 17, 1000, 3}) {
      float* scratch = stream.Scratch(worker, count);
      ASSERT_NE(scratch, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch) % 64, 0u);
      for (int64_t i = 0; i < count; ++i) scratch[i] = 1;
    }
    EXPECT_EQ(stream.Scratch(worker, 1000), stream.Scratch(worker, 1));
  }
  EXPECT_NE(stream.Scratch(0, 1000), stream.Scratch(1, 1000));
}

TEST(StreamTest, NamesTheDeviceAndItsInstructions) {
  ThreadPool pool(1);
  EXPECT_EQ(Stream(&pool).device().kind, Device::Kind::kCpu);
  EXPECT_FALSE(CpuTargetName().empty());
}

}  // namespace
}  // namespace longwave

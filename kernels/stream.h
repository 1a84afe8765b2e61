// Where an operator runs: a device, and its threads with their scratch memory or its queue of work.
//
// On the CPU an operator has run when its Run returns. On a GPU it is queued: pointers of its
// arguments are device memory and must stay valid until queue().Synchronize(), which also says what
// failed on the way.
//
// Thread safety: a Stream belongs to one caller at a time. Scratch lives as long as the Stream.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/dtype.h"
#include "kernels/gpu/queue.h"
#include "kernels/thread_pool.h"

namespace longwave {

struct Device {
  enum class Kind { kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;             // of a GPU
  int multiprocessors = 0;   // of a GPU: plans fill them
  int64_t shared_bytes = 0;  // of a GPU: of one block of threads at most; 0: not known

  bool is_gpu() const { return kind == Kind::kCuda; }
  std::string ToString() const { return is_gpu() ? "cuda:" + std::to_string(index) : "cpu"; }
};

class Stream {
 public:
  explicit Stream(ThreadPool* pool) : pool_(pool), scratch_(pool->threads()) {}
  // Work on a GPU; `pool` for what its host side does.
  Stream(ThreadPool* pool, std::unique_ptr<gpu::Queue> queue) : Stream(pool) {
    queue_ = std::move(queue);
  }

  Device device() const {
    if (queue_ == nullptr) return {};
    return {Device::Kind::kCuda, queue_->device(), queue_->properties().multiprocessors,
            queue_->properties().shared_bytes};
  }
  ThreadPool& pool() { return *pool_; }
  // REQUIRES: device().is_gpu()
  gpu::Queue& queue() { return *queue_; }

  // As Scratch below, but one for the whole Stream: for operators built of operators.
  float* SharedScratch(int64_t count) { return Grow(shared_, count); }

  // At least `count` floats for `worker`, aligned to a cache line, contents undefined; valid until
  // the worker's next call. Grows to the largest request seen and stays.
  float* Scratch(int worker, int64_t count) { return Grow(scratch_[worker], count); }

 private:
  struct Buffer {
    AlignedFloats data;
    int64_t size = 0;
  };
  static float* Grow(Buffer& buffer, int64_t count) {
    if (buffer.size < count) {
      buffer.data = AllocateFloats(count);
      buffer.size = count;
    }
    return buffer.data.get();
  }

  ThreadPool* pool_;
  std::vector<Buffer> scratch_;  // one for each thread
  Buffer shared_;
  std::unique_ptr<gpu::Queue> queue_;
};

// The vector instructions chosen at run time: "AVX3", "AVX2", ...
std::string CpuTargetName();

}  // namespace longwave

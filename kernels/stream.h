// Where an operator runs: a device, its threads and the scratch memory of each thread.
//
// Thread safety: a Stream belongs to one caller at a time. Scratch lives as long as the Stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/thread_pool.h"

namespace longwave {

struct Device {
  enum class Kind { kCpu };
  Kind kind = Kind::kCpu;

  std::string ToString() const { return "cpu"; }
};

class Stream {
 public:
  explicit Stream(ThreadPool* pool) : pool_(pool), scratch_(pool->threads()) {}

  Device device() const { return {}; }
  ThreadPool& pool() { return *pool_; }

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
};

// The vector instructions chosen at run time: "AVX3", "AVX2", ...
std::string CpuTargetName();

}  // namespace longwave

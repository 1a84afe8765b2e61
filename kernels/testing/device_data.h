// Arrays on a GPU for operator tests: values of any dtype with sentinels around them, poisoned
// where nothing was set. Works on a GPU and in the emulator.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/gpu/queue.h"
#include "kernels/stream.h"
#include "kernels/testing/reference.h"

namespace longwave::reference {

// The nearest values that `dtype` has.
Floats RoundTo(const Floats& values, Dtype dtype);

// Largest accepted relative error of an operator on a GPU.
double GpuTolerance(Dtype dtype);

// A stream on the first GPU; null where there is none.
class GpuStream {
 public:
  GpuStream();
  bool ok() const { return stream_ != nullptr; }
  // Slow: in the emulator, or under a sanitizer (LONGWAVE_TEST_SMALL is set). Shapes whose only
  // point is their size are left out.
  bool emulated() {
    return queue().properties().name == "emulated" || std::getenv("LONGWAVE_TEST_SMALL") != nullptr;
  }
  Stream& operator*() { return *stream_; }
  Stream* operator->() { return stream_.get(); }
  gpu::Queue& queue() { return stream_->queue(); }

 private:
  ThreadPool pool_{2};
  std::unique_ptr<Stream> stream_;
};

class DeviceData {
 public:
  // `rows` rows of `count` values each, `gap` elements between rows, all NaN. `offset` elements
  // from a 256-byte border.
  DeviceData(GpuStream& stream, Dtype dtype, int64_t rows, int64_t count, int64_t gap = 0,
             int64_t offset = 0);
  // `values` (rows, count).
  DeviceData(GpuStream& stream, Dtype dtype, const Floats& values, int64_t rows = 1,
             int64_t gap = 0, int64_t offset = 0);

  void* data() const {
    return static_cast<char*>(memory_.data()) + (kGuard + offset_) * SizeOf(dtype_);
  }
  float* floats() const { return static_cast<float*>(data()); }
  int64_t stride() const { return count_ + gap_; }
  void Set(const Floats& values);
  // The values; waits for the stream.
  Floats Get();
  // Nothing around the values and between the rows has changed.
  ::testing::AssertionResult Intact();

 private:
  static constexpr int64_t kGuard = 128;  // elements before and after
  int64_t Elements() const { return 2 * kGuard + offset_ + rows_ * stride(); }
  std::string Read();

  GpuStream& stream_;
  Dtype dtype_;
  int64_t rows_, count_, gap_, offset_;
  gpu::DeviceArray memory_;
};

// Integers on the GPU.
template <typename T>
class DeviceIntegers {
 public:
  DeviceIntegers(GpuStream& stream, std::vector<T> values)
      : stream_(stream), values_(std::move(values)) {
    const auto bytes = static_cast<int64_t>(values_.size() * sizeof(T));
    auto memory = gpu::DeviceArray::Allocate(stream.queue().device(), bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    if (!memory.ok()) return;
    memory_ = *std::move(memory);
    EXPECT_TRUE(stream.queue().CopyToDevice(memory_.data(), values_.data(), bytes).ok());
    EXPECT_TRUE(stream.queue().Synchronize().ok());
  }
  T* data() const { return memory_.template as<T>(); }
  // Waits for the stream.
  std::vector<T> Get() {
    EXPECT_TRUE(stream_.queue().CopyToHost(values_.data(), memory_.data(), memory_.bytes()).ok());
    EXPECT_TRUE(stream_.queue().Synchronize().ok());
    return values_;
  }

 private:
  GpuStream& stream_;
  std::vector<T> values_;
  gpu::DeviceArray memory_;
};

}  // namespace longwave::reference

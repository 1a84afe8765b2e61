// What the GPU's benchmark measures and checks with: inputs that the host knows too, times between
// events, and errors against float64.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/stream.h"
#include "services/bench_reference.h"
#include "services/bench_timer.h"

namespace longwave {

// Normal values of a type, repeated: element i of an array with phase p is value (i + p) modulo an
// odd period, so that channels differ and the host can look any element up.
class BenchPattern {
 public:
  static absl::StatusOr<BenchPattern> Create(Dtype dtype, int64_t period, Stream& stream);

  Dtype dtype() const { return dtype_; }
  float At(int64_t i) const { return values_[static_cast<size_t>(i) % values_.size()]; }
  // Elements [begin, begin + count) of the endless array, times `scale`.
  void Copy(int64_t begin, int64_t count, float scale, float* out) const;
  // `count` elements on the device.
  absl::StatusOr<gpu::DeviceArray> Repeat(int64_t count, int64_t phase, Stream& stream) const;

 private:
  Dtype dtype_ = Dtype::kFloat32;
  std::vector<float> values_;
  gpu::DeviceArray device_;
};

// Times of `run`, which queues work: two calls that are not counted, then at least 7 and for at
// least `seconds`. Before each, twice the L2 cache is written: inputs come from memory, and the
// host has time to queue all of `run` before the device gets there.
class CudaTimer {
 public:
  static absl::StatusOr<CudaTimer> Create(double seconds, Stream& stream);
  absl::StatusOr<Timing> Measure(absl::FunctionRef<absl::Status()> run);

 private:
  double seconds_ = 0;
  Stream* stream_ = nullptr;
  gpu::DeviceArray flush_;
};

// || got - want || / || want || over pieces that are added one by one.
class ErrorSum {
 public:
  void Add(double got, double want) {
    difference_ += (got - want) * (got - want);
    norm_ += want * want;
  }
  // Infinite where anything was not finite or nothing was added.
  double relative() const;

 private:
  double difference_ = 0, norm_ = 0;
};

// Elements [begin, begin + count) of a device array of `dtype`.
absl::StatusOr<std::vector<float>> Fetch(Dtype dtype, const void* device, int64_t begin,
                                         int64_t count, Stream& stream);

// Relative error accepted of activations of a type, against float64.
double BenchTolerance(Dtype dtype);

}  // namespace longwave

#include "services/bench_cuda.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/checks.h"
#include "kernels/gpu/async.h"

namespace longwave {

absl::StatusOr<BenchPattern> BenchPattern::Create(Dtype dtype, int64_t period, Stream& stream) {
  BenchPattern pattern;
  pattern.dtype_ = dtype;
  pattern.values_.resize(static_cast<size_t>(period));
  constexpr int64_t kPart = 1 << 16;
  stream.pool().ParallelFor((period + kPart - 1) / kPart, [&](int64_t part, int) {
    const int64_t count = std::min(kPart, period - part * kPart);
    const std::vector<float> values = RandomNormal(count, static_cast<uint64_t>(1000 + part));
    std::copy(values.begin(), values.end(), pattern.values_.begin() + part * kPart);
  });
  const int64_t bytes = period * SizeOf(dtype);
  std::vector<char> raw(static_cast<size_t>(bytes));
  FromFloats(dtype, pattern.values_.data(), period, raw.data());
  ToFloats(dtype, raw.data(), period, pattern.values_.data());  // as they are on the device
  auto device = gpu::DeviceArray::Allocate(stream.queue().device(), bytes);
  if (!device.ok()) return device.status();
  pattern.device_ = *std::move(device);
  LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyToDevice(pattern.device_.data(), raw.data(), bytes));
  LONGWAVE_RETURN_IF_ERROR(stream.queue().Synchronize());
  return pattern;
}

void BenchPattern::Copy(int64_t begin, int64_t count, float scale, float* out) const {
  size_t from = static_cast<size_t>(begin) % values_.size();
  for (int64_t i = 0; i < count; ++i) {
    out[i] = scale * values_[from];
    if (++from == values_.size()) from = 0;
  }
}

absl::StatusOr<gpu::DeviceArray> BenchPattern::Repeat(int64_t count, int64_t phase,
                                                      Stream& stream) const {
  const int64_t size = SizeOf(dtype_), period = static_cast<int64_t>(values_.size());
  auto array = gpu::DeviceArray::Allocate(stream.queue().device(), count * size);
  if (!array.ok()) return array;
  for (int64_t i = 0; i < count;) {
    const int64_t from = (i + phase) % period, part = std::min(period - from, count - i);
    LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyOnDevice(
        array->as<char>() + i * size, device_.as<char>() + from * size, part * size));
    i += part;
  }
  return array;
}

absl::StatusOr<CudaTimer> CudaTimer::Create(double seconds, Stream& stream) {
  CudaTimer timer;
  timer.seconds_ = seconds;
  timer.stream_ = &stream;
  gpu::Queue& queue = stream.queue();
  auto flush = gpu::DeviceArray::Allocate(queue.device(), 2 * queue.properties().l2_bytes);
  if (!flush.ok()) return flush.status();
  timer.flush_ = *std::move(flush);
  return timer;
}

absl::StatusOr<Timing> CudaTimer::Measure(absl::FunctionRef<absl::Status()> run) {
  constexpr int kWarmUp = 2, kRuns = 7, kMostRuns = 200;
  gpu::Queue& queue = stream_->queue();
  absl::StatusOr<gpu::Event> begin = gpu::Event::Create(queue.device());
  absl::StatusOr<gpu::Event> end = gpu::Event::Create(queue.device());
  if (!begin.ok() || !end.ok()) return begin.ok() ? end.status() : begin.status();
  for (int i = 0; i < kWarmUp; ++i) LONGWAVE_RETURN_IF_ERROR(run());
  std::vector<double> times;
  double total = 0;
  while (times.size() < kRuns || (total < seconds_ && times.size() < kMostRuns)) {
    LONGWAVE_RETURN_IF_ERROR(queue.Fill(flush_.data(), 0, flush_.bytes()));
    LONGWAVE_RETURN_IF_ERROR(begin->Record(queue));
    LONGWAVE_RETURN_IF_ERROR(run());
    LONGWAVE_RETURN_IF_ERROR(end->Record(queue));
    LONGWAVE_RETURN_IF_ERROR(begin->Wait());
    LONGWAVE_RETURN_IF_ERROR(end->Wait());
    const absl::StatusOr<double> time = end->SecondsSince(*begin);
    if (!time.ok()) return time.status();
    times.push_back(*time);
    total += *time;
  }
  std::sort(times.begin(), times.end());
  return Timing{times[times.size() / 2], times.front(), times.back(),
                static_cast<int>(times.size())};
}

double ErrorSum::relative() const {
  const double error = std::sqrt(difference_ / norm_);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

absl::StatusOr<std::vector<float>> Fetch(Dtype dtype, const void* device, int64_t begin,
                                         int64_t count, Stream& stream) {
  const int64_t size = SizeOf(dtype);
  std::vector<char> raw(static_cast<size_t>(count * size));
  LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyToHost(
      raw.data(), static_cast<const char*>(device) + begin * size, count * size));
  LONGWAVE_RETURN_IF_ERROR(stream.queue().Synchronize());
  std::vector<float> values(static_cast<size_t>(count));
  ToFloats(dtype, raw.data(), count, values.data());
  return values;
}

double BenchTolerance(Dtype dtype) {
  return dtype == Dtype::kFloat32 ? 2e-6 : dtype == Dtype::kBFloat16 ? 4e-3 : 6e-4;
}

}  // namespace longwave

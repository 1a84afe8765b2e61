// What the tests of GPU operators share: rounding to 16 bits without the CUDA headers, guarded
// device arrays, tolerances, and a Stream on the first GPU (in the emulated suite, the emulator).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/stream.h"
#include "kernels/testing/reference.h"

namespace longwave::reference {

using GpuDtype = ::longwave::Dtype;

inline double GpuTolerance(GpuDtype dtype) {
  return dtype == GpuDtype::kFloat32 ? 2e-6 : dtype == GpuDtype::kBFloat16 ? 4e-3 : 6e-4;
}

// To the nearest value of `dtype`, ties to even. Finite, within float16's range.
inline float Round(GpuDtype dtype, float x) {
  if (dtype == GpuDtype::kFloat32 || x == 0) return x;
  int exponent;
  std::frexp(x, &exponent);  // x = m 2^exponent, 0.5 <= m < 1
  const int digits = dtype == GpuDtype::kBFloat16 ? 8 : 11;
  int quantum = exponent - digits;
  if (dtype == GpuDtype::kFloat16 && quantum < -24) quantum = -24;
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(double{x}, -quantum)), quantum));
}
inline Floats Round(GpuDtype dtype, Floats x) {
  for (float& value : x) value = Round(dtype, value);
  return x;
}

// The bits of a value that `dtype` has.
inline uint16_t ToBits(GpuDtype dtype, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (dtype == GpuDtype::kBFloat16) return static_cast<uint16_t>(bits >> 16);
  if (std::isnan(x)) return 0x7fff;
  const uint32_t sign = bits >> 16 & 0x8000;
  const double magnitude = std::fabs(double{x});
  if (magnitude < std::ldexp(1, -14)) {
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::ldexp(magnitude, 24)));
  }
  return static_cast<uint16_t>(sign | ((bits & 0x7fffffff) - (112u << 23)) >> 13);
}
inline float FromBits(GpuDtype dtype, uint16_t bits) {
  if (dtype == GpuDtype::kBFloat16) {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
  }
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent == 31  ? mantissa != 0 ? NAN : INFINITY
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>((bits & 0x8000) != 0 ? -magnitude : magnitude);
}

// Null where there is no GPU: tests skip.
inline std::unique_ptr<Stream> OpenGpu() {
  static ThreadPool pool(1);
  absl::StatusOr<std::unique_ptr<gpu::Queue>> queue = gpu::Queue::Open(0);
  if (!queue.ok()) return nullptr;
  return std::make_unique<Stream>(&pool, *std::move(queue));
}
inline bool Emulated(Stream& stream) { return stream.queue().properties().name == "emulated"; }

// `count` values of `dtype` on the device between sentinels, NaN until set. `shift` elements off
// the alignment of 256 bytes.
class GpuBuffer {
 public:
  GpuBuffer(Stream& stream, GpuDtype dtype, int64_t count, int64_t shift = 0)
      : stream_(stream), dtype_(dtype), count_(count), before_(kGuard + shift) {
    std::vector<uint8_t> bytes(static_cast<size_t>(total() * SizeOf(dtype)), 0xa5);
    std::memset(bytes.data() + before_ * SizeOf(dtype), 0xff,
                static_cast<size_t>(count * SizeOf(dtype)));
    Allocate(bytes);
  }
  // Values that `dtype` has.
  GpuBuffer(Stream& stream, GpuDtype dtype, const Floats& values, int64_t shift = 0)
      : GpuBuffer(stream, dtype, static_cast<int64_t>(values.size()), shift) {
    Set(values);
  }

  void Set(const Floats& values) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count_ * SizeOf(dtype_)));
    for (int64_t i = 0; i < count_; ++i) {
      if (dtype_ == GpuDtype::kFloat32) {
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      } else {
        const uint16_t bits = ToBits(dtype_, values[i]);
        std::memcpy(bytes.data() + 2 * i, &bits, 2);
      }
    }
    EXPECT_TRUE(stream_.queue()
                    .CopyToDevice(data(), bytes.data(), static_cast<int64_t>(bytes.size()))
                    .ok());
    EXPECT_TRUE(stream_.queue().Synchronize().ok());
  }
  void* data() const { return array_.as<char>() + before_ * SizeOf(dtype_); }
  float* floats() const { return static_cast<float*>(data()); }
  Floats Get() {
    const std::vector<uint8_t> bytes = Read();
    Floats values(count_);
    for (int64_t i = 0; i < count_; ++i) {
      const uint8_t* at = bytes.data() + (before_ + i) * SizeOf(dtype_);
      if (dtype_ == GpuDtype::kFloat32) {
        std::memcpy(&values[i], at, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, at, 2);
        values[i] = FromBits(dtype_, bits);
      }
    }
    return values;
  }
  ::testing::AssertionResult Intact() {
    const std::vector<uint8_t> bytes = Read();
    for (size_t i = 0; i < bytes.size(); ++i) {
      const int64_t element = static_cast<int64_t>(i) / SizeOf(dtype_) - before_;
      if ((element < 0 || element >= count_) && bytes[i] != 0xa5) {
        return ::testing::AssertionFailure() << "element " << element << " of " << count_;
      }
    }
    return ::testing::AssertionSuccess();
  }

 private:
  static constexpr int64_t kGuard = 128;
  int64_t total() const { return before_ + count_ + kGuard; }
  void Allocate(const std::vector<uint8_t>& bytes) {
    absl::StatusOr<gpu::DeviceArray> array =
        gpu::DeviceArray::Allocate(stream_.device().index, static_cast<int64_t>(bytes.size()));
    EXPECT_TRUE(array.ok()) << array.status();
    array_ = *std::move(array);
    EXPECT_TRUE(stream_.queue()
                    .CopyToDevice(array_.data(), bytes.data(), static_cast<int64_t>(bytes.size()))
                    .ok());
    EXPECT_TRUE(stream_.queue().Synchronize().ok());
  }
  std::vector<uint8_t> Read() {
    std::vector<uint8_t> bytes(static_cast<size_t>(array_.bytes()));
    EXPECT_TRUE(stream_.queue().CopyToHost(bytes.data(), array_.data(), array_.bytes()).ok());
    const absl::Status status = stream_.queue().Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }

  Stream& stream_;
  GpuDtype dtype_;
  int64_t count_, before_;
  gpu::DeviceArray array_;
};

// Integers on the device.
template <typename T>
class GpuIntegers {
 public:
  GpuIntegers(Stream& stream, std::vector<T> values) : stream_(stream), values_(values) {
    const auto bytes = static_cast<int64_t>(values_.size() * sizeof(T));
    absl::StatusOr<gpu::DeviceArray> array =
        gpu::DeviceArray::Allocate(stream_.device().index, bytes);
    EXPECT_TRUE(array.ok()) << array.status();
    array_ = *std::move(array);
    EXPECT_TRUE(stream_.queue().CopyToDevice(array_.data(), values_.data(), bytes).ok());
    EXPECT_TRUE(stream_.queue().Synchronize().ok());
  }
  T* data() const { return array_.template as<T>(); }
  std::vector<T> Get() {
    EXPECT_TRUE(stream_.queue().CopyToHost(values_.data(), array_.data(), array_.bytes()).ok());
    EXPECT_TRUE(stream_.queue().Synchronize().ok());
    return values_;
  }

 private:
  Stream& stream_;
  std::vector<T> values_;
  gpu::DeviceArray array_;
};

}  // namespace longwave::reference

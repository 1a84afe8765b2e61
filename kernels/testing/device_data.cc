#include "kernels/testing/device_data.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace longwave::reference {
namespace {

uint16_t ToBFloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float FromBFloat16(uint16_t h) {
  const uint32_t bits = uint32_t{h} << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
uint16_t ToFloat16(float x) {
  const auto h = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
float FromFloat16(uint16_t bits) {
  _Float16 h;
  std::memcpy(&h, &bits, 2);
  return static_cast<float>(h);
}

void Encode(float x, Dtype dtype, char* to) {
  if (dtype == Dtype::kFloat32) {
    std::memcpy(to, &x, 4);
    return;
  }
  const uint16_t bits = dtype == Dtype::kBFloat16 ? ToBFloat16(x) : ToFloat16(x);
  std::memcpy(to, &bits, 2);
}
float Decode(const char* from, Dtype dtype) {
  float x;
  uint16_t bits;
  if (dtype == Dtype::kFloat32) {
    std::memcpy(&x, from, 4);
    return x;
  }
  std::memcpy(&bits, from, 2);
  return dtype == Dtype::kBFloat16 ? FromBFloat16(bits) : FromFloat16(bits);
}

constexpr unsigned char kSentinel = 0xff;  // a NaN in every type

}  // namespace

Floats RoundTo(const Floats& values, Dtype dtype) {
  Floats out(values.size());
  char bytes[4];
  for (size_t i = 0; i < values.size(); ++i) {
    Encode(values[i], dtype, bytes);
    out[i] = Decode(bytes, dtype);
  }
  return out;
}

double GpuTolerance(Dtype dtype) { return Tolerance({Device::Kind::kCuda}, dtype); }

GpuStream::GpuStream() {
  auto queue = gpu::Queue::Open(0);
  if (queue.ok()) stream_ = std::make_unique<Stream>(&pool_, *std::move(queue));
}

DeviceData::DeviceData(GpuStream& stream, Dtype dtype, int64_t rows, int64_t count, int64_t gap,
                       int64_t offset)
    : stream_(stream), dtype_(dtype), rows_(rows), count_(count), gap_(gap), offset_(offset) {
  auto memory = gpu::DeviceArray::Allocate(stream.queue().device(), Elements() * SizeOf(dtype));
  EXPECT_TRUE(memory.ok()) << memory.status();
  if (!memory.ok()) return;
  memory_ = *std::move(memory);
  Set(Floats(rows * count, std::numeric_limits<float>::quiet_NaN()));
}

DeviceData::DeviceData(GpuStream& stream, Dtype dtype, const Floats& values, int64_t rows,
                       int64_t gap, int64_t offset)
    : DeviceData(stream, dtype, rows, static_cast<int64_t>(values.size()) / rows, gap, offset) {
  Set(values);
}

void DeviceData::Set(const Floats& values) {
  const int64_t size = SizeOf(dtype_);
  std::string bytes(static_cast<size_t>(Elements() * size), static_cast<char>(kSentinel));
  for (int64_t i = 0; i < rows_ * count_; ++i) {
    const int64_t at = kGuard + offset_ + i / count_ * stride() + i % count_;
    Encode(values[i], dtype_, bytes.data() + at * size);
  }
  EXPECT_TRUE(stream_.queue()
                  .CopyToDevice(memory_.data(), bytes.data(), static_cast<int64_t>(bytes.size()))
                  .ok());
  EXPECT_TRUE(stream_.queue().Synchronize().ok());
}

std::string DeviceData::Read() {
  std::string bytes(static_cast<size_t>(Elements() * SizeOf(dtype_)), '\0');
  EXPECT_TRUE(stream_.queue()
                  .CopyToHost(bytes.data(), memory_.data(), static_cast<int64_t>(bytes.size()))
                  .ok());
  const absl::Status done = stream_.queue().Synchronize();
  EXPECT_TRUE(done.ok()) << done;
  return bytes;
}

Floats DeviceData::Get() {
  const std::string bytes = Read();
  Floats out(rows_ * count_);
  for (int64_t i = 0; i < rows_ * count_; ++i) {
    const int64_t at = kGuard + offset_ + i / count_ * stride() + i % count_;
    out[i] = Decode(bytes.data() + at * SizeOf(dtype_), dtype_);
  }
  return out;
}

::testing::AssertionResult DeviceData::Intact() {
  const std::string bytes = Read();
  const int64_t size = SizeOf(dtype_);
  for (int64_t i = 0; i < Elements(); ++i) {
    const int64_t at = i - kGuard - offset_;
    if (count_ > 0 && at >= 0 && at / stride() < rows_ && at % stride() < count_) continue;
    for (int64_t b = 0; b < size; ++b) {
      if (static_cast<unsigned char>(bytes[i * size + b]) != kSentinel) {
        return ::testing::AssertionFailure() << "written at element " << at;
      }
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace longwave::reference

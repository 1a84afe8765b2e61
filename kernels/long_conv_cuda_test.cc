// LongConv on a GPU, or in the emulator, against the float64 sum.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "gtest/gtest.h"
#include "kernels/gpu/queue.h"
#include "kernels/long_conv.h"
#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::Doubles;
using reference::Floats;
using reference::Normal;
using Evaluation = LongConvEvaluation;

constexpr uint16_t kSentinel = 0x7fa5;  // a NaN in each type
constexpr Dtype kDtypes[] = {Dtype::kBFloat16, Dtype::kFloat16, Dtype::kFloat32};

double ToleranceOf(Dtype dtype) {
  return dtype == Dtype::kBFloat16 ? 4e-3 : dtype == Dtype::kFloat16 ? 6e-4 : 2e-6;
}

// To `bits` of significand, to nearest even; exponents as in float32, which N(0, 1) stays within.
float RoundTo(float x, int bits) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  const int drop = 24 - bits;
  u += (uint32_t{1} << (drop - 1)) - 1 + (u >> drop & 1);
  u &= ~((uint32_t{1} << drop) - 1);
  std::memcpy(&x, &u, 4);
  return x;
}
float Round(float x, Dtype dtype) {
  switch (dtype) {
    case Dtype::kBFloat16:
      return RoundTo(x, 8);
    case Dtype::kFloat16:  // 2^-24 steps below 2^-14
      return std::fabs(x) < 6.103515625e-5f ? std::nearbyint(x * 16777216.0f) / 16777216.0f
                                            : RoundTo(x, 11);
    default:
      return x;
  }
}
// Of values that Round() returned.
void Encode(float x, Dtype dtype, unsigned char* out) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if (dtype == Dtype::kFloat32) {
    std::memcpy(out, &u, 4);
    return;
  }
  uint16_t h = static_cast<uint16_t>(u >> 16);
  if (dtype == Dtype::kFloat16) {
    const float magnitude = std::fabs(x);
    const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
    h = magnitude < 6.103515625e-5f ? static_cast<uint16_t>(magnitude * 16777216.0f)
                                    : static_cast<uint16_t>(((u >> 13) - (112 << 10)) & 0x7fff);
    h |= sign;
  }
  std::memcpy(out, &h, 2);
}
float Decode(const unsigned char* in, Dtype dtype) {
  uint32_t u = 0;
  float x;
  if (dtype == Dtype::kFloat32) {
    std::memcpy(&x, in, 4);
    return x;
  }
  uint16_t h;
  std::memcpy(&h, in, 2);
  u = static_cast<uint32_t>(h) << 16;
  if (dtype == Dtype::kFloat16) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const float magnitude = exponent == 31 ? std::nanf("")
                            : exponent == 0
                                ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
  }
  std::memcpy(&x, &u, 4);
  return x;
}

// (batch, channels, length) on the device, with sentinels before, between and after.
struct Array {
  LongConvDesc desc;
  int64_t gap = 0, lead = 0;  // elements
  gpu::DeviceArray device;

  int64_t channel_stride() const { return desc.length + gap; }
  int64_t batch_stride() const { return desc.channels * channel_stride() + 2 * gap; }
  int64_t elements() const { return lead + desc.batch * batch_stride() + 64; }
  unsigned char* data() const {
    return static_cast<unsigned char*>(device.data()) + lead * SizeOf(desc.dtype);
  }
  template <typename F>
  void Each(F f) const {  // f(packed index, bytes from the start)
    int64_t i = 0;
    for (int64_t b = 0; b < desc.batch; ++b) {
      for (int64_t c = 0; c < desc.channels; ++c) {
        for (int64_t t = 0; t < desc.length; ++t, ++i) {
          f(i, (lead + b * batch_stride() + c * channel_stride() + t) * SizeOf(desc.dtype));
        }
      }
    }
  }
  std::vector<unsigned char> Sentinels() const {
    std::vector<unsigned char> bytes(elements() * SizeOf(desc.dtype));
    for (size_t i = 0; i < bytes.size(); i += 2) std::memcpy(&bytes[i], &kSentinel, 2);
    return bytes;
  }
};

// What one evaluation of a descriptor is given.
struct Case {
  LongConvDesc desc;
  bool pre_gate = true, post_gate = true;
  int64_t gap = 0, lead = 0;
  enum { kSeparate, kOverU, kOverPreGate, kOverPostGate } alias = kSeparate;
};

class LongConvCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<gpu::Queue>> queue = gpu::Queue::Open(0);
    if (!queue.ok()) GTEST_SKIP() << queue.status();
    emulated_ = (*queue)->properties().name == "emulated";
    stream_ = std::make_unique<Stream>(&pool_, *std::move(queue));
  }

  gpu::Queue& queue() { return stream_->queue(); }

  Array Upload(const Case& c, const Floats& values) {
    Array array{c.desc, c.gap, c.lead, {}};
    std::vector<unsigned char> bytes = array.Sentinels();
    if (!values.empty()) {
      array.Each([&](int64_t i, int64_t at) { Encode(values[i], c.desc.dtype, &bytes[at]); });
    }
    const int64_t size = static_cast<int64_t>(bytes.size());
    array.device = gpu::DeviceArray::Allocate(0, size).value();
    EXPECT_TRUE(queue().CopyToDevice(array.device.data(), bytes.data(), size).ok());
    EXPECT_TRUE(queue().Synchronize().ok());
    return array;
  }

  // The body; fails where a sentinel has changed.
  Floats Download(const Array& array) {
    std::vector<unsigned char> bytes(array.device.bytes()), expected = array.Sentinels();
    EXPECT_TRUE(queue().CopyToHost(bytes.data(), array.device.data(), array.device.bytes()).ok());
    const absl::Status status = queue().Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    Floats values(array.desc.batch * array.desc.channels * array.desc.length);
    const int64_t size = SizeOf(array.desc.dtype);
    array.Each([&](int64_t i, int64_t at) {
      values[i] = Decode(&bytes[at], array.desc.dtype);
      std::memcpy(&expected[at], &bytes[at], size);
    });
    EXPECT_TRUE(bytes == expected) << "a sentinel was written";
    return values;
  }

  Floats Random(uint64_t seed, int64_t count, Dtype dtype) {
    Floats x = Normal(seed, count);
    for (float& v : x) v = Round(v, dtype);
    return x;
  }

  // Fresh inputs; all outputs compared, or `samples` of each sequence.
  void Expect(const Case& c, int64_t samples = 0) {
    const LongConvDesc& desc = c.desc;
    const auto plan = PlanLongConv(desc, stream_->device());
    ASSERT_TRUE(plan.ok()) << plan.status();
    SCOPED_TRACE(plan->ToString());
    if (desc.evaluation != Evaluation::kAuto) {
      ASSERT_EQ(plan->evaluation, desc.evaluation);
    }
    const int64_t count = desc.batch * desc.channels * desc.length;
    const Floats taps = Normal(++seed_, desc.channels * desc.taps, 0.3);
    const Floats u = Random(++seed_, count, desc.dtype);
    const Floats pre = c.pre_gate ? Random(++seed_, count, desc.dtype) : Floats();
    const Floats post = c.post_gate ? Random(++seed_, count, desc.dtype) : Floats();
    auto filter = LongConvFilter::Create(*plan, taps.data(), *stream_);
    ASSERT_TRUE(filter.ok()) << filter.status();

    const Array du = Upload(c, u), dpre = Upload(c, pre), dpost = Upload(c, post),
                dy = Upload(c, {});
    const Array* const outputs[] = {&dy, &du, &dpre, &dpost};
    const Array& out = *outputs[c.alias];
    LongConvArgs args;
    args.u = du.data();
    if (c.pre_gate) args.pre_gate = dpre.data();
    if (c.post_gate) args.post_gate = dpost.data();
    args.y = out.data();
    args.batch_stride = du.batch_stride();
    args.channel_stride = du.channel_stride();
    const absl::Status status = RunLongConv(*plan, *filter, args, *stream_);
    ASSERT_TRUE(status.ok()) << status;
    const Floats y = Download(out);

    Floats actual;
    Doubles expected;
    if (samples == 0) {
      actual = y;
      expected = reference::LongConv(desc, u, taps, pre, post);
    } else {
      std::mt19937_64 random(seed_);
      for (const float v : y) ASSERT_TRUE(std::isfinite(v));
      for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
        for (int64_t i = 0; i < samples; ++i) {
          const int64_t L = desc.length, N = plan->block;
          const int64_t t = i < 2 ? i * (L - 1) : i < 4 && N < L ? N - 3 + i : random() % L;
          double sum = 0;
          for (int64_t j = 0; j <= std::min(t, desc.taps - 1); ++j) {
            const int64_t s = row * L + t - j;
            sum += static_cast<double>(taps[row % desc.channels * desc.taps + j]) * u[s] *
                   (pre.empty() ? 1.0 : pre[s]);
          }
          actual.push_back(y[row * L + t]);
          expected.push_back(sum * (post.empty() ? 1.0 : post[row * L + t]));
        }
      }
    }
    EXPECT_TRUE(reference::Near(actual, expected, ToleranceOf(desc.dtype)));
  }

  ThreadPool pool_{1};
  std::unique_ptr<Stream> stream_;
  bool emulated_ = true;
  uint64_t seed_ = 0;
};

TEST_F(LongConvCudaTest, Toeplitz) {
  for (const Dtype dtype : {Dtype::kBFloat16, Dtype::kFloat16}) {
    for (const auto& [batch, length, taps] : {std::tuple{1, 1, 1},
                                              {3, 7, 7},
                                              {33, 64, 64},
                                              {2, 65, 200},
                                              {5, 257, 30},
                                              {40, 320, 320},
                                              {2, 1031, 1031},
                                              {1, 1100, 129}}) {
      Expect({{batch, 2, length, taps, Evaluation::kToeplitz, 0, dtype}, true, true, 3, 1});
    }
    Expect({{34, 1, 256, 256, Evaluation::kToeplitz, 0, dtype}, false, true, 8});
    Expect({{3, 2, 200, 200, Evaluation::kToeplitz, 0, dtype}, true, false, 8});
  }
}

TEST_F(LongConvCudaTest, OnChipEveryBlock) {
  int i = 0;
  for (const int64_t block : LongConvBlocks(false)) {
    if (emulated_ && block > 2048 && i % 3 != 0 && block != 4096) {
      ++i;
      continue;
    }
    const int64_t length = block - i % 3;
    Expect({{i % 4 + 1, 2, length, length, Evaluation::kOnChipFft, block, kDtypes[i++ % 3]}}, 20);
  }
}

TEST_F(LongConvCudaTest, OnChipLengthsAndTaps) {
  int i = 0;
  for (const int64_t length : {1, 2, 3, 17, 64, 127, 129, 500, 1009}) {
    for (const int64_t taps : {1, 16, 100, 129, 2000}) {
      Expect({{i % 3 + 1, 2, length, taps, Evaluation::kOnChipFft, 0, kDtypes[i % 3]},
              i % 2 == 0,
              i % 5 != 0,
              i % 4,
              i % 2});
      ++i;
    }
  }
}

TEST_F(LongConvCudaTest, OutputOverAnInput) {
  for (const auto evaluation : {Evaluation::kToeplitz, Evaluation::kOnChipFft}) {
    for (const auto alias : {Case::kOverU, Case::kOverPreGate, Case::kOverPostGate}) {
      for (const int64_t length : {100, 700}) {
        Case c{{3, 2, length, 90, evaluation, 0, Dtype::kBFloat16}};
        if (evaluation == Evaluation::kOnChipFft) c.desc.block = 128;
        c.gap = 3;
        c.alias = alias;
        Expect(c);
      }
    }
  }
  for (const auto alias : {Case::kOverU, Case::kOverPreGate, Case::kOverPostGate}) {
    Case c{{1, 2, 20000, 20000, Evaluation::kOuterFft, 16384, Dtype::kFloat32}};
    c.alias = alias;
    Expect(c, 20);
  }
}

TEST_F(LongConvCudaTest, Outer) {
  // Every first radix and row, one and two blocks, short taps.
  Expect({{2, 2, 16384, 16384, Evaluation::kOuterFft, 16384, Dtype::kFloat32}}, 30);
  Expect({{1, 1, 20480, 20480, Evaluation::kOuterFft, 20480, Dtype::kBFloat16}}, 30);
  Expect({{1, 1, 24001, 24001, Evaluation::kOuterFft, 24576, Dtype::kFloat16}}, 30);
  Expect({{1, 1, 28000, 40000, Evaluation::kOuterFft, 28672, Dtype::kFloat32}}, 30);
  Expect({{1, 1, 32749, 32749, Evaluation::kOuterFft, 32768, Dtype::kFloat32}}, 30);
  Expect({{1, 2, 40009, 40009, Evaluation::kOuterFft, 16384, Dtype::kFloat32}}, 30);
  Expect({{2, 1, 50021, 300, Evaluation::kOuterFft, 16384, Dtype::kFloat16}}, 30);
  Expect({{1, 1, 262144, 262144, Evaluation::kOuterFft, 262144, Dtype::kFloat32}}, 12);
}

TEST_F(LongConvCudaTest, OuterOnAGpu) {
  if (emulated_) GTEST_SKIP() << "too slow in the emulator";
  for (const Dtype dtype : kDtypes) {
    for (const int64_t block : LongConvBlocks(true)) {
      if (block > (1 << 22)) continue;
      Expect({{1, 2, block - 5, block - 5, Evaluation::kOuterFft, block, dtype}}, 20);
    }
    Expect({{1, 1, (1 << 23) + 3, (1 << 23) + 3, Evaluation::kAuto, 0, dtype}}, 20);
  }
}

TEST_F(LongConvCudaTest, PlannedLengths) {
  std::vector<int64_t> lengths = {1, 31, 256, 1000, 2048, 2049, 4097};
  if (!emulated_) {
    for (const int64_t more : {4096, 8191, 16384, 16385, 30011, 65536, 65537, 1000003, 4194304}) {
      lengths.push_back(more);
    }
  }
  for (const Dtype dtype : kDtypes) {
    for (const int64_t length : lengths) {
      Expect({{2, 2, length, length, Evaluation::kAuto, 0, dtype}}, 20);
    }
  }
}

// Offsets beyond 2^31 elements, checked by value at the end.
TEST_F(LongConvCudaTest, FarOffsets) {
  const auto memory = gpu::GetMemoryInfo(0);
  if (emulated_ || !memory.ok() || memory->free_bytes < (int64_t{12} << 30)) {
    GTEST_SKIP() << "needs 12 GB of device memory";
  }
  const LongConvDesc desc{2, 1, 3000, 3000, Evaluation::kAuto, 0, Dtype::kBFloat16};
  const auto plan = PlanLongConv(desc, stream_->device());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const int64_t stride = (int64_t{1} << 31) + 12345, bytes = 2 * (stride + desc.length);
  auto array = gpu::DeviceArray::Allocate(0, bytes);
  ASSERT_TRUE(array.ok()) << array.status();
  const Floats taps = Normal(1, desc.taps), u = Random(2, 2 * desc.length, desc.dtype);
  std::vector<unsigned char> host(2 * desc.length);
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < desc.length; ++t) {
      Encode(u[b * desc.length + t], desc.dtype, &host[2 * t]);
    }
    ASSERT_TRUE(queue()
                    .CopyToDevice(array->as<char>() + 2 * b * stride, host.data(), 2 * desc.length)
                    .ok());
    ASSERT_TRUE(queue().Synchronize().ok());
  }
  auto filter = LongConvFilter::Create(*plan, taps.data(), *stream_);
  ASSERT_TRUE(filter.ok()) << filter.status();
  LongConvArgs args;
  args.u = args.y = array->data();
  args.batch_stride = stride;
  args.channel_stride = desc.length;
  ASSERT_TRUE(RunLongConv(*plan, *filter, args, *stream_).ok());
  Floats y;
  for (int64_t b = 0; b < 2; ++b) {
    ASSERT_TRUE(
        queue().CopyToHost(host.data(), array->as<char>() + 2 * b * stride, 2 * desc.length).ok());
    ASSERT_TRUE(queue().Synchronize().ok());
    for (int64_t t = 0; t < desc.length; ++t) y.push_back(Decode(&host[2 * t], desc.dtype));
  }
  EXPECT_TRUE(
      reference::Near(y, reference::LongConv(desc, u, taps, {}, {}), ToleranceOf(desc.dtype)));
}

// ---- The planner, on no device

constexpr Device kH100{Device::Kind::kCuda, 0, 132, 227 << 10};

TEST(LongConvCudaPlanTest, Choices) {
  struct Row {
    int64_t length, taps;
    Dtype dtype;
    Evaluation evaluation;
  };
  for (const Row& row : {Row{1, 1, Dtype::kBFloat16, Evaluation::kToeplitz},
                         Row{256, 256, Dtype::kBFloat16, Evaluation::kToeplitz},
                         Row{1024, 1024, Dtype::kFloat16, Evaluation::kToeplitz},
                         Row{1024, 1024, Dtype::kFloat32, Evaluation::kOnChipFft},
                         Row{4096, 4096, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{16384, 16384, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{1 << 20, 300, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{16385, 16385, Dtype::kBFloat16, Evaluation::kOuterFft},
                         Row{1 << 22, 1 << 22, Dtype::kBFloat16, Evaluation::kOuterFft}}) {
    const LongConvDesc desc{1024, 768, row.length, row.taps, Evaluation::kAuto, 0, row.dtype};
    const auto plan = PlanLongConv(desc, kH100);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->evaluation, row.evaluation) << plan->ToString();
  }
}

// The work for a token grows by no more than a quarter of itself from one length to the next.
TEST(LongConvCudaPlanTest, NoCliffs) {
  for (int64_t length = 129; length < (1 << 22); length += 1 + length / 7) {
    const LongConvDesc desc{1, 1, length, length};
    const auto plan = PlanLongConv(desc, kH100);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->input_blocks, 1) << plan->ToString();
    EXPECT_LE(plan->block * 4, length * 5 + 4) << plan->ToString();
  }
}

TEST(LongConvCudaPlanTest, CoversAndCounts) {
  for (const int64_t length : {1, 100, 5000, 70000, 1 << 24}) {
    for (const int64_t taps : {1, 300, 20000, 1 << 24}) {
      const LongConvDesc desc{3, 2, length, taps, Evaluation::kAuto, 0, Dtype::kFloat16};
      const auto plan = PlanLongConv(desc, kH100);
      ASSERT_TRUE(plan.ok()) << plan.status();
      SCOPED_TRACE(plan->ToString());
      EXPECT_GE(plan->input_blocks * plan->block, length);
      EXPECT_GE(plan->tap_blocks * plan->block, std::min(length, taps));
      if (plan->evaluation == Evaluation::kOnChipFft) {
        EXPECT_EQ(plan->tap_blocks, 1);
      }
    }
  }
}

TEST(LongConvCudaPlanTest, RefusesWhatThereIsNot) {
  LongConvDesc desc{1, 1, 4096, 4096, Evaluation::kToeplitz, 0, Dtype::kBFloat16};
  EXPECT_FALSE(PlanLongConv(desc, kH100).ok());  // too long
  desc = {1, 1, 256, 256, Evaluation::kToeplitz, 0, Dtype::kFloat32};
  EXPECT_FALSE(PlanLongConv(desc, kH100).ok());
  desc = {1, 1, 256, 256, Evaluation::kOnChipFft, 1000, Dtype::kFloat32};
  EXPECT_FALSE(PlanLongConv(desc, kH100).ok());
  desc = {1, 1, 256, 256, Evaluation::kBlockFft, 0, Dtype::kFloat32};
  EXPECT_FALSE(PlanLongConv(desc, kH100).ok());
  EXPECT_TRUE(PlanLongConv(desc, Device{}).ok());
  desc.dtype = Dtype::kBFloat16;
  EXPECT_FALSE(PlanLongConv(desc, Device{}).ok());
}

}  // namespace
}  // namespace longwave

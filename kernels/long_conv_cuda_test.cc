// LongConv on a GPU, or in the emulator, against the float64 sum.
#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "kernels/gpu/queue.h"
#include "kernels/long_conv.h"
#include "kernels/testing/device_data.h"
#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Doubles;
using reference::Floats;
using reference::Normal;
using reference::RoundTo;
using Evaluation = LongConvEvaluation;

constexpr Dtype kDtypes[] = {Dtype::kBFloat16, Dtype::kFloat16, Dtype::kFloat32};

struct Case {
  LongConvDesc desc;
  bool pre_gate = true, post_gate = true;
  int64_t gap = 0, offset = 0;  // elements
  enum { kSeparate, kOverU, kOverPreGate, kOverPostGate } alias = kSeparate;
  double taps_scale = 0.3, scale = 1;  // of u
};

class LongConvCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!stream_.ok()) GTEST_SKIP() << "no GPU";
    emulated_ = stream_.emulated();
  }

  // Fresh inputs; all outputs compared, or `samples` of each sequence.
  void Expect(const Case& c, int64_t samples = 0) {
    const LongConvDesc& desc = c.desc;
    const auto plan = PlanLongConv(desc, (*stream_).device());
    ASSERT_TRUE(plan.ok()) << plan.status();
    SCOPED_TRACE(plan->ToString());
    if (desc.evaluation != Evaluation::kAuto) {
      ASSERT_EQ(plan->evaluation, desc.evaluation);
    }
    const int64_t rows = desc.batch * desc.channels, count = rows * desc.length;
    const Floats taps = Normal(++seed_, desc.channels * desc.taps, c.taps_scale);
    const auto random = [&](double scale = 1) {
      return RoundTo(Normal(++seed_, count, scale), desc.dtype);
    };
    const Floats u = random(c.scale), pre = c.pre_gate ? random() : Floats(),
                 post = c.post_gate ? random() : Floats();
    auto filter = LongConvFilter::Create(*plan, taps.data(), *stream_);
    ASSERT_TRUE(filter.ok()) << filter.status();

    const auto upload = [&](const Floats& x) {
      return x.empty() ? DeviceData(stream_, desc.dtype, rows, desc.length, c.gap, c.offset)
                       : DeviceData(stream_, desc.dtype, x, rows, c.gap, c.offset);
    };
    DeviceData du = upload(u), dpre = upload(pre), dpost = upload(post), dy = upload({});
    DeviceData* const arrays[] = {&dy, &du, &dpre, &dpost};
    LongConvArgs args;
    args.u = du.data();
    if (c.pre_gate) args.pre_gate = dpre.data();
    if (c.post_gate) args.post_gate = dpost.data();
    args.y = arrays[c.alias]->data();
    args.batch_stride = desc.channels * du.stride();
    args.channel_stride = du.stride();
    const absl::Status status = RunLongConv(*plan, *filter, args, *stream_);
    ASSERT_TRUE(status.ok()) << status;
    const Floats y = arrays[c.alias]->Get();
    for (DeviceData* array : arrays) EXPECT_TRUE(array->Intact());

    Floats actual;
    Doubles expected;
    if (samples == 0) {
      actual = y;
      expected = reference::LongConv(desc, u, taps, pre, post);
    } else {
      std::mt19937_64 random(seed_);
      for (const float v : y) ASSERT_TRUE(std::isfinite(v));
      for (int64_t row = 0; row < rows; ++row) {
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
    EXPECT_TRUE(reference::Near(actual, expected, reference::GpuTolerance(desc.dtype)));
  }

  reference::GpuStream stream_;
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
    Expect({{3, 2, 203, 203, Evaluation::kToeplitz, 0, dtype}, false, false, 5});
  }
}

// Taps that have no precision left in float16 as they are.
TEST_F(LongConvCudaTest, SmallTaps) {
  Case c{{3, 2, 150, 150, Evaluation::kToeplitz, 0, Dtype::kFloat16}};
  c.taps_scale = 1e-6;
  c.scale = 1e4;
  Expect(c);
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
  for (const int64_t length : {1, 3, 17, 127, 129, 1009}) {
    for (const int64_t taps : {1, 100, 129, 2000}) {
      Expect({{i % 3 + 1, 2, length, taps, Evaluation::kOnChipFft, 0, kDtypes[i % 3]},
              i % 2 == 0,
              i % 5 != 0,
              i % 4,
              i % 2});
      ++i;
    }
  }
}

// Two and three blocks of taps, fewer and as many as blocks of tokens.
TEST_F(LongConvCudaTest, OnChipMoreTapsThanABlock) {
  int i = 0;
  for (const auto& [length, taps] : {std::pair{9217, 9217}, {30011, 9300}, {27700, 27700}}) {
    Case c{{i % 2 + 1, 2, length, taps, Evaluation::kOnChipFft, 9216, kDtypes[i % 3]}};
    c.gap = c.offset = i % 2;
    c.alias = i == 1 ? Case::kOverU : Case::kSeparate;
    ++i;
    Expect(c, 20);
  }
  if (emulated_) return;
  for (const int64_t length : {16385, 20011, 32768, 49152, 70001}) {
    Expect({{70, 4, length, length, Evaluation::kOnChipFft, 0, kDtypes[i++ % 3]}}, 8);
  }
}

TEST_F(LongConvCudaTest, OutputOverAnInput) {
  for (const auto evaluation : {Evaluation::kToeplitz, Evaluation::kOnChipFft}) {
    for (const auto alias : {Case::kOverU, Case::kOverPreGate, Case::kOverPostGate}) {
      for (const int64_t length : {100, 300}) {
        Case c{{3, 2, length, 90, evaluation, 0, Dtype::kBFloat16}};
        if (evaluation == Evaluation::kOnChipFft) c.desc.block = 128;
        c.gap = 3;
        c.alias = alias;
        Expect(c);
      }
    }
  }
  for (const auto alias : {Case::kOverU, Case::kOverPreGate, Case::kOverPostGate}) {
    Case c{{1, 1, 20000, 20000, Evaluation::kOuterFft, 16384, Dtype::kFloat32}};
    c.alias = alias;
    Expect(c, 20);
  }
}

TEST_F(LongConvCudaTest, Outer) {
  // Every first radix and row, one and two blocks, short taps.
  Expect({{2, 2, 16384, 16384, Evaluation::kOuterFft, 16384, Dtype::kFloat32}}, 20);
  Expect({{1, 1, 20480, 20480, Evaluation::kOuterFft, 20480, Dtype::kBFloat16}}, 30);
  Expect({{1, 1, 24001, 24001, Evaluation::kOuterFft, 24576, Dtype::kFloat16}}, 30);
  Expect({{1, 1, 28000, 40000, Evaluation::kOuterFft, 28672, Dtype::kFloat32}}, 30);
  Expect({{1, 1, 32749, 32749, Evaluation::kOuterFft, 32768, Dtype::kFloat32}}, 30);
  Expect({{1, 1, 40009, 40009, Evaluation::kOuterFft, 16384, Dtype::kFloat32}}, 30);
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
  const LongConvDesc desc{2, 1, 3000, 3000, Evaluation::kAuto, 0, Dtype::kFloat32};
  const auto plan = PlanLongConv(desc, (*stream_).device());
  ASSERT_TRUE(plan.ok()) << plan.status();
  const int64_t stride = (int64_t{1} << 31) + 12345, bytes = 4 * desc.length;
  auto array = gpu::DeviceArray::Allocate(0, 4 * stride + bytes);
  ASSERT_TRUE(array.ok()) << array.status();
  const Floats taps = Normal(1, desc.taps), u = Normal(2, 2 * desc.length);
  gpu::Queue& queue = stream_.queue();
  for (const int64_t b : {0, 1}) {
    ASSERT_TRUE(
        queue.CopyToDevice(array->as<float>() + b * stride, u.data() + b * desc.length, bytes)
            .ok());
  }
  auto filter = LongConvFilter::Create(*plan, taps.data(), *stream_);
  ASSERT_TRUE(filter.ok()) << filter.status();
  LongConvArgs args;
  args.u = args.y = array->data();
  args.batch_stride = stride;
  args.channel_stride = desc.length;
  ASSERT_TRUE(RunLongConv(*plan, *filter, args, *stream_).ok());
  Floats y(u.size());
  for (const int64_t b : {0, 1}) {
    ASSERT_TRUE(
        queue.CopyToHost(y.data() + b * desc.length, array->as<float>() + b * stride, bytes).ok());
  }
  ASSERT_TRUE(queue.Synchronize().ok());
  EXPECT_TRUE(reference::Near(y, reference::LongConv(desc, u, taps, {}, {}),
                              reference::GpuTolerance(desc.dtype)));
}

// ---- The planner, on no device

constexpr Device kH100{Device::Kind::kCuda, 0, 132, 227 << 10};

TEST(LongConvCudaPlanTest, Choices) {
  struct Row {
    int64_t length, taps;
    Dtype dtype;
    Evaluation evaluation;
  };
  for (const Row& row : {Row{1, 1, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{256, 256, Dtype::kBFloat16, Evaluation::kToeplitz},
                         Row{1024, 1024, Dtype::kFloat16, Evaluation::kToeplitz},
                         Row{1024, 1024, Dtype::kFloat32, Evaluation::kOnChipFft},
                         Row{4096, 4096, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{16384, 16384, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{1 << 20, 300, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{16385, 16385, Dtype::kBFloat16, Evaluation::kOnChipFft},
                         Row{65536, 65536, Dtype::kBFloat16, Evaluation::kOuterFft},
                         Row{1 << 22, 1 << 22, Dtype::kBFloat16, Evaluation::kOuterFft}}) {
    const LongConvDesc desc{1024, 768, row.length, row.taps, Evaluation::kAuto, 0, row.dtype};
    const auto plan = PlanLongConv(desc, kH100);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->evaluation, row.evaluation) << plan->ToString();
  }
}

// Transforms are hardly longer than the sequence.
TEST(LongConvCudaPlanTest, NoCliffs) {
  for (int64_t length = 129; length < (1 << 22); length += 1 + length / 15) {
    const LongConvDesc desc{1, 1, length, length};
    const auto plan = PlanLongConv(desc, kH100);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->input_blocks, 1) << plan->ToString();
    EXPECT_LE(plan->block * 10, length * 12) << plan->ToString();
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

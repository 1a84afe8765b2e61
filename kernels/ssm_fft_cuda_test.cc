// SsmConv's block FFT on the GPU against the recurrence in float64: every dtype and block, gates,
// states, splits, layouts, and states handed to and from the CPU's evaluations.
#include "kernels/ssm_fft_cuda.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::Rejected;
using reference::RoundTo;

struct Case {
  SsmConvDesc desc;
  int64_t block = 256;
  bool pre_gate = true, post_gate = true, state = true, want_y = true, want_state = true;
  int64_t gap = 0, shift = 0;
  enum { kSeparate, kOverU, kOverPreGate, kOverPostGate } alias = kSeparate;
  double dt_min = 1e-3, dt_max = 1e-1;
};

struct Outputs {
  Floats y, state;
};

class SsmFftCudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!stream_.ok()) GTEST_SKIP() << "no GPU";
  }

  Outputs Run(const Case& c, const DiagonalSsm& ssm, const Floats& u, const Floats& pre,
              const Floats& post, const Floats& state_in) {
    Outputs out;
    const SsmConvDesc& desc = c.desc;
    auto filter = UploadSsmFft(ssm, c.block, desc.dtype, *stream_);
    EXPECT_TRUE(filter.ok()) << filter.status();
    if (!filter.ok()) return out;
    const int64_t rows = desc.batch * desc.channels;
    const auto make = [&](const Floats& values) {
      return values.empty() ? DeviceData(stream_, desc.dtype, rows, desc.length, c.gap, c.shift)
                            : DeviceData(stream_, desc.dtype, values, rows, c.gap, c.shift);
    };
    DeviceData gu = make(u), gpre = make(pre), gpost = make(post), separate = make({});
    DeviceData state(stream_, Dtype::kFloat32, rows, 2 * desc.pairs);
    if (!state_in.empty()) state.Set(state_in);
    DeviceData* y = c.alias == Case::kOverU          ? &gu
                    : c.alias == Case::kOverPreGate  ? &gpre
                    : c.alias == Case::kOverPostGate ? &gpost
                                                     : &separate;
    SsmConvArgs args;
    args.u = gu.data();
    if (!pre.empty()) args.pre_gate = gpre.data();
    if (!post.empty()) args.post_gate = gpost.data();
    if (c.want_y) args.y = y->data();
    args.channel_stride = gu.stride();
    args.batch_stride = desc.channels * gu.stride();
    if (!state_in.empty()) args.state_in = state.floats();
    if (c.want_state) args.state_out = state.floats();
    const SsmConvPlan plan{desc, SsmEvaluation::kBlockFft, c.block, 0};
    const absl::Status status = RunSsmConvFftCuda(plan, **filter, args, *stream_);
    EXPECT_TRUE(status.ok()) << status;
    for (DeviceData* data : {&gu, &gpre, &gpost, &separate, &state}) EXPECT_TRUE(data->Intact());
    out.y = y->Get();
    out.state = state.Get();
    return out;
  }

  void ExpectCorrect(Case c, uint64_t seed) {
    SsmConvDesc& desc = c.desc;
    desc.evaluation = SsmEvaluation::kBlockFft;
    SCOPED_TRACE(absl::StrCat(desc.ToString(), " block ", c.block));
    const int64_t count = desc.batch * desc.channels * desc.length;
    const auto gate = [&](bool wanted, uint64_t s) {
      return wanted ? RoundTo(Normal(s, count), desc.dtype) : Floats();
    };
    const DiagonalSsm ssm = reference::S4dLin(seed, desc.channels / desc.channels_per_filter,
                                              desc.pairs, c.dt_min, c.dt_max);
    const Floats u = gate(true, seed + 1), pre = gate(c.pre_gate, seed + 2),
                 post = gate(c.post_gate, seed + 3);
    const Floats state =
        c.state ? Normal(seed + 4, desc.batch * desc.channels * 2 * desc.pairs, 0.3) : Floats();
    const Outputs out = Run(c, ssm, u, pre, post, state);
    const reference::WithState expected = reference::SsmConv(ssm, desc, u, pre, post, state);
    if (c.want_y) {
      EXPECT_TRUE(Near(out.y, expected.y, GpuTolerance(desc.dtype)));
    }
    if (c.want_state) {
      EXPECT_TRUE(Near(out.state, expected.state, GpuTolerance(desc.dtype)));
    }
  }

  GpuStream stream_;
};

Case MakeCase(Dtype dtype, int64_t length, int64_t block = 256, int64_t pairs = 8) {
  Case c;
  c.desc.channels = 2;
  c.desc.length = length;
  c.desc.pairs = pairs;
  c.desc.dtype = dtype;
  c.block = block;
  return c;
}

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBFloat16};

TEST_F(SsmFftCudaTest, Lengths) {
  for (const int64_t length : {1, 2, 3, 7, 8, 97, 255, 256, 257, 511, 512, 513, 769, 1009, 1536}) {
    ExpectCorrect(MakeCase(Dtype::kFloat32, length), 100 + length);
  }
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBFloat16}) {
    for (const int64_t length : {1, 31, 256, 520, 1031}) {
      ExpectCorrect(MakeCase(dtype, length), 200 + length);
    }
  }
}

TEST_F(SsmFftCudaTest, Blocks) {
  for (const Dtype dtype : kDtypes) {
    ExpectCorrect(MakeCase(dtype, 3 * 1024 + 77, 1024), 1);
    Case c = MakeCase(dtype, 2 * 4096 + 5, 4096);
    c.desc.channels = 1;
    ExpectCorrect(c, 2);
    if (stream_.emulated()) continue;
    for (const int64_t block : {256, 1024, 4096}) {
      for (const int64_t length : {100, 4096, 8191, 65536, 100003}) {
        Case large = MakeCase(dtype, length, block, 32);
        large.desc.batch = 2;
        large.desc.channels = 5;
        ExpectCorrect(large, block + length);
      }
    }
  }
}

TEST_F(SsmFftCudaTest, Pairs) {
  for (const int64_t pairs : {1, 3, 9, 32, 64}) {
    ExpectCorrect(MakeCase(Dtype::kFloat32, 600, 256, pairs), 300 + pairs);
    ExpectCorrect(MakeCase(Dtype::kBFloat16, 600, 256, pairs), 400 + pairs);
  }
}

TEST_F(SsmFftCudaTest, GatesStatesAndOutputs) {
  for (int bits = 0; bits < 32; ++bits) {
    Case c = MakeCase(bits % 2 == 0 ? Dtype::kFloat32 : Dtype::kBFloat16, 600);
    c.pre_gate = bits & 1;
    c.post_gate = bits & 2;
    c.state = bits & 4;
    c.want_y = bits & 8;
    c.want_state = bits & 16;
    if (!c.want_y && !c.want_state) continue;
    ExpectCorrect(c, 500 + bits);
  }
}

TEST_F(SsmFftCudaTest, LayoutsAndAliases) {
  for (const auto alias :
       {Case::kSeparate, Case::kOverU, Case::kOverPreGate, Case::kOverPostGate}) {
    for (const Dtype dtype : kDtypes) {
      for (const int64_t gap : {0, 1, 8}) {
        Case c = MakeCase(dtype, 520);
        c.desc.batch = 2;
        c.desc.channels = 4;
        c.desc.channels_per_filter = 2;
        c.gap = gap;
        c.shift = gap == 1 ? 3 : 0;
        c.alias = alias;
        if (stream_.emulated() && dtype == Dtype::kFloat16 && alias != Case::kSeparate) continue;
        ExpectCorrect(c, 600 + gap);
      }
    }
  }
}

// Modes whose memory is far longer than the sequence, and far shorter than a block.
TEST_F(SsmFftCudaTest, Memories) {
  for (const Dtype dtype : kDtypes) {
    Case c = MakeCase(dtype, 2000);
    c.dt_min = c.dt_max = 1e-5;
    ExpectCorrect(c, 701);
    c.dt_min = c.dt_max = 1;
    ExpectCorrect(c, 702);
  }
}

// |a| = 1, and a^N = 1 where the wrap-around would not die down without rho.
TEST_F(SsmFftCudaTest, UndampedModes) {
  Case c = MakeCase(Dtype::kFloat32, 1100, 256, 4);
  c.desc.channels = 1;
  DiagonalSsm ssm = reference::S4dLin(1, 1, 4);
  ssm.a = {1.0, -1.0, Complex(0, 1), std::polar(1.0, 0.1)};
  const Floats u = Normal(2, 1100);
  const Outputs out = Run(c, ssm, u, {}, {}, {});
  const reference::WithState expected = reference::SsmConv(ssm, c.desc, u, {}, {}, {});
  EXPECT_TRUE(Near(out.y, expected.y, 2e-6));
  EXPECT_TRUE(Near(out.state, expected.state, 2e-6));
}

// Any split gives what the whole gives; every other chunk may run on the CPU, as any evaluation.
TEST_F(SsmFftCudaTest, Splits) {
  Case c = MakeCase(Dtype::kFloat32, 2500);
  const DiagonalSsm ssm = reference::S4dLin(5, 2, 8);
  const Floats u = Normal(6, 2 * 2500), pre = Normal(7, 2 * 2500), post = Normal(8, 2 * 2500);
  const reference::WithState expected = reference::SsmConv(ssm, c.desc, u, pre, post, {});
  for (const bool mixed : {false, true}) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      Floats y(2 * 2500), state(2 * 2 * 8, 0.0f);
      int64_t begin = 0, index = 0;
      for (const int64_t length : reference::RandomSplit(seed, 2500)) {
        c.desc.length = length;
        const auto part = [&](const Floats& x) {
          return reference::Columns(x, 2, 2500, begin, length);
        };
        Floats out;
        if (mixed && index % 2 == 1) {
          SsmConvDesc desc = c.desc;
          desc.evaluation = index % 4 == 1 ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
          const auto plan = PlanSsmConv(desc, Device{});
          const auto filter = SsmFilter::Create(ssm);
          ASSERT_TRUE(plan.ok() && filter.ok());
          const Floats cu = part(u), cpre = part(pre), cpost = part(post);
          out.resize(2 * length);
          SsmConvArgs args;
          args.u = cu.data();
          args.pre_gate = cpre.data();
          args.post_gate = cpost.data();
          args.y = out.data();
          args.batch_stride = 2 * length;
          args.channel_stride = length;
          args.state_in = args.state_out = state.data();
          Stream cpu(&stream_->pool());
          ASSERT_TRUE(RunSsmConv(*plan, *filter, args, cpu).ok());
        } else {
          Outputs outputs = Run(c, ssm, part(u), part(pre), part(post), state);
          out = outputs.y;
          state = outputs.state;
        }
        for (int64_t r = 0; r < 2; ++r) {
          std::copy_n(out.begin() + r * length, length, y.begin() + r * 2500 + begin);
        }
        begin += length;
        ++index;
      }
      EXPECT_TRUE(Near(y, expected.y, 2e-6)) << "seed " << seed;
      EXPECT_TRUE(Near(state, expected.state, 2e-6)) << "seed " << seed;
    }
  }
}

TEST_F(SsmFftCudaTest, WhatDoesNotFitIsRefused) {
  Case c = MakeCase(Dtype::kFloat32, 100);
  const DiagonalSsm ssm = reference::S4dLin(5, 2, 8);
  EXPECT_TRUE(
      Rejected(UploadSsmFft(ssm, 512, Dtype::kFloat32, *stream_).status(), {"fft_block = 512"}));
  auto filter = UploadSsmFft(ssm, 256, Dtype::kFloat32, *stream_);
  ASSERT_TRUE(filter.ok());
  const auto run = [&](const SsmConvDesc& desc, int64_t block) {
    return RunSsmConvFftCuda({desc, SsmEvaluation::kBlockFft, block, 0}, **filter, {}, *stream_);
  };
  SsmConvDesc desc = c.desc;
  EXPECT_TRUE(Rejected(run(desc, 1024), {"1024", "256"}));
  desc.dtype = Dtype::kBFloat16;
  EXPECT_TRUE(Rejected(run(desc, 256), {"bfloat16", "float32"}));
  desc = c.desc;
  desc.pairs = 9;
  EXPECT_TRUE(Rejected(run(desc, 256), {"pairs=9", "8 pairs"}));
  desc = c.desc;
  desc.channels = 3;
  EXPECT_TRUE(Rejected(run(desc, 256), {"channels=3", "2 filters"}));
  desc.channels = 2;
  desc.batch = int64_t{1} << 31;
  EXPECT_TRUE(Rejected(run(desc, 256), {"batch=2147483648"}));
}

}  // namespace
}  // namespace longwave

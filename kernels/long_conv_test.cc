#include "kernels/long_conv.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Doubles;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;

struct Inputs {
  Floats u, taps, pre_gate, post_gate;  // empty: none
};

struct Options {
  int threads = 1;
  int64_t gap = 0;
  enum { kSeparate, kOverU, kOverPreGate, kOverPostGate } alias = kSeparate;
};

Inputs MakeInputs(uint64_t seed, const LongConvDesc& desc, bool pre_gate = true,
                  bool post_gate = true) {
  const int64_t count = desc.batch * desc.channels * desc.length;
  Inputs in;
  in.u = Normal(seed, count);
  in.taps = Normal(seed + 1, desc.channels * desc.taps);
  if (pre_gate) in.pre_gate = Normal(seed + 2, count);
  if (post_gate) in.post_gate = Normal(seed + 3, count);
  return in;
}

Floats Evaluate(const LongConvDesc& desc, const Inputs& in, const Options& options = {}) {
  const auto plan = PlanLongConv(desc, Device{});
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return {};
  const int64_t b = desc.batch, c = desc.channels, l = desc.length;
  Guarded u(in.u, b, c, l, options.gap), separate(b, c, l, options.gap), taps(in.taps);
  Guarded pre = in.pre_gate.empty() ? Guarded(0) : Guarded(in.pre_gate, b, c, l, options.gap);
  Guarded post = in.post_gate.empty() ? Guarded(0) : Guarded(in.post_gate, b, c, l, options.gap);
  Guarded* const outputs[] = {&separate, &u, &pre, &post};
  Guarded& y = *outputs[options.alias];
  LongConvArgs args;
  args.u = u.data();
  if (!in.pre_gate.empty()) args.pre_gate = pre.data();
  if (!in.post_gate.empty()) args.post_gate = post.data();
  args.y = y.data();
  args.batch_stride = u.batch_stride();
  args.channel_stride = u.channel_stride();
  reference::PoisonedStream stream(options.threads, plan->scratch_floats);
  const LongConvFilter filter = LongConvFilter::Create(*plan, taps.data(), *stream).value();
  taps.Set(Floats(in.taps.size(), std::nanf("")));  // the filter keeps what it needs
  const absl::Status status = RunLongConv(*plan, filter, args, *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  for (const Guarded* buffer : {&u, &separate, &pre, &post, &taps}) EXPECT_TRUE(buffer->Intact());
  return y.Packed();
}

void ExpectCorrect(const LongConvDesc& desc, const Inputs& in, const Options& options = {}) {
  SCOPED_TRACE(desc.ToString());
  EXPECT_TRUE(Near(Evaluate(desc, in, options),
                   reference::LongConv(desc, in.u, in.taps, in.pre_gate, in.post_gate),
                   reference::Tolerance(Device{})));
}

TEST(LongConvTest, LengthsAndTaps) {
  for (const int64_t length :
       {1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 128, 129, 255, 257, 1000}) {
    for (const int64_t taps : {1, 2, 3, 16, 17, 64, 65, 127, 128, 300, 1000, 1500}) {
      const LongConvDesc desc{1, 2, length, taps};
      ExpectCorrect(desc, MakeInputs(length + taps, desc), {.gap = 3});
    }
  }
}

TEST(LongConvTest, LengthsOfManyBlocks) {
  for (const LongConvDesc& desc :
       {LongConvDesc{1, 1, 4096, 4096}, LongConvDesc{1, 1, 4093, 4093},
        LongConvDesc{1, 1, 8193, 8193}, LongConvDesc{1, 1, 20011, 300},
        LongConvDesc{1, 1, 5000, 4999}, LongConvDesc{1, 1, 3000, 20000}}) {
    ExpectCorrect(desc, MakeInputs(desc.length, desc));
  }
}

TEST(LongConvTest, Gates) {
  for (const int64_t length : {5, 64, 777}) {
    const LongConvDesc desc{2, 3, length, length};
    for (const bool pre : {false, true}) {
      for (const bool post : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "pre " << pre << " post " << post);
        ExpectCorrect(desc, MakeInputs(length, desc, pre, post));
      }
    }
  }
}

TEST(LongConvTest, BatchAndStrides) {
  for (const int64_t batch : {1, 2, 5}) {
    for (const int64_t gap : {0, 1, 16, 61}) {
      for (const int64_t length : {1, 15, 64, 259}) {
        const LongConvDesc desc{batch, 3, length, 100};
        ExpectCorrect(desc, MakeInputs(batch + length, desc), {.threads = 2, .gap = gap});
      }
    }
  }
}

TEST(LongConvTest, OutputOverAnInput) {
  for (const int64_t length : {1, 16, 65, 1000, 3000}) {
    const LongConvDesc desc{2, 3, length, 200};
    const Inputs in = MakeInputs(length, desc);
    for (const auto alias : {Options::kOverU, Options::kOverPreGate, Options::kOverPostGate}) {
      SCOPED_TRACE(::testing::Message() << "alias " << alias);
      ExpectCorrect(desc, in, {.gap = 3, .alias = alias});
    }
  }
}

TEST(LongConvTest, ThreadsDoNotChangeTheResult) {
  for (const LongConvDesc& desc : {LongConvDesc{1, 1, 20000, 20000}, LongConvDesc{3, 7, 500, 500},
                                   LongConvDesc{1, 33, 100, 64}}) {
    const Inputs in = MakeInputs(desc.length, desc);
    const Floats one = Evaluate(desc, in);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, {.threads = threads}), one)) << desc.ToString();
    }
  }
}

// One filter serves many inputs; only Create reads the taps.
TEST(LongConvTest, FilterIsUsedAgain) {
  const LongConvDesc desc{1, 2, 300, 300};
  const auto plan = PlanLongConv(desc, Device{});
  ASSERT_TRUE(plan.ok()) << plan.status();
  reference::PoisonedStream stream(2, plan->scratch_floats);
  const Inputs first = MakeInputs(1, desc);
  const LongConvFilter filter = LongConvFilter::Create(*plan, first.taps.data(), *stream).value();
  for (const uint64_t seed : {10, 20, 30}) {
    Inputs in = MakeInputs(seed, desc, false, false);
    in.taps = first.taps;
    Floats y(in.u.size());
    LongConvArgs args;
    args.u = in.u.data();
    args.y = y.data();
    args.batch_stride = 600;
    args.channel_stride = 300;
    ASSERT_TRUE(RunLongConv(*plan, filter, args, *stream).ok());
    EXPECT_TRUE(
        Near(y, reference::LongConv(desc, in.u, in.taps, {}, {}), reference::Tolerance(Device{})));
  }
}

// A million tokens and taps, compared at 48 tokens with the direct sum. The error of a float32 FFT
// grows with the root of log N, so the tolerance stays that of the short ones.
TEST(LongConvTest, AMillionTokens) {
  const LongConvDesc desc{1, 1, 1000003, 1000003};
  const Inputs in = MakeInputs(1, desc, false, false);
  const Floats y = Evaluate(desc, in, {.threads = 2});
  ASSERT_EQ(y.size(), in.u.size());
  std::mt19937_64 random(2);
  Floats sampled;
  Doubles expected;
  for (int i = 0; i < 48; ++i) {
    // The ends, the borders about 2^19, then anywhere.
    const int64_t t = i < 2   ? i * (desc.length - 1)
                      : i < 6 ? (1 << 19) + i - 4
                              : random() % desc.length;
    double sum = 0;
    for (int64_t j = 0; j <= t; ++j) {
      sum += static_cast<double>(in.taps[j]) * static_cast<double>(in.u[t - j]);
    }
    sampled.push_back(y[t]);
    expected.push_back(sum);
  }
  EXPECT_TRUE(Near(sampled, expected, reference::Tolerance(Device{})));
  for (const float value : y) ASSERT_TRUE(std::isfinite(value));
}

// Single taps move the sequence: every delay, also across blocks, and nothing wraps around.
TEST(LongConvTest, SingleTapDelays) {
  const int64_t length = 700;
  for (const int64_t delay : {0, 1, 15, 16, 63, 64, 127, 128, 255, 256, 257, 511, 512, 699}) {
    const LongConvDesc desc{1, 1, length, length};
    Inputs in = MakeInputs(delay, desc, false, false);
    std::fill(in.taps.begin(), in.taps.end(), 0.0f);
    in.taps[delay] = 1;
    const Floats y = Evaluate(desc, in);
    ASSERT_EQ(y.size(), in.u.size());
    // Relative to all of u, of which a long delay leaves few tokens: an FFT's error spreads evenly.
    double difference = 0, norm = 0;
    for (int64_t t = 0; t < length; ++t) {
      const double e = y[t] - (t < delay ? 0.0 : in.u[t - delay]);
      difference += e * e;
      norm += static_cast<double>(in.u[t]) * static_cast<double>(in.u[t]);
    }
    EXPECT_LE(std::sqrt(difference / norm), reference::Tolerance(Device{})) << delay;
  }
}

TEST(LongConvTest, Plan) {
  for (const int64_t length : {1, 2, 17, 64, 100, 1000, 4096, 65537, 1000000}) {
    for (const int64_t taps : {1, 64, 100, 5000, 2000000}) {
      const LongConvDesc desc{1, 4, length, taps};
      SCOPED_TRACE(desc.ToString());
      const auto plan = PlanLongConv(desc, Device{}), again = PlanLongConv(desc, Device{});
      ASSERT_TRUE(plan.ok()) << plan.status();
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(plan->block, again->block);
      EXPECT_EQ(plan->scratch_floats, again->scratch_floats);
      ASSERT_GT(plan->block, 0);
      EXPECT_EQ(plan->block & (plan->block - 1), 0) << plan->block;
      EXPECT_EQ(plan->input_blocks, (length + plan->block - 1) / plan->block);
      EXPECT_EQ(plan->tap_blocks, (std::min(taps, length) + plan->block - 1) / plan->block);
    }
  }
}

TEST(LongConvTest, RejectsEachBadFieldWithItsValue) {
  const LongConvDesc good{2, 3, 100, 64};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, int64_t value) {
    LongConvDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {std::to_string(value)})) << desc.ToString();
    EXPECT_TRUE(Rejected(PlanLongConv(desc, Device{}).status(), {std::to_string(value)}));
  };
  for (const int64_t bad : {0, -1, -7177}) {
    expect_rejected([&](LongConvDesc& d) { d.batch = bad; }, bad);
    expect_rejected([&](LongConvDesc& d) { d.channels = bad; }, bad);
    expect_rejected([&](LongConvDesc& d) { d.length = bad; }, bad);
    expect_rejected([&](LongConvDesc& d) { d.taps = bad; }, bad);
  }
}

}  // namespace
}  // namespace longwave

#include "kernels/ssm_conv.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <thread>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Columns;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;
using ::testing::HasSubstr;

constexpr int64_t kLengths[] = {1,   2,   3,   4,    5,    7,    8,    15,   16,   17,   31,
                                32,  33,  63,  64,   65,   97,   127,  128,  129,  255,  256,
                                257, 511, 513, 1000, 1009, 2047, 4093, 4096, 8192, 8193, 20011};

struct Inputs {
  DiagonalSsm ssm;
  Floats u, pre_gate, post_gate, state;  // empty: none
};

struct Options {
  int threads = 1;
  int64_t gap = 0;
  bool want_y = true;
  bool want_state = true;
  enum { kSeparate, kOverU, kOverPreGate, kOverPostGate, kSquare } alias = kSeparate;
};

struct Outputs {
  Floats y, state;
  int64_t block = 0;
};

Inputs MakeInputs(uint64_t seed, const SsmConvDesc& desc, bool pre_gate = true,
                  bool post_gate = true, bool state = true) {
  const int64_t count = desc.batch * desc.channels * desc.length;
  Inputs in;
  in.ssm = reference::S4dLin(seed, desc.channels / desc.channels_per_filter, desc.pairs);
  in.u = Normal(seed + 1, count);
  if (pre_gate) in.pre_gate = Normal(seed + 2, count);
  if (post_gate) in.post_gate = Normal(seed + 3, count);
  if (state) in.state = Normal(seed + 4, desc.batch * desc.channels * 2 * desc.pairs, 0.3);
  return in;
}

// The filters of one DiagonalSsm, made once for each FFT block.
class Filters {
 public:
  explicit Filters(const DiagonalSsm& ssm) : ssm_(ssm) {}
  const SsmFilter& For(const SsmConvPlan& plan) {
    const int64_t fft_block = plan.evaluation == SsmEvaluation::kBlockFft ? plan.block : 0;
    auto found = made_.find(fft_block);
    if (found == made_.end()) {
      absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm_, fft_block);
      EXPECT_TRUE(filter.ok()) << filter.status();
      found = made_.emplace(fft_block, filter.ok() ? *std::move(filter) : SsmFilter()).first;
    }
    return found->second;
  }

 private:
  const DiagonalSsm& ssm_;
  std::map<int64_t, SsmFilter> made_;
};

// Plans and runs with every buffer guarded.
Outputs Evaluate(const SsmConvDesc& desc, const Inputs& in, const Options& options,
                 Filters& filters) {
  Outputs out;
  absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, Device{});
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return out;
  out.block = plan->block;

  const int64_t b = desc.batch, c = desc.channels, l = desc.length;
  Guarded u(in.u, b, c, l, options.gap), separate(b, c, l, options.gap);
  Guarded pre = in.pre_gate.empty() ? Guarded(0) : Guarded(in.pre_gate, b, c, l, options.gap);
  Guarded post = in.post_gate.empty() ? Guarded(0) : Guarded(in.post_gate, b, c, l, options.gap);
  Guarded state(b * c * 2 * desc.pairs);
  if (!in.state.empty()) state.Set(in.state);

  Guarded* y = &separate;
  SsmConvArgs args;
  args.u = u.data();
  if (!in.pre_gate.empty()) args.pre_gate = pre.data();
  if (!in.post_gate.empty()) args.post_gate = post.data();
  switch (options.alias) {
    case Options::kSeparate:
      break;
    case Options::kOverU:
      y = &u;
      break;
    case Options::kOverPreGate:
      y = &pre;
      break;
    case Options::kOverPostGate:
      y = &post;
      break;
    case Options::kSquare:  // u is its own two gates, and y
      y = &u;
      args.pre_gate = args.post_gate = u.data();
      break;
  }
  if (options.want_y) args.y = y->data();
  args.batch_stride = u.batch_stride();
  args.channel_stride = u.channel_stride();
  if (!in.state.empty()) args.state_in = state.data();
  // In place where there is a state; where there is none, state_out starts as NaN.
  if (options.want_state) args.state_out = state.data();

  reference::PoisonedStream stream(options.threads, plan->scratch_floats);
  const absl::Status status = RunSsmConv(*plan, filters.For(*plan), args, *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  for (const Guarded* buffer : {&u, &separate, &pre, &post, &state}) EXPECT_TRUE(buffer->Intact());
  if (y != &u) {
    EXPECT_TRUE(BitwiseEqual(u.Packed(), in.u)) << "u was written";
  }
  if (options.want_y) out.y = y->Packed();
  if (options.want_state) out.state = state.Packed();
  return out;
}

Outputs Evaluate(const SsmConvDesc& desc, const Inputs& in, const Options& options = {}) {
  Filters filters(in.ssm);
  return Evaluate(desc, in, options, filters);
}

void ExpectCorrect(const SsmConvDesc& desc, const Inputs& in, const Options& options = {}) {
  SCOPED_TRACE(desc.ToString());
  const Outputs out = Evaluate(desc, in, options);
  const bool square = options.alias == Options::kSquare;
  const reference::WithState expected = reference::SsmConv(
      in.ssm, desc, in.u, square ? in.u : in.pre_gate, square ? in.u : in.post_gate, in.state);
  ASSERT_GT(out.block, 0);
  const double tolerance = reference::CarryTolerance(Device{}, in.ssm, desc.length,
                                                     reference::Carries(desc.length, out.block));
  if (options.want_y) {
    EXPECT_TRUE(Near(out.y, expected.y, tolerance));
  }
  if (options.want_state) {
    EXPECT_TRUE(Near(out.state, expected.state, tolerance)) << "state";
  }
}

// ---- Each evaluation
// --------------------------------------------------------------------------------

class SsmConvTest : public ::testing::TestWithParam<SsmEvaluation> {
 protected:
  SsmConvDesc Desc(int64_t batch, int64_t channels, int64_t length, int64_t pairs,
                   int64_t channels_per_filter = 1) const {
    return {batch, channels, length, pairs, channels_per_filter, GetParam()};
  }
};

INSTANTIATE_TEST_SUITE_P(Evaluations, SsmConvTest,
                         ::testing::Values(SsmEvaluation::kDualForm, SsmEvaluation::kBlockFft,
                                           SsmEvaluation::kStep, SsmEvaluation::kAuto),
                         [](const auto& info) {
                           switch (info.param) {
                             case SsmEvaluation::kDualForm:
                               return "DualForm";
                             case SsmEvaluation::kBlockFft:
                               return "BlockFft";
                             case SsmEvaluation::kStep:
                               return "Step";
                             case SsmEvaluation::kAuto:
                               return "Auto";
                           }
                           return "Unknown";
                         });

TEST_P(SsmConvTest, Lengths) {
  for (const int64_t length : kLengths) {
    const SsmConvDesc desc = Desc(1, 3, length, 16);
    ExpectCorrect(desc, MakeInputs(length, desc), {.gap = 5});
  }
}

TEST_P(SsmConvTest, Pairs) {
  for (const int64_t pairs : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64}) {
    for (const int64_t length : {1, 5, 64, 97, 1000}) {
      const SsmConvDesc desc = Desc(1, 2, length, pairs);
      ExpectCorrect(desc, MakeInputs(pairs * 10000 + length, desc));
    }
  }
}

TEST_P(SsmConvTest, Gates) {
  for (const int64_t length : {1, 5, 64, 777}) {
    const SsmConvDesc desc = Desc(2, 3, length, 4);
    for (const bool pre : {false, true}) {
      for (const bool post : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "pre " << pre << " post " << post);
        ExpectCorrect(desc, MakeInputs(length, desc, pre, post));
      }
    }
  }
}

TEST_P(SsmConvTest, StateInAndOutAreOptionalAndYToo) {
  for (const int64_t length : {1, 3, 16, 64, 65, 1000, 5000}) {
    const SsmConvDesc desc = Desc(2, 3, length, 8);
    for (const bool state_in : {false, true}) {
      for (const bool want_state : {false, true}) {
        for (const bool want_y : {false, true}) {
          SCOPED_TRACE(::testing::Message()
                       << "state in " << state_in << " out " << want_state << " y " << want_y);
          ExpectCorrect(desc, MakeInputs(length, desc, true, true, state_in),
                        {.want_y = want_y, .want_state = want_state});
        }
      }
    }
  }
}

// The state leaves separately from the one that came in, and that one is not written.
TEST_P(SsmConvTest, StateInIsKeptWhereStateOutIsElsewhere) {
  const SsmConvDesc desc = Desc(2, 3, 100, 17);
  const Inputs in = MakeInputs(1, desc);
  const Outputs in_place = Evaluate(desc, in);
  absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, Device{});
  ASSERT_TRUE(plan.ok()) << plan.status();
  Filters filters(in.ssm);
  Guarded u(in.u), pre(in.pre_gate), post(in.post_gate), y(in.u.size());
  Guarded state_in(in.state), state_out(in.state.size());
  reference::PoisonedStream stream(1, plan->scratch_floats);
  const absl::Status status =
      RunSsmConv(*plan, filters.For(*plan),
                 {u.data(), pre.data(), post.data(), y.data(), desc.channels * desc.length,
                  desc.length, state_in.data(), state_out.data()},
                 *stream);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(BitwiseEqual(state_in.Packed(), in.state));
  EXPECT_TRUE(BitwiseEqual(state_out.Packed(), in_place.state));
  EXPECT_TRUE(BitwiseEqual(y.Packed(), in_place.y));
  EXPECT_TRUE(state_in.Intact());
  EXPECT_TRUE(state_out.Intact());
}

// A state-only pass gives the same state as the pass with an output.
TEST_P(SsmConvTest, StateOnlyPassAgrees) {
  for (const int64_t length : {5, 64, 4100}) {
    const SsmConvDesc desc = Desc(1, 4, length, 32);
    const Inputs in = MakeInputs(length, desc);
    const Outputs full = Evaluate(desc, in), state_only = Evaluate(desc, in, {.want_y = false});
    EXPECT_TRUE(Near(state_only.state, reference::ToDoubles(full.state),
                     reference::CarryTolerance(Device{}, in.ssm, length,
                                               reference::Carries(length, full.block))));
  }
}

TEST_P(SsmConvTest, OutputOverAnInput) {
  for (const int64_t length : {1, 5, 16, 65, 1000, 4100}) {
    const SsmConvDesc desc = Desc(2, 5, length, 4);
    const Inputs in = MakeInputs(length, desc);
    for (const auto alias : {Options::kOverU, Options::kOverPreGate, Options::kOverPostGate}) {
      SCOPED_TRACE(::testing::Message() << "alias " << alias);
      ExpectCorrect(desc, in, {.gap = 3, .alias = alias});
    }
    ExpectCorrect(desc, MakeInputs(length, desc, false, false), {.alias = Options::kSquare});
  }
}

TEST_P(SsmConvTest, ChannelsPerFilter) {
  for (const int64_t batch : {1, 3}) {
    for (const int64_t channels_per_filter : {1, 2, 3, 4, 6, 12}) {
      for (const int64_t length : {3, 64, 131, 1030}) {
        const SsmConvDesc desc = Desc(batch, 12, length, 4, channels_per_filter);
        ExpectCorrect(desc, MakeInputs(length + channels_per_filter, desc));
      }
    }
  }
  // More channels of one filter than any tile has columns.
  const SsmConvDesc desc = Desc(2, 130, 100, 8, 65);
  ExpectCorrect(desc, MakeInputs(7, desc));
}

TEST_P(SsmConvTest, BatchAndStrides) {
  for (const int64_t batch : {1, 2, 5}) {
    for (const int64_t gap : {0, 1, 3, 16, 61}) {
      for (const int64_t length : {1, 15, 64, 259}) {
        SCOPED_TRACE(::testing::Message() << "gap " << gap);
        const SsmConvDesc desc = Desc(batch, 3, length, 2);
        ExpectCorrect(desc, MakeInputs(batch + length, desc), {.gap = gap});
      }
    }
  }
}

TEST_P(SsmConvTest, ThreadsDoNotChangeTheResult) {
  struct Shape {
    int64_t batch, channels, length, pairs, channels_per_filter;
  };
  for (const Shape& s :
       {Shape{1, 1, 1, 1, 1}, Shape{1, 1, 20000, 16, 1}, Shape{2, 7, 1000, 17, 1},
        Shape{1, 33, 257, 32, 1}, Shape{3, 24, 130, 4, 8}, Shape{1, 16, 4100, 2, 16}}) {
    const SsmConvDesc desc = Desc(s.batch, s.channels, s.length, s.pairs, s.channels_per_filter);
    SCOPED_TRACE(desc.ToString());
    const Inputs in = MakeInputs(s.length, desc);
    const Outputs one = Evaluate(desc, in);
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(threads);
      const Outputs several = Evaluate(desc, in, {.threads = threads});
      EXPECT_TRUE(BitwiseEqual(several.y, one.y));
      EXPECT_TRUE(BitwiseEqual(several.state, one.state)) << "state";
      const Outputs state_only = Evaluate(desc, in, {.threads = threads, .want_y = false});
      EXPECT_TRUE(BitwiseEqual(state_only.state, Evaluate(desc, in, {.want_y = false}).state));
    }
    ExpectCorrect(desc, in, {.threads = 3});
  }
}

TEST_P(SsmConvTest, OnePlanInSeveralCallersAtOnce) {
  const SsmConvDesc desc = Desc(1, 8, 3000, 8);
  const Inputs in = MakeInputs(3, desc);
  absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, Device{});
  ASSERT_TRUE(plan.ok()) << plan.status();
  Filters filters(in.ssm);
  const SsmFilter& filter = filters.For(*plan);
  Floats y[2], state[2];
  auto call = [&](int caller) {
    reference::PoisonedStream stream(2, plan->scratch_floats);
    for (int repeat = 0; repeat < 4; ++repeat) {
      y[caller].assign(in.u.size(), std::nanf(""));
      state[caller] = in.state;
      const absl::Status status =
          RunSsmConv(*plan, filter,
                     {in.u.data(), in.pre_gate.data(), in.post_gate.data(), y[caller].data(),
                      8 * 3000, 3000, state[caller].data(), state[caller].data()},
                     *stream);
      EXPECT_TRUE(status.ok()) << status;
    }
  };
  std::thread other(call, 1);
  call(0);
  other.join();
  const Outputs alone = Evaluate(desc, in);
  for (const int caller : {0, 1}) {
    EXPECT_TRUE(BitwiseEqual(y[caller], alone.y));
    EXPECT_TRUE(BitwiseEqual(state[caller], alone.state));
  }
}

// What one impulse gives is the taps, and what the zero input gives is the state's decay.
TEST_P(SsmConvTest, ImpulseAndDecay) {
  const int64_t length = 3000;
  const SsmConvDesc desc = Desc(1, 2, length, 8);
  Inputs in = MakeInputs(11, desc, false, false, false);
  std::fill(in.u.begin(), in.u.end(), 0.0f);
  in.u[0] = in.u[length] = 1;
  const Outputs impulse = Evaluate(desc, in);
  ASSERT_GT(impulse.block, 0);
  const double tolerance = reference::CarryTolerance(Device{}, in.ssm, length,
                                                     reference::Carries(length, impulse.block));
  reference::Doubles taps, decayed;
  for (int64_t f = 0; f < 2; ++f) {
    reference::Doubles filter_taps(length);
    in.ssm.Taps(f, absl::MakeSpan(filter_taps));
    filter_taps[0] += in.ssm.d[f];
    taps.insert(taps.end(), filter_taps.begin(), filter_taps.end());
  }
  EXPECT_TRUE(Near(impulse.y, taps, tolerance));

  std::fill(in.u.begin(), in.u.end(), 0.0f);
  in.state = Normal(12, 2 * 2 * 8);
  const Outputs decay = Evaluate(desc, in);
  for (int64_t f = 0; f < 2; ++f) {
    std::vector<Complex> x;
    for (int64_t n = 0; n < 8; ++n) {
      const float* state = in.state.data() + f * 16;
      x.push_back(Power(in.ssm.a[f * 8 + n], length) * Complex(state[n], state[8 + n]));
    }
    for (const Complex& value : x) decayed.push_back(value.real());
    for (const Complex& value : x) decayed.push_back(value.imag());
  }
  EXPECT_TRUE(Near(decay.state, decayed, tolerance));
}

// dt so small that the memory is 10,000 tokens, over 100,000 tokens.
TEST_P(SsmConvTest, LongMemory) {
  const SsmConvDesc desc = Desc(1, 2, 100000, 8);
  Inputs in = MakeInputs(21, desc, false, true, true);
  in.ssm = reference::S4dLin(22, 2, 8, 1.8e-4, 2.2e-4);
  for (const Complex& a : in.ssm.a) ASSERT_NEAR(std::abs(a), 0.9999, 2e-5);
  ExpectCorrect(desc, in, {.threads = 2});
}

// With |a| = 1 and no decay at all, nothing may grow or die: an integrator and a rotation.
TEST_P(SsmConvTest, NoDecay) {
  const SsmConvDesc desc = Desc(1, 1, 2000, 2);
  Inputs in = MakeInputs(23, desc, false, false, true);
  in.ssm.a = {{1, 0}, {0, 1}};  // both exact in float32, and so are their powers
  const Outputs out = Evaluate(desc, in);
  const auto expected = reference::SsmConv(in.ssm, desc, in.u, {}, {}, in.state);
  // The state does 2000 sums of its own: sqrt(2000) roundings of a random walk, 2.7e-6.
  EXPECT_TRUE(Near(out.y, expected.y, 5e-6));
  EXPECT_TRUE(Near(out.state, expected.state, 5e-6));
}

// Real modes are pairs like any others: a, b and c with a zero imaginary part, and zero modes.
TEST_P(SsmConvTest, RealAndZeroModes) {
  const SsmConvDesc desc = Desc(1, 1, 300, 3);
  Inputs in = MakeInputs(24, desc);
  in.ssm.a = {{0.9, 0}, {-0.5, 0}, {0, 0}};
  in.ssm.b = {{1, 0}, {0.5, 0}, {1, 1}};
  in.ssm.c = {{1, 0}, {-2, 0}, {1, 2}};
  ExpectCorrect(desc, in);
}

// ---- Splits
// -----------------------------------------------------------------------------------------

// Runs the sequence chunk by chunk; chunk i with the evaluation that `choose` gives.
template <typename Choose>
void ExpectSplitCorrect(uint64_t seed, const SsmConvDesc& whole, const std::vector<int64_t>& chunks,
                        Choose choose) {
  SCOPED_TRACE(::testing::Message() << whole.ToString() << " seed " << seed << " in "
                                    << ::testing::PrintToString(chunks));
  const Inputs in = MakeInputs(seed, whole);
  const auto expected =
      reference::SsmConv(in.ssm, whole, in.u, in.pre_gate, in.post_gate, in.state);
  const int64_t rows = whole.batch * whole.channels;
  Filters filters(in.ssm);
  Floats state = in.state, y(in.u.size());
  int64_t begin = 0, carries = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    SsmConvDesc desc = whole;
    desc.length = chunks[i];
    desc.evaluation = choose(i);
    const Inputs chunk{in.ssm, Columns(in.u, rows, whole.length, begin, desc.length),
                       Columns(in.pre_gate, rows, whole.length, begin, desc.length),
                       Columns(in.post_gate, rows, whole.length, begin, desc.length), state};
    const Outputs out = Evaluate(desc, chunk, {.threads = 1 + static_cast<int>(i % 2)}, filters);
    ASSERT_FALSE(out.y.empty());
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(out.y.data() + r * desc.length, desc.length, y.data() + r * whole.length + begin);
    }
    state = out.state;
    begin += desc.length;
    carries += reference::Carries(desc.length, out.block);
  }
  ASSERT_EQ(begin, whole.length);
  const double tolerance = reference::CarryTolerance(Device{}, in.ssm, whole.length, carries);
  EXPECT_TRUE(Near(y, expected.y, tolerance));
  EXPECT_TRUE(Near(state, expected.state, tolerance)) << "state";
}

TEST_P(SsmConvTest, AnySplitGivesTheWhole) {
  for (uint64_t seed = 0; seed < 25; ++seed) {
    std::mt19937_64 random(seed);
    const int64_t channels_per_filter = 1 + static_cast<int64_t>(random() % 3);
    const SsmConvDesc whole = Desc(1 + static_cast<int64_t>(random() % 2), 2 * channels_per_filter,
                                   1 + static_cast<int64_t>(random() % 2500),
                                   1 + static_cast<int64_t>(random() % 20), channels_per_filter);
    ExpectSplitCorrect(seed, whole, reference::RandomSplit(seed, whole.length),
                       [&](size_t) { return GetParam(); });
  }
}

TEST_P(SsmConvTest, TokenByTokenGivesTheWhole) {
  ExpectSplitCorrect(5, Desc(1, 3, 130, 5), std::vector<int64_t>(130, 1),
                     [&](size_t) { return GetParam(); });
}

TEST(SsmConvSplitTest, AnyMixtureOfEvaluationsGivesTheWhole) {
  static constexpr SsmEvaluation kAll[] = {SsmEvaluation::kDualForm, SsmEvaluation::kBlockFft,
                                           SsmEvaluation::kStep, SsmEvaluation::kAuto};
  for (uint64_t seed = 100; seed < 140; ++seed) {
    std::mt19937_64 random(seed);
    const SsmConvDesc whole{1,
                            2,
                            1 + static_cast<int64_t>(random() % 4000),
                            1 + static_cast<int64_t>(random() % 33),
                            1,
                            SsmEvaluation::kAuto};
    ExpectSplitCorrect(seed, whole, reference::RandomSplit(seed, whole.length),
                       [&](size_t) { return kAll[random() % std::size(kAll)]; });
  }
}

// ---- Plans, descriptors, filters
// --------------------------------------------------------------------

TEST_P(SsmConvTest, PlanIsPureAndHonoursAForcedEvaluation) {
  for (const int64_t length : kLengths) {
    for (const int64_t channels : {1, 64, 1024}) {
      const SsmConvDesc desc = Desc(1, channels, length, 32);
      SCOPED_TRACE(desc.ToString());
      const auto first = PlanSsmConv(desc, Device{}), again = PlanSsmConv(desc, Device{});
      ASSERT_TRUE(first.ok()) << first.status();
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(first->evaluation, again->evaluation);
      EXPECT_EQ(first->block, again->block);
      EXPECT_EQ(first->scratch_floats, again->scratch_floats);
      EXPECT_EQ(first->desc.length, length);
      EXPECT_EQ(first->desc.channels, channels);
      EXPECT_NE(first->evaluation, SsmEvaluation::kAuto);
      if (GetParam() != SsmEvaluation::kAuto) {
        EXPECT_EQ(first->evaluation, GetParam());
      }
      EXPECT_GE(first->scratch_floats, 0);
      EXPECT_GE(first->block, 1);
      if (first->evaluation == SsmEvaluation::kStep) {
        EXPECT_EQ(first->block, 1);
      }
      if (first->evaluation == SsmEvaluation::kBlockFft) {
        EXPECT_GE(first->block, 16);
        EXPECT_EQ(first->block & (first->block - 1), 0) << first->block;
      }
    }
  }
}

TEST(SsmConvDescTest, RejectsEachBadFieldWithItsValue) {
  const SsmConvDesc good{2, 12, 100, 4, 3, SsmEvaluation::kAuto};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, const std::vector<std::string>& values) {
    SsmConvDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), values)) << desc.ToString();
    EXPECT_TRUE(Rejected(PlanSsmConv(desc, Device{}).status(), values)) << desc.ToString();
  };
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value{std::to_string(bad)};
    expect_rejected([&](SsmConvDesc& d) { d.batch = bad; }, value);
    expect_rejected([&](SsmConvDesc& d) { d.channels = bad; }, value);
    expect_rejected([&](SsmConvDesc& d) { d.length = bad; }, value);
    expect_rejected([&](SsmConvDesc& d) { d.pairs = bad; }, value);
    expect_rejected([&](SsmConvDesc& d) { d.channels_per_filter = bad; }, value);
  }
  expect_rejected([](SsmConvDesc& d) { d.channels_per_filter = 5; }, {"12", "5"});
  expect_rejected([](SsmConvDesc& d) { d.channels_per_filter = 24; }, {"12", "24"});
}

TEST(SsmConvDescTest, PrintsItsSizesAndEvaluation) {
  const SsmConvDesc desc{3, 1236, 98765, 17, 4, SsmEvaluation::kBlockFft};
  for (const char* part : {"3", "1236", "98765", "17", "4", Name(SsmEvaluation::kBlockFft)}) {
    EXPECT_THAT(desc.ToString(), HasSubstr(part));
  }
  EXPECT_STRNE(Name(SsmEvaluation::kDualForm), Name(SsmEvaluation::kStep));
}

class SsmConvMismatchTest : public ::testing::Test {
 protected:
  absl::Status RunWith(const SsmFilter& filter, SsmEvaluation evaluation) {
    const SsmConvDesc desc{1, 6, 40, 4, 2, evaluation};
    absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, Device{});
    if (!plan.ok()) return plan.status();
    const Floats u = Normal(1, 6 * 40);
    Floats y(6 * 40);
    SsmConvArgs args;
    args.u = u.data();
    args.y = y.data();
    args.batch_stride = 6 * 40;
    args.channel_stride = 40;
    reference::PoisonedStream stream(1, plan->scratch_floats);
    return RunSsmConv(*plan, filter, args, *stream);
  }
  SsmFilter Filter(int64_t filters, int64_t pairs, int64_t fft_block = 0) {
    return SsmFilter::Create(reference::S4dLin(1, filters, pairs), fft_block).value();
  }
};

TEST_F(SsmConvMismatchTest, FilterOfOtherSizesIsRejected) {
  for (const auto evaluation : {SsmEvaluation::kDualForm, SsmEvaluation::kStep}) {
    EXPECT_TRUE(RunWith(Filter(3, 4), evaluation).ok());
    EXPECT_TRUE(Rejected(RunWith(Filter(3, 5), evaluation), {"5", "4"}));
    EXPECT_TRUE(Rejected(RunWith(Filter(2, 4), evaluation), {}));
    EXPECT_TRUE(Rejected(RunWith(Filter(7, 4), evaluation), {"7"}));
    EXPECT_TRUE(Rejected(RunWith(Filter(9, 4), evaluation), {"9"}));
  }
}

TEST_F(SsmConvMismatchTest, BlockFftNeedsTransformsOfItsBlock) {
  const auto plan = PlanSsmConv({1, 6, 40, 4, 2, SsmEvaluation::kBlockFft}, Device{});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(RunWith(Filter(3, 4, plan->block), SsmEvaluation::kBlockFft).ok());
  EXPECT_TRUE(Rejected(RunWith(Filter(3, 4, 0), SsmEvaluation::kBlockFft), {}));
  EXPECT_TRUE(Rejected(RunWith(Filter(3, 4, plan->block * 2), SsmEvaluation::kBlockFft),
                       {std::to_string(plan->block), std::to_string(plan->block * 2)}));
  // Transforms that an evaluation does not need do not hurt it.
  EXPECT_TRUE(RunWith(Filter(3, 4, plan->block), SsmEvaluation::kDualForm).ok());
  EXPECT_TRUE(RunWith(Filter(3, 4, plan->block), SsmEvaluation::kStep).ok());
}

int64_t FftBlock(int64_t length) {
  return PlanSsmConv({1, 1, length, 5, 1, SsmEvaluation::kBlockFft}, Device{}).value().block;
}

TEST(SsmFilterTest, ReportsItsSizes) {
  const auto filter = SsmFilter::Create(reference::S4dLin(1, 3, 5));
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_EQ(filter->filters(), 3);
  EXPECT_EQ(filter->pairs(), 5);
  EXPECT_EQ(filter->fft_block(), 0);
  EXPECT_GE(filter->bytes(),
            static_cast<int64_t>(3 * 5 * 4 * sizeof(float)));  // a and b c, at least
  const int64_t block = FftBlock(3000);
  const auto with_fft = SsmFilter::Create(reference::S4dLin(1, 3, 5), block);
  ASSERT_TRUE(with_fft.ok()) << with_fft.status();
  EXPECT_EQ(with_fft->fft_block(), block);
  EXPECT_GT(with_fft->bytes(), filter->bytes());
}

TEST(SsmFilterTest, RejectsBadModelsAndBlocks) {
  DiagonalSsm unstable = reference::S4dLin(1, 2, 3);
  unstable.a[4] = {1.5, 0};
  EXPECT_TRUE(Rejected(SsmFilter::Create(unstable).status(), {}));
  DiagonalSsm nan = reference::S4dLin(1, 2, 3);
  nan.c[5] = {0, std::numeric_limits<double>::quiet_NaN()};
  EXPECT_TRUE(Rejected(SsmFilter::Create(nan).status(), {}));
  const DiagonalSsm good = reference::S4dLin(1, 2, 3);
  for (const int64_t block : {-16, 1, 8, 17, 24, 1000}) {
    EXPECT_TRUE(Rejected(SsmFilter::Create(good, block).status(), {std::to_string(block)}))
        << block;
  }
  EXPECT_TRUE(SsmFilter::Create(good, FftBlock(1)).ok());
}

}  // namespace
}  // namespace longwave

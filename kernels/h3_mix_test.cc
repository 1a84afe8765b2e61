#include "kernels/h3_mix.h"

#include <algorithm>
#include <random>

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

struct Inputs {
  DiagonalSsm ssm;
  Floats q, k, v, shift_taps, halo, state;  // halo and state empty: none
};

struct Options {
  int threads = 1;
  int64_t gap = 0;
  bool over_q = false;
  bool want_state = true;
  bool want_y = true;  // else the state-only pass
};

struct Outputs {
  Floats y, halo, state;
  int64_t block = 0;  // tokens between two carries of the state, as SsmConv's plan has them
};

Inputs MakeInputs(uint64_t seed, const H3MixDesc& desc, bool state = true) {
  const int64_t count = desc.batch * desc.width() * desc.length;
  Inputs in;
  in.ssm = reference::S4dLin(seed, desc.heads, desc.pairs);
  in.q = Normal(seed + 1, count);
  in.k = Normal(seed + 2, count);
  in.v = Normal(seed + 3, count);
  in.shift_taps = Normal(seed + 4, desc.width() * desc.shift_taps, 0.3);
  if (state) {
    in.halo = Normal(seed + 5, desc.batch * desc.width() * (desc.shift_taps - 1));
    in.state = Normal(seed + 6, desc.batch * desc.width() * desc.head_dim * 2 * desc.pairs, 0.3);
  }
  return in;
}

Outputs Evaluate(const H3MixDesc& desc, const Inputs& in, const Options& options = {}) {
  Outputs out;
  const auto plan = PlanH3Mix(desc, Device{});
  EXPECT_TRUE(plan.ok()) << plan.status();
  const auto filter = SsmFilter::Create(in.ssm);
  EXPECT_TRUE(filter.ok()) << filter.status();
  if (!plan.ok() || !filter.ok()) return out;
  const auto ssm_plan =
      PlanSsmConv({1, desc.heads, desc.length, desc.pairs, 1, plan->evaluation}, Device{});
  EXPECT_TRUE(ssm_plan.ok()) << ssm_plan.status();
  if (!ssm_plan.ok()) return out;
  out.block = ssm_plan->block;

  const int64_t b = desc.batch, w = desc.width(), l = desc.length;
  Guarded q(in.q, b, w, l, options.gap), k(in.k, b, w, l, options.gap),
      v(in.v, b, w, l, options.gap);
  Guarded separate(b, w, l, options.gap), taps(in.shift_taps);
  Guarded halo(b * w * (desc.shift_taps - 1)), state(b * w * desc.head_dim * 2 * desc.pairs);
  Guarded& y = options.over_q ? q : separate;
  H3MixArgs args;
  args.q = options.want_y ? q.data() : nullptr;
  args.k = k.data();
  args.v = v.data();
  args.y = options.want_y ? y.data() : nullptr;
  args.batch_stride = q.batch_stride();
  args.channel_stride = q.channel_stride();
  args.shift_taps = taps.data();
  if (!in.halo.empty()) {
    halo.Set(in.halo);
    args.halo_in = halo.data();
  }
  if (!in.state.empty()) {
    state.Set(in.state);
    args.state_in = state.data();
  }
  if (options.want_state) {
    args.halo_out = halo.data();
    args.state_out = state.data();
  }
  reference::PoisonedStream stream(options.threads, plan->scratch_floats);
  const absl::Status status = RunH3Mix(*plan, *filter, args, *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  for (const Guarded* buffer : {&q, &k, &v, &separate, &taps, &halo, &state}) {
    EXPECT_TRUE(buffer->Intact());
  }
  EXPECT_TRUE(BitwiseEqual(k.Packed(), in.k)) << "k was written";
  EXPECT_TRUE(BitwiseEqual(v.Packed(), in.v)) << "v was written";
  if (!options.over_q) {
    EXPECT_TRUE(BitwiseEqual(q.Packed(), in.q)) << "q was written";
  }
  out.y = y.Packed();
  if (options.want_state) {
    out.halo = halo.Packed();
    out.state = state.Packed();
  }
  return out;
}

void ExpectCorrect(const H3MixDesc& desc, const Inputs& in, const Options& options = {}) {
  SCOPED_TRACE(desc.ToString());
  const Outputs out = Evaluate(desc, in, options);
  ASSERT_GT(out.block, 0);
  const auto expected =
      reference::H3Mix(in.ssm, desc, in.q, in.k, in.v, in.shift_taps, in.halo, in.state);
  const double tolerance = reference::CarryTolerance(Device{}, in.ssm, desc.length,
                                                     reference::Carries(desc.length, out.block));
  if (options.want_y) {
    EXPECT_TRUE(Near(out.y, expected.y, tolerance));
  }
  if (options.want_state) {
    EXPECT_TRUE(Near(out.state, expected.state, tolerance)) << "state";
    EXPECT_EQ(reference::ToDoubles(out.halo), expected.halo) << "halo";
  }
}

class H3MixTest : public ::testing::TestWithParam<SsmEvaluation> {
 protected:
  H3MixDesc Desc(int64_t batch, int64_t heads, int64_t head_dim, int64_t length, int64_t pairs,
                 int64_t shift_taps = 64) const {
    return {batch, heads, head_dim, length, pairs, shift_taps, GetParam()};
  }
};

INSTANTIATE_TEST_SUITE_P(Evaluations, H3MixTest,
                         ::testing::Values(SsmEvaluation::kDualForm, SsmEvaluation::kStep,
                                           SsmEvaluation::kAuto),
                         [](const auto& info) {
                           return info.param == SsmEvaluation::kDualForm ? "DualForm"
                                  : info.param == SsmEvaluation::kStep   ? "Step"
                                                                         : "Auto";
                         });

TEST_P(H3MixTest, LengthsAndHeadDims) {
  for (const int64_t head_dim : {1, 2, 3, 8}) {
    for (const int64_t length :
         {1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 129, 257, 1009}) {
      const H3MixDesc desc = Desc(1, 3, head_dim, length, 4);
      ExpectCorrect(desc, MakeInputs(head_dim + length, desc), {.gap = 5});
    }
  }
}

TEST_P(H3MixTest, PairsAndShiftTaps) {
  for (const int64_t pairs : {1, 2, 16, 17, 32}) {
    for (const int64_t shift_taps : {1, 2, 4, 64, 200}) {
      for (const int64_t head_dim : {1, 2}) {
        for (const int64_t length : {3, 64, 150}) {
          const H3MixDesc desc = Desc(1, 2, head_dim, length, pairs, shift_taps);
          ExpectCorrect(desc, MakeInputs(pairs + shift_taps, desc));
        }
      }
    }
  }
}

TEST_P(H3MixTest, LongSequence) {
  for (const int64_t head_dim : {1, 2}) {
    const H3MixDesc desc = Desc(1, 2, head_dim, 20011, 16);
    ExpectCorrect(desc, MakeInputs(9, desc), {.threads = 2});
  }
}

TEST_P(H3MixTest, BatchAndStrides) {
  for (const int64_t batch : {1, 2, 5}) {
    for (const int64_t gap : {0, 1, 16, 61}) {
      for (const int64_t length : {1, 65, 131}) {
        for (const int64_t head_dim : {1, 2}) {
          const H3MixDesc desc = Desc(batch, 3, head_dim, length, 2);
          ExpectCorrect(desc, MakeInputs(batch + length, desc), {.threads = 2, .gap = gap});
        }
      }
    }
  }
}

TEST_P(H3MixTest, StateAndHaloAreOptional) {
  for (const int64_t length : {1, 40, 64, 300}) {
    for (const int64_t head_dim : {1, 2}) {
      const H3MixDesc desc = Desc(2, 3, head_dim, length, 4);
      for (const bool state_in : {false, true}) {
        for (const bool want_state : {false, true}) {
          SCOPED_TRACE(::testing::Message() << "in " << state_in << " out " << want_state);
          ExpectCorrect(desc, MakeInputs(length, desc, state_in), {.want_state = want_state});
        }
      }
    }
  }
}

TEST_P(H3MixTest, StateAndHaloMayStandApart) {
  for (const int64_t head_dim : {1, 2}) {
    const H3MixDesc desc = Desc(2, 3, head_dim, 50, 5);  // shorter than the halo
    const Inputs in = MakeInputs(1, desc);
    const Outputs in_place = Evaluate(desc, in);
    const auto plan = PlanH3Mix(desc, Device{});
    const auto filter = SsmFilter::Create(in.ssm);
    ASSERT_TRUE(plan.ok() && filter.ok());
    Guarded y(in.q.size()), halo_in(in.halo), halo_out(in.halo.size());
    Guarded state_in(in.state), state_out(in.state.size());
    reference::PoisonedStream stream(1, plan->scratch_floats);
    const absl::Status status = RunH3Mix(*plan, *filter,
                                         {.q = in.q.data(),
                                          .k = in.k.data(),
                                          .v = in.v.data(),
                                          .y = y.data(),
                                          .batch_stride = desc.width() * 50,
                                          .channel_stride = 50,
                                          .shift_taps = in.shift_taps.data(),
                                          .halo_in = halo_in.data(),
                                          .halo_out = halo_out.data(),
                                          .state_in = state_in.data(),
                                          .state_out = state_out.data()},
                                         *stream);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(BitwiseEqual(y.Packed(), in_place.y));
    EXPECT_TRUE(BitwiseEqual(halo_in.Packed(), in.halo));
    EXPECT_TRUE(BitwiseEqual(halo_out.Packed(), in_place.halo));
    EXPECT_TRUE(BitwiseEqual(state_in.Packed(), in.state));
    EXPECT_TRUE(BitwiseEqual(state_out.Packed(), in_place.state));
  }
}

TEST_P(H3MixTest, StateOnlyPass) {
  for (const int64_t head_dim : {1, 2, 3}) {
    for (const int64_t length : {1, 5, 31, 64, 767, 769, 2000}) {
      const H3MixDesc desc = Desc(2, 3, head_dim, length, 4);
      for (const bool state_in : {false, true}) {
        const Inputs in = MakeInputs(length, desc, state_in);
        ExpectCorrect(desc, in, {.threads = 2, .gap = 3, .want_y = false});
        // Its state is that of the whole pass, bit for bit: both sum in the same order.
        const Outputs whole = Evaluate(desc, in), state = Evaluate(desc, in, {.want_y = false});
        EXPECT_TRUE(BitwiseEqual(state.state, whole.state));
        EXPECT_TRUE(BitwiseEqual(state.halo, whole.halo));
      }
    }
  }
}

// The state-only pass leaves kv, and the pass with y takes it up: bitwise as if it had not.
TEST_P(H3MixTest, KvIsKeptBetweenThePasses) {
  for (const int64_t length : {1, 2, 31, 64, 767, 768, 769, 2000}) {
    const H3MixDesc desc = Desc(2, 3, 1, length, 20);
    const Inputs in = MakeInputs(length, desc);
    const auto plan = PlanH3Mix(desc, Device{});
    const auto filter = SsmFilter::Create(in.ssm);
    ASSERT_TRUE(plan.ok() && filter.ok());
    ASSERT_TRUE(plan->keeps_kv);
    for (const bool over_v : {false, true}) {
      Guarded q(in.q, 2, 3, length, 3), k(in.k, 2, 3, length, 3), v(in.v, 2, 3, length, 3);
      Guarded apart(2, 3, length, 3), state(in.state), halo(in.halo);
      Guarded local(static_cast<int64_t>(in.state.size()));
      Guarded& kv = over_v ? v : apart;
      reference::PoisonedStream stream(2, plan->scratch_floats);
      H3MixArgs args;
      args.k = k.data();
      args.v = v.data();
      args.kv = kv.data();
      args.batch_stride = q.batch_stride();
      args.channel_stride = q.channel_stride();
      args.shift_taps = in.shift_taps.data();
      args.halo_in = halo.data();
      args.state_out = local.data();
      ASSERT_EQ(RunH3Mix(*plan, *filter, args, *stream), absl::OkStatus());
      args.q = args.y = q.data();
      args.k = args.v = nullptr;
      args.halo_in = args.shift_taps = nullptr;
      args.state_in = args.state_out = state.data();
      ASSERT_EQ(RunH3Mix(*plan, *filter, args, *stream), absl::OkStatus());
      EXPECT_TRUE(stream.ScratchKept());
      for (Guarded* buffer : {&q, &k, &v, &apart, &state, &halo, &local}) {
        EXPECT_TRUE(buffer->Intact());
      }
      const Outputs whole = Evaluate(desc, in);
      EXPECT_TRUE(BitwiseEqual(q.Packed(), whole.y));
      EXPECT_TRUE(BitwiseEqual(state.Packed(), whole.state));
      args.halo_out = halo.data();
      EXPECT_TRUE(Rejected(RunH3Mix(*plan, *filter, args, *stream), {"halo_out"}));
    }
  }
  const H3MixDesc several = Desc(1, 2, 2, 10, 4);
  const auto plan = PlanH3Mix(several, Device{});
  const auto filter = SsmFilter::Create(reference::S4dLin(1, 2, 4));
  ASSERT_TRUE(plan.ok() && filter.ok());
  EXPECT_FALSE(plan->keeps_kv);
  Floats kv(40);
  H3MixArgs args;
  args.kv = kv.data();
  reference::PoisonedStream stream(1, plan->scratch_floats);
  EXPECT_TRUE(Rejected(RunH3Mix(*plan, *filter, args, *stream), {"does not keep it"}));
}

TEST_P(H3MixTest, OutputOverQ) {
  for (const int64_t length : {1, 15, 64, 65, 1000}) {
    const H3MixDesc desc = Desc(2, 5, 1, length, 4);
    ExpectCorrect(desc, MakeInputs(length, desc), {.gap = 2, .over_q = true});
  }
}

TEST_P(H3MixTest, ThreadsDoNotChangeTheResult) {
  for (const H3MixDesc& desc :
       {Desc(1, 1, 1, 5000, 16), Desc(2, 7, 1, 300, 4), Desc(1, 2, 2, 1000, 32),
        Desc(1, 3, 8, 130, 2), Desc(1, 40, 1, 70, 32)}) {
    SCOPED_TRACE(desc.ToString());
    const Inputs in = MakeInputs(desc.length, desc);
    const Outputs one = Evaluate(desc, in);
    for (const int threads : {1, 2, 3}) {
      const Outputs several = Evaluate(desc, in, {.threads = threads});
      EXPECT_TRUE(BitwiseEqual(several.y, one.y));
      EXPECT_TRUE(BitwiseEqual(several.halo, one.halo));
      EXPECT_TRUE(BitwiseEqual(several.state, one.state));
    }
    ExpectCorrect(desc, in, {.threads = 3});
  }
}

// Chunk i with the evaluation that `choose` gives.
template <typename Choose>
void ExpectSplitCorrect(uint64_t seed, const H3MixDesc& whole, const std::vector<int64_t>& chunks,
                        Choose choose) {
  SCOPED_TRACE(whole.ToString() + " in " + ::testing::PrintToString(chunks));
  const Inputs in = MakeInputs(seed, whole);
  const auto expected =
      reference::H3Mix(in.ssm, whole, in.q, in.k, in.v, in.shift_taps, in.halo, in.state);
  const int64_t rows = whole.batch * whole.width();
  Inputs chunk = in;
  Floats y(in.q.size());
  int64_t begin = 0, carries = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    H3MixDesc desc = whole;
    desc.length = chunks[i];
    desc.evaluation = choose(i);
    chunk.q = Columns(in.q, rows, whole.length, begin, desc.length);
    chunk.k = Columns(in.k, rows, whole.length, begin, desc.length);
    chunk.v = Columns(in.v, rows, whole.length, begin, desc.length);
    const Outputs out = Evaluate(desc, chunk, {.threads = 1 + static_cast<int>(i % 2), .gap = 1});
    ASSERT_GT(out.block, 0);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(out.y.data() + r * desc.length, desc.length, y.data() + r * whole.length + begin);
    }
    chunk.halo = out.halo;
    chunk.state = out.state;
    begin += desc.length;
    carries += reference::Carries(desc.length, out.block);
  }
  const double tolerance = reference::CarryTolerance(Device{}, in.ssm, whole.length, carries);
  EXPECT_TRUE(Near(y, expected.y, tolerance));
  EXPECT_TRUE(Near(chunk.state, expected.state, tolerance)) << "state";
  EXPECT_EQ(reference::ToDoubles(chunk.halo), expected.halo) << "halo";
}

H3MixDesc RandomDesc(uint64_t seed, SsmEvaluation evaluation) {
  static constexpr int64_t kHeadDims[] = {1, 2, 8};
  std::mt19937_64 random(seed);
  const int64_t head_dim = kHeadDims[seed % 3];
  return {1 + static_cast<int64_t>(random() % 2),
          1 + static_cast<int64_t>(random() % 3),
          head_dim,
          1 + static_cast<int64_t>(random() % (head_dim == 8 ? 300 : 1200)),
          1 + static_cast<int64_t>(random() % 17),
          1 + static_cast<int64_t>(random() % 80),
          evaluation};
}

TEST_P(H3MixTest, AnySplitGivesTheWhole) {
  for (uint64_t seed = 0; seed < 18; ++seed) {
    const H3MixDesc whole = RandomDesc(seed, GetParam());
    ExpectSplitCorrect(seed, whole, reference::RandomSplit(seed, whole.length),
                       [&](size_t) { return GetParam(); });
  }
}

TEST(H3MixSplitTest, AnyMixtureOfEvaluationsGivesTheWhole) {
  static constexpr SsmEvaluation kAll[] = {SsmEvaluation::kDualForm, SsmEvaluation::kStep,
                                           SsmEvaluation::kAuto};
  for (uint64_t seed = 50; seed < 71; ++seed) {
    std::mt19937_64 random(seed);
    const H3MixDesc whole = RandomDesc(seed, SsmEvaluation::kAuto);
    ExpectSplitCorrect(seed, whole, reference::RandomSplit(seed, whole.length),
                       [&](size_t) { return kAll[random() % std::size(kAll)]; });
  }
}

// The channels of the output are (d2, head): with one token, no history and unit weights each
// output is a known product.
TEST(H3MixChannelTest, LeaveOrderedByD2ThenHead) {
  const H3MixDesc desc{1, 2, 2, 1, 1, 1, SsmEvaluation::kAuto};
  Inputs in;
  in.ssm.filters = 2;
  in.ssm.pairs = 1;
  in.ssm.a = {{0.5, 0}, {0.5, 0}};
  in.ssm.b = {{0, 0}, {0, 0}};
  in.ssm.c = {{0, 0}, {0, 0}};
  in.ssm.d = {1, 1};
  in.shift_taps = {1, 1, 1, 1};
  in.q = {2, 0, 0, 3};      // head 0 looks at d1 = 0, head 1 at d1 = 1
  in.k = {5, 7, 11, 13};    // (h, d1)
  in.v = {17, 19, 23, 29};  // (h, d2)
  EXPECT_EQ(Evaluate(desc, in).y,
            (Floats{2 * 5 * 17, 3 * 13 * 23, 2 * 5 * 19, 3 * 13 * 29}));  // (d2, h)
}

TEST(H3HaloTest, IsTheHaloOfTheWholePass) {
  for (const int64_t taps : {1, 2, 64}) {
    for (const int64_t length : {1, 2, 30, 62, 63, 64, 65, 1000}) {
      for (const bool state : {false, true}) {
        const H3MixDesc desc{2, 3, 2, length, 2, taps, SsmEvaluation::kAuto};
        SCOPED_TRACE(desc.ToString());
        const Inputs in = MakeInputs(length, desc, state);
        const Floats want = Evaluate(desc, in).halo;
        const int64_t count = static_cast<int64_t>(want.size());
        Guarded k(in.k, 2, desc.width(), length, 5), apart(count), same(count), from(count);
        H3MixArgs args;
        args.k = k.data();
        args.batch_stride = k.batch_stride();
        args.channel_stride = k.channel_stride();
        if (state) {
          from.Set(in.halo);
          same.Set(in.halo);
        }
        reference::PoisonedStream stream(1, 0);
        args.halo_in = state ? from.data() : nullptr;
        args.halo_out = apart.data();
        ASSERT_EQ(RunH3Halo(desc, args, *stream), absl::OkStatus());
        args.halo_in = state ? same.data() : nullptr;
        args.halo_out = same.data();
        ASSERT_EQ(RunH3Halo(desc, args, *stream), absl::OkStatus());
        for (Guarded* buffer : {&k, &apart, &same, &from}) EXPECT_TRUE(buffer->Intact());
        EXPECT_TRUE(BitwiseEqual(apart.Packed(), want));
        EXPECT_TRUE(BitwiseEqual(same.Packed(), want));
      }
    }
  }
}

TEST(H3HaloTest, Refuses) {
  const H3MixDesc desc{1, 1, 1, 4, 2, 3, SsmEvaluation::kAuto};
  Floats k(4), halo(2);
  H3MixArgs args;
  args.k = args.bias = k.data();
  args.halo_out = halo.data();
  reference::PoisonedStream stream(1, 0);
  EXPECT_TRUE(absl::IsUnimplemented(RunH3Halo(desc, args, *stream)));
  args.bias = nullptr;
  H3MixDesc bad = desc;
  bad.shift_taps = -3;
  EXPECT_TRUE(Rejected(RunH3Halo(bad, args, *stream), {"-3"}));
  bad = desc;
  bad.dtype = Dtype::kBFloat16;
  EXPECT_TRUE(Rejected(RunH3Halo(bad, args, *stream), {"bfloat16"}));
}

TEST(H3MixDescTest, PlanIsPureAndHonoursAForcedEvaluation) {
  for (const auto evaluation :
       {SsmEvaluation::kDualForm, SsmEvaluation::kStep, SsmEvaluation::kAuto}) {
    for (const int64_t length : {1, 16, 1000, 100000}) {
      const H3MixDesc desc{1, 64, 1, length, 32, 64, evaluation};
      const auto first = PlanH3Mix(desc, Device{}), again = PlanH3Mix(desc, Device{});
      ASSERT_TRUE(first.ok()) << first.status();
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(first->evaluation, again->evaluation);
      EXPECT_EQ(first->scratch_floats, again->scratch_floats);
      EXPECT_TRUE(first->evaluation == SsmEvaluation::kDualForm ||
                  first->evaluation == SsmEvaluation::kStep);
      if (evaluation != SsmEvaluation::kAuto) {
        EXPECT_EQ(first->evaluation, evaluation);
      }
    }
  }
}

TEST(H3MixDescTest, RejectsEachBadFieldWithItsValue) {
  const H3MixDesc good{2, 3, 2, 100, 4, 64, SsmEvaluation::kAuto};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, const std::string& value) {
    H3MixDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {value})) << desc.ToString();
    EXPECT_TRUE(Rejected(PlanH3Mix(desc, Device{}).status(), {value})) << desc.ToString();
  };
  for (const int64_t bad : {0, -1, -7177}) {
    const std::string value = std::to_string(bad);
    expect_rejected([&](H3MixDesc& d) { d.batch = bad; }, value);
    expect_rejected([&](H3MixDesc& d) { d.heads = bad; }, value);
    expect_rejected([&](H3MixDesc& d) { d.head_dim = bad; }, value);
    expect_rejected([&](H3MixDesc& d) { d.length = bad; }, value);
    expect_rejected([&](H3MixDesc& d) { d.pairs = bad; }, value);
    expect_rejected([&](H3MixDesc& d) { d.shift_taps = bad; }, value);
  }
  expect_rejected([](H3MixDesc& d) { d.shift_taps = 1025; }, "1025");
  expect_rejected([](H3MixDesc& d) { d.evaluation = SsmEvaluation::kBlockFft; },
                  Name(SsmEvaluation::kBlockFft));
}

TEST(H3MixDescTest, FilterOfOtherSizesIsRejected) {
  const H3MixDesc desc{1, 3, 2, 10, 4, 8, SsmEvaluation::kAuto};
  const auto plan = PlanH3Mix(desc, Device{});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Inputs in = MakeInputs(1, desc);
  Floats y(in.q.size());
  H3MixArgs args;
  args.q = in.q.data();
  args.k = in.k.data();
  args.v = in.v.data();
  args.y = y.data();
  args.batch_stride = 60;
  args.channel_stride = 10;
  args.shift_taps = in.shift_taps.data();
  reference::PoisonedStream stream(1, plan->scratch_floats);
  auto run = [&](int64_t filters, int64_t pairs) {
    return RunH3Mix(*plan, SsmFilter::Create(reference::S4dLin(1, filters, pairs)).value(), args,
                    *stream);
  };
  EXPECT_TRUE(run(3, 4).ok());
  EXPECT_TRUE(Rejected(run(3, 5), {"5", "4"}));
  EXPECT_TRUE(Rejected(run(6, 4), {"6"}));
}

}  // namespace
}  // namespace longwave

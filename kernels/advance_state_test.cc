#include "kernels/advance_state.h"

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;

// Random modes, and two for lengths that make others vanish: one without damping, one that loses
// half of it over 2^40 tokens.
DiagonalSsm Ssm(uint64_t seed, int64_t filters, int64_t pairs) {
  DiagonalSsm ssm = reference::S4dLin(seed, filters, pairs);
  ssm.a[0] = std::polar(1.0, 0.7);
  if (pairs > 1) ssm.a[1] = std::polar(std::exp2(-std::exp2(-40)), 1e-3);
  return ssm;
}

struct Inputs {
  DiagonalSsm ssm;
  Floats state_in, local;
};

Inputs MakeInputs(uint64_t seed, const AdvanceStateDesc& desc) {
  const int64_t count = desc.batch * desc.channels * 2 * desc.pairs;
  return {Ssm(seed, desc.channels / desc.channels_per_filter, desc.pairs), Normal(seed + 1, count),
          Normal(seed + 2, count)};
}

enum class Alias { kNone, kIn, kLocal };

Floats Evaluate(const AdvanceStateDesc& desc, const Inputs& in, int threads = 1,
                Alias alias = Alias::kNone) {
  Guarded state_in(in.state_in), local(in.local), apart(static_cast<int64_t>(in.local.size()));
  Guarded& out = alias == Alias::kIn ? state_in : alias == Alias::kLocal ? local : apart;
  const auto filter = SsmFilter::Create(in.ssm);
  EXPECT_TRUE(filter.ok()) << filter.status();
  reference::PoisonedStream stream(threads, 0);
  EXPECT_EQ(RunAdvanceState(desc, *filter, {state_in.data(), local.data(), out.data()}, *stream),
            absl::OkStatus());
  for (Guarded* buffer : {&state_in, &local, &apart}) EXPECT_TRUE(buffer->Intact());
  if (alias != Alias::kIn) {
    EXPECT_TRUE(BitwiseEqual(state_in.Packed(), in.state_in));
  }
  if (alias != Alias::kLocal) {
    EXPECT_TRUE(BitwiseEqual(local.Packed(), in.local));
  }
  return out.Packed();
}

TEST(AdvanceState, AnyLength) {
  for (const int64_t length : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{63}, int64_t{64},
                               int64_t{1000003}, (int64_t{1} << 31) + 5, int64_t{1} << 40}) {
    const AdvanceStateDesc desc{2, 6, 2, 5, length};
    SCOPED_TRACE(desc.ToString());
    const Inputs in = MakeInputs(static_cast<uint64_t>(length % 97), desc);
    const Floats got = Evaluate(desc, in);
    // Rounding to float32, and of float64 what l products cost.
    const double tolerance = 1e-7 + static_cast<double>(length) * 0x1p-53;
    EXPECT_TRUE(Near(got, reference::AdvanceState(in.ssm, desc, in.state_in, in.local), tolerance));
    for (const Alias alias : {Alias::kIn, Alias::kLocal}) {
      EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, 1, alias), got));
    }
    for (const int threads : {2, 3}) EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, threads), got));
  }
}

TEST(AdvanceState, Shapes) {
  for (const int64_t batch : {1, 3}) {
    for (const int64_t pairs : {1, 4, 17, 32}) {
      for (const int64_t per_filter : {1, 4, 64}) {
        const AdvanceStateDesc desc{batch, 3 * per_filter, per_filter, pairs, 500};
        SCOPED_TRACE(desc.ToString());
        const Inputs in = MakeInputs(pairs, desc);
        EXPECT_TRUE(Near(Evaluate(desc, in),
                         reference::AdvanceState(in.ssm, desc, in.state_in, in.local), 1e-7));
      }
    }
  }
}

// The identity that it stands for: a chunk's state from zero, moved on by the state before it, is
// the state of the recurrence that went through both.
TEST(AdvanceState, IsTheRecurrence) {
  SsmConvDesc conv{1, 4, 777, 8, 2};
  const DiagonalSsm ssm = reference::S4dLin(3, 2, 8);
  const Floats u = Normal(4, 4 * 777), state = Normal(5, 4 * 2 * 8);
  const auto filter = SsmFilter::Create(ssm);
  const auto plan = PlanSsmConv(conv, Device{});
  ASSERT_TRUE(filter.ok() && plan.ok());
  Floats local(state.size()), out(state.size());
  reference::PoisonedStream stream(2, plan->scratch_floats + 64);
  SsmConvArgs args;
  args.u = u.data();
  args.channel_stride = 777;
  args.state_out = local.data();
  ASSERT_EQ(RunSsmConv(*plan, *filter, args, *stream), absl::OkStatus());
  ASSERT_EQ(RunAdvanceState({1, 4, 2, 8, 777}, *filter, {state.data(), local.data(), out.data()},
                            *stream),
            absl::OkStatus());
  EXPECT_TRUE(Near(out, reference::SsmConv(ssm, conv, u, {}, {}, state).state,
                   reference::CarryTolerance(Device{}, ssm, 777, 777 / 32 + 10)));
}

TEST(AdvanceState, RejectsEachBadFieldWithItsValue) {
  const AdvanceStateDesc good{2, 6, 2, 5, 100};
  ASSERT_EQ(good.Validate(), absl::OkStatus());
  const auto filter = SsmFilter::Create(Ssm(1, 3, 5));
  ASSERT_TRUE(filter.ok());
  Floats state(2 * 6 * 2 * 5);
  reference::PoisonedStream stream(1, 0);
  const auto run = [&](const AdvanceStateDesc& desc) {
    return RunAdvanceState(desc, *filter, {state.data(), state.data(), state.data()}, *stream);
  };
  EXPECT_EQ(run(good), absl::OkStatus());
  const auto expect_rejected = [&](auto change, const std::vector<std::string>& values) {
    AdvanceStateDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(run(desc), values)) << desc.ToString();
  };
  expect_rejected([](AdvanceStateDesc& d) { d.batch = 0; }, {"batch = 0"});
  expect_rejected([](AdvanceStateDesc& d) { d.channels = -4; }, {"channels = -4"});
  expect_rejected([](AdvanceStateDesc& d) { d.channels = 7; }, {"channels = 7", "2"});
  expect_rejected([](AdvanceStateDesc& d) { d.channels_per_filter = 0; }, {"per_filter = 0"});
  expect_rejected([](AdvanceStateDesc& d) { d.pairs = 0; }, {"pairs = 0"});
  expect_rejected([](AdvanceStateDesc& d) { d.length = 0; }, {"length = 0"});
  expect_rejected([](AdvanceStateDesc& d) { d.length = (int64_t{1} << 40) + 1; },
                  {"1099511627777"});
  expect_rejected([](AdvanceStateDesc& d) { d.pairs = 6; }, {"6", "3 filters of 5"});
  expect_rejected([](AdvanceStateDesc& d) { d.channels = 8; }, {"3 filters", "not 4"});
}

}  // namespace
}  // namespace longwave

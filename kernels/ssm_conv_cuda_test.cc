// SsmConv and H3Mix on a GPU, or in the emulator, against float64.
#include <algorithm>
#include <random>

#include "kernels/h3_mix.h"
#include "kernels/ssm_conv.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::Columns;
using reference::DeviceData;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

std::string DtypeName(const ::testing::TestParamInfo<Dtype>& info) { return Name(info.param); }
const auto kDtypes = ::testing::Values(Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16);

// The state is float32, but what is added to it went through products of `dtype`.
double StateTolerance(Dtype dtype) { return GpuTolerance(dtype); }

struct Options {
  int64_t gap = 0, offset = 0;
  bool pre_gate = false, post_gate = false, state_in = true, want_state = true, want_y = true;
  bool over_u = false;
  int64_t segments = 0;  // forced
};

struct Inputs {
  DiagonalSsm ssm;
  Floats u, pre, post, state;
};

Inputs MakeInputs(uint64_t seed, const SsmConvDesc& desc, const Options& options) {
  const int64_t count = desc.batch * desc.channels * desc.length;
  Inputs in;
  in.ssm = reference::S4dLin(seed, desc.channels / desc.channels_per_filter, desc.pairs);
  in.u = RoundTo(Normal(seed + 1, count), desc.dtype);
  if (options.pre_gate) in.pre = RoundTo(Normal(seed + 2, count), desc.dtype);
  if (options.post_gate) in.post = RoundTo(Normal(seed + 3, count), desc.dtype);
  if (options.state_in)
    in.state = Normal(seed + 4, desc.batch * desc.channels * 2 * desc.pairs, 0.3);
  return in;
}

class SsmConvCuda : public ::testing::TestWithParam<Dtype> {
 protected:
  void SetUp() override {
    if (!stream_.ok()) GTEST_SKIP() << "no GPU";
  }

  struct Outputs {
    Floats y, state;
  };

  Outputs Run(const SsmConvDesc& desc, const Inputs& in, const Options& options) {
    auto plan = PlanSsmConv(desc, (*stream_).device());
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (options.segments > 1) {
      plan->segment_length =
          ((desc.length + options.segments - 1) / options.segments + 2047) / 2048 * 2048;
      plan->segments = (desc.length + plan->segment_length - 1) / plan->segment_length;
    }
    auto filter = SsmFilter::Create(in.ssm);
    EXPECT_TRUE(filter.ok());
    EXPECT_TRUE(filter->Upload(*stream_, desc.dtype).ok());
    const int64_t rows = desc.batch * desc.channels;
    const auto make = [&](const Floats& values) {
      return values.empty()
                 ? DeviceData(stream_, desc.dtype, rows, desc.length, options.gap, options.offset)
                 : DeviceData(stream_, desc.dtype, values, rows, options.gap, options.offset);
    };
    DeviceData u = make(in.u), pre = make(in.pre), post = make(in.post), y = make({});
    DeviceData state(stream_, Dtype::kFloat32, rows, 2 * desc.pairs);
    if (!in.state.empty()) state.Set(in.state);
    SsmConvArgs args;
    args.u = u.data();
    if (!in.pre.empty()) args.pre_gate = pre.data();
    if (!in.post.empty()) args.post_gate = post.data();
    DeviceData& out = options.over_u ? u : y;
    if (options.want_y) args.y = out.data();
    args.channel_stride = u.stride();
    args.batch_stride = desc.channels * u.stride();
    if (!in.state.empty()) args.state_in = state.floats();
    if (options.want_state) args.state_out = state.floats();
    const absl::Status status = RunSsmConv(*plan, *filter, args, *stream_);
    EXPECT_TRUE(status.ok()) << status;
    Outputs result{out.Get(), state.Get()};
    for (DeviceData* data : {&u, &pre, &post, &y, &state}) EXPECT_TRUE(data->Intact());
    if (!options.over_u) {
      EXPECT_TRUE(reference::BitwiseEqual(u.Get(), in.u)) << "u was written";
    }
    return result;
  }

  void Expect(uint64_t seed, const SsmConvDesc& desc, const Options& options = {}) {
    SCOPED_TRACE(desc.ToString());
    const Inputs in = MakeInputs(seed, desc, options);
    const Outputs out = Run(desc, in, options);
    const auto expected = reference::SsmConv(in.ssm, desc, in.u, in.pre, in.post, in.state);
    if (options.want_y) {
      EXPECT_TRUE(Near(out.y, expected.y, GpuTolerance(desc.dtype)));
    }
    if (options.want_state) {
      EXPECT_TRUE(Near(out.state, expected.state, StateTolerance(desc.dtype))) << "state";
    }
  }

  SsmConvDesc Desc(int64_t batch, int64_t channels, int64_t length, int64_t pairs = 32,
                   SsmEvaluation evaluation = SsmEvaluation::kDualForm) {
    return {batch, channels, length, pairs, 1, evaluation, GetParam()};
  }

  GpuStream stream_;
};

INSTANTIATE_TEST_SUITE_P(Dtypes, SsmConvCuda, kDtypes, DtypeName);

TEST_P(SsmConvCuda, Lengths) {
  for (const int64_t length :
       {1,   2,   3,    31,   63,   64,   65,   127,  128,  255,  256,  257,
        511, 513, 1000, 1009, 1024, 2047, 2048, 2049, 4096, 4097, 6151, 8192}) {
    Expect(length, Desc(1, 2, length));
  }
}

TEST_P(SsmConvCuda, LongSequences) {
  for (const int64_t length : {20011, 40960}) Expect(length, Desc(1, 1, length));
  if (stream_.emulated()) return;
  for (const int64_t length : {100003, 1 << 20}) Expect(length, Desc(1, 3, length));
}

TEST_P(SsmConvCuda, BatchesOfShortSequences) {
  for (const int64_t length : {64, 100, 256, 300, 512, 1024}) {
    for (const int64_t batch : {1, 3, 9}) Expect(length + batch, Desc(batch, 2, length));
  }
}

TEST_P(SsmConvCuda, GatesStridesAndPlaces) {
  for (const int64_t length : {7, 256, 300, 2500}) {
    for (const bool aligned : {true, false}) {
      Options options;
      options.pre_gate = options.post_gate = true;
      options.gap = aligned ? 16 : 3;
      options.offset = aligned ? 0 : 1;
      Expect(length, Desc(2, 2, length), options);
      options.over_u = true;
      Expect(length, Desc(2, 2, length), options);
    }
  }
}

TEST_P(SsmConvCuda, StatesAreOptional) {
  for (const int64_t length : {100, 256, 2304}) {
    for (int which = 0; which < 8; ++which) {
      Options options;
      options.state_in = which % 2 != 0;
      options.want_state = which / 2 % 2 != 0;
      options.want_y = which / 4 != 0;
      if (!options.want_y && !options.want_state) continue;
      Expect(length + which, Desc(2, 1, length), options);
    }
  }
}

TEST_P(SsmConvCuda, Pairs) {
  for (const int64_t pairs : {1, 2, 16, 31, 33, 64, 70}) {
    for (const int64_t length : {130, 2500}) Expect(pairs, Desc(1, 2, length, pairs));
  }
}

TEST_P(SsmConvCuda, ChannelsThatShareAFilter) {
  for (const int64_t length : {200, 2500}) {
    SsmConvDesc desc = Desc(2, 6, length, 8);
    desc.channels_per_filter = 3;
    Expect(length, desc);
  }
}

TEST_P(SsmConvCuda, Segments) {
  for (const int64_t length : {4096, 5000, 8191}) {
    for (const int64_t segments : {2, 3}) {
      Options options;
      options.segments = segments;
      Expect(length, Desc(2, 1, length, 16), options);
      options.want_y = false;
      Expect(length, Desc(2, 1, length, 16), options);
    }
  }
}

// Nothing is launched, so nothing needs to be there.
TEST_P(SsmConvCuda, MoreSequencesThanTheKernelCounts) {
  SsmConvDesc desc = Desc(int64_t{1} << 30, 4, 100, 8);
  desc.channels_per_filter = 2;
  auto filter = SsmFilter::Create(reference::S4dLin(1, 2, 8));
  ASSERT_TRUE(filter.ok());
  ASSERT_TRUE(filter->Upload(*stream_, desc.dtype).ok());
  const auto run = [&] {
    const auto plan = PlanSsmConv(desc, (*stream_).device());
    return plan.ok() ? RunSsmConv(*plan, *filter, {}, *stream_) : plan.status();
  };
  EXPECT_TRUE(reference::Rejected(run(), {"1073741824 batch entries x 2 channels", "2147483647"}));
  desc.batch = int64_t{1} << 47;
  EXPECT_TRUE(reference::Rejected(run(), {"140737488355328 batch entries"}));
}

TEST_P(SsmConvCuda, Steps) {
  for (const int64_t length : {1, 2, 5, 40}) {
    for (const int64_t pairs : {1, 32, 70}) {
      Options options;
      options.pre_gate = options.post_gate = length % 2 == 1;
      Expect(length, Desc(3, 5, length, pairs, SsmEvaluation::kStep), options);
      options.state_in = options.want_state = false;
      Expect(length, Desc(3, 5, length, pairs, SsmEvaluation::kStep), options);
    }
  }
}

TEST_P(SsmConvCuda, AnySplitGivesTheWhole) {
  std::mt19937_64 random(3);
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const SsmConvDesc whole = Desc(2, 2, 1 + static_cast<int64_t>(random() % 5000), 16);
    const Inputs in = MakeInputs(seed, whole, {});
    const auto expected = reference::SsmConv(in.ssm, whole, in.u, {}, {}, in.state);
    Inputs chunk = in;
    Floats y(in.u.size());
    int64_t begin = 0;
    while (begin < whole.length) {
      SsmConvDesc desc = whole;
      desc.length =
          std::min<int64_t>(whole.length - begin, 1 + static_cast<int64_t>(random() % 2500));
      desc.evaluation = desc.length < 50 ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
      chunk.u = Columns(in.u, 4, whole.length, begin, desc.length);
      const Outputs out = Run(desc, chunk, {});
      for (int64_t r = 0; r < 4; ++r) {
        std::copy_n(out.y.data() + r * desc.length, desc.length,
                    y.data() + r * whole.length + begin);
      }
      chunk.state = out.state;
      begin += desc.length;
    }
    EXPECT_TRUE(Near(y, expected.y, GpuTolerance(GetParam()))) << whole.ToString();
    EXPECT_TRUE(Near(chunk.state, expected.state, StateTolerance(GetParam())));
  }
}

// Values at the very end of an array of more than 2^31 elements.
TEST_P(SsmConvCuda, PastTwoToThe31) {
  if (stream_.emulated() || GetParam() == Dtype::kFloat32) GTEST_SKIP() << "needs a GPU's memory";
  const int64_t length = (int64_t{1} << 20) + 192, channels = 2051;  // 2^31 + 3.4 million
  SsmConvDesc desc = Desc(1, channels, length);
  const DiagonalSsm ssm = reference::S4dLin(1, channels, 32);
  auto plan = PlanSsmConv(desc, (*stream_).device());
  auto filter = SsmFilter::Create(ssm);
  ASSERT_TRUE(plan.ok() && filter.ok());
  ASSERT_TRUE(filter->Upload(*stream_, desc.dtype).ok());
  gpu::Queue& queue = stream_.queue();
  auto u = gpu::DeviceArray::Allocate(0, channels * length * 2);
  auto y = gpu::DeviceArray::Allocate(0, channels * length * 2);
  ASSERT_TRUE(u.ok() && y.ok());
  ASSERT_TRUE(queue.Fill(u->data(), 0, u->bytes()).ok());
  ASSERT_TRUE(queue.Fill(y->data(), 0xff, y->bytes()).ok());
  // The last channel has values; the last 4096 outputs are compared.
  SsmConvDesc one = Desc(1, 1, length);
  DiagonalSsm last = ssm;
  last.filters = 1;
  last.a.assign(ssm.a.end() - 32, ssm.a.end());
  last.b.assign(ssm.b.end() - 32, ssm.b.end());
  last.c.assign(ssm.c.end() - 32, ssm.c.end());
  last.d.assign(ssm.d.end() - 1, ssm.d.end());
  const Floats values = RoundTo(Normal(5, length), desc.dtype);
  DeviceData row(stream_, desc.dtype, values, 1);
  ASSERT_TRUE(
      queue.CopyOnDevice(u->as<char>() + (channels - 1) * length * 2, row.data(), length * 2).ok());
  SsmConvArgs args;
  args.u = u->data();
  args.y = y->data();
  args.channel_stride = length;
  args.batch_stride = channels * length;
  ASSERT_TRUE(RunSsmConv(*plan, *filter, args, *stream_).ok());
  ASSERT_TRUE(
      queue.CopyOnDevice(row.data(), y->as<char>() + (channels - 1) * length * 2, length * 2).ok());
  const Floats out = row.Get();
  const auto expected = reference::SsmConv(last, one, values, {}, {}, {});
  EXPECT_TRUE(Near(Floats(out.end() - 4096, out.end()),
                   reference::Doubles(expected.y.end() - 4096, expected.y.end()),
                   GpuTolerance(desc.dtype)));
}

// ---- H3Mix

struct MixInputs {
  DiagonalSsm ssm;
  Floats q, k, v, taps, bias, halo, state;
};

MixInputs MakeMix(uint64_t seed, const H3MixDesc& desc, bool state, bool bias) {
  const int64_t count = desc.batch * desc.width() * desc.length;
  MixInputs in;
  in.ssm = reference::S4dLin(seed, desc.heads, desc.pairs);
  in.q = RoundTo(Normal(seed + 1, count), desc.dtype);
  in.k = RoundTo(Normal(seed + 2, count), desc.dtype);
  in.v = RoundTo(Normal(seed + 3, count), desc.dtype);
  in.taps = Normal(seed + 4, desc.width() * desc.shift_taps, 0.3);
  if (bias) in.bias = Normal(seed + 7, 3 * desc.width(), 0.5);
  if (state) {
    in.halo =
        RoundTo(Normal(seed + 5, desc.batch * desc.width() * (desc.shift_taps - 1)), desc.dtype);
    in.state = Normal(seed + 6, desc.batch * desc.width() * desc.head_dim * 2 * desc.pairs, 0.3);
  }
  return in;
}

Floats AddBias(const Floats& x, const Floats& bias, int64_t which, const H3MixDesc& desc) {
  if (bias.empty()) return x;
  Floats out = x;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t channel = static_cast<int64_t>(i) / desc.length % desc.width();
    out[i] += bias[which * desc.width() + channel];
  }
  return out;
}

class H3MixCuda : public ::testing::TestWithParam<Dtype> {
 protected:
  void SetUp() override {
    if (!stream_.ok()) GTEST_SKIP() << "no GPU";
  }
  struct Outputs {
    Floats y, halo, state;
  };

  Outputs Run(const H3MixDesc& desc, const MixInputs& in, int64_t gap, bool over_q,
              int64_t segments = 0, bool want_y = true, bool keep_kv = false) {
    auto plan = PlanH3Mix(desc, (*stream_).device());
    EXPECT_TRUE(plan.ok()) << plan.status();
    if (segments > 1) {
      plan->segment_length = ((desc.length + segments - 1) / segments + 2047) / 2048 * 2048;
      plan->segments = (desc.length + plan->segment_length - 1) / plan->segment_length;
    }
    auto filter = SsmFilter::Create(in.ssm);
    EXPECT_TRUE(filter.ok());
    EXPECT_TRUE(filter->Upload(*stream_, desc.dtype).ok());
    const int64_t rows = desc.batch * desc.width();
    DeviceData q(stream_, desc.dtype, in.q, rows, gap), k(stream_, desc.dtype, in.k, rows, gap);
    DeviceData v(stream_, desc.dtype, in.v, rows, gap);
    DeviceData separate(stream_, desc.dtype, rows, desc.length, gap);
    DeviceData taps(stream_, Dtype::kFloat32, in.taps, desc.width());
    DeviceData bias(stream_, Dtype::kFloat32, 3, desc.width());
    if (!in.bias.empty()) bias.Set(in.bias);
    DeviceData halo(stream_, Dtype::kFloat32, rows, desc.shift_taps - 1);
    DeviceData state(stream_, Dtype::kFloat32, rows, desc.head_dim * 2 * desc.pairs);
    DeviceData local(stream_, Dtype::kFloat32, rows, desc.head_dim * 2 * desc.pairs);
    DeviceData& y = over_q ? q : separate;
    H3MixArgs args;
    args.q = want_y ? q.data() : nullptr;
    args.k = k.data();
    args.v = v.data();
    args.y = want_y ? y.data() : nullptr;
    args.channel_stride = q.stride();
    args.batch_stride = desc.width() * q.stride();
    args.shift_taps = taps.floats();
    if (!in.bias.empty()) args.bias = bias.floats();
    if (!in.state.empty()) {
      halo.Set(in.halo);
      state.Set(in.state);
      args.halo_in = halo.floats();
      args.state_in = state.floats();
    }
    args.state_out = state.floats();
    // The halo on its own way, before the state-only pass, which may read halo_in: apart from it.
    DeviceData halo_out(stream_, Dtype::kFloat32, rows, desc.shift_taps - 1);
    args.halo_out = want_y ? halo.floats() : halo_out.floats();
    if (!want_y) {
      EXPECT_EQ(RunH3Halo(desc, args, *stream_), absl::OkStatus());
      args.halo_out = nullptr;
    }
    if (keep_kv) {
      EXPECT_TRUE(plan->keeps_kv);
      H3MixArgs states = args;
      states.kv = args.kv = v.data();
      states.y = nullptr;
      states.state_in = nullptr;
      states.state_out = local.floats();
      EXPECT_EQ(RunH3Mix(*plan, *filter, states, *stream_), absl::OkStatus());
      args.k = args.v = nullptr;
      args.halo_out = nullptr;
    }
    const absl::Status status = RunH3Mix(*plan, *filter, args, *stream_);
    EXPECT_TRUE(status.ok()) << status;
    Outputs out{y.Get(), want_y ? halo.Get() : halo_out.Get(), state.Get()};
    for (DeviceData* data : {&q, &k, &v, &separate, &taps, &halo, &halo_out, &state}) {
      EXPECT_TRUE(data->Intact());
    }
    EXPECT_TRUE(reference::BitwiseEqual(k.Get(), in.k));
    if (!keep_kv) {
      EXPECT_TRUE(reference::BitwiseEqual(v.Get(), in.v));
    }
    return out;
  }

  void Expect(uint64_t seed, const H3MixDesc& desc, bool state = true, bool bias = false,
              int64_t gap = 0, bool over_q = false, int64_t segments = 0, bool want_y = true) {
    SCOPED_TRACE(desc.ToString());
    const MixInputs in = MakeMix(seed, desc, state, bias);
    const Outputs out = Run(desc, in, gap, over_q, segments, want_y);
    const Floats k = AddBias(in.k, in.bias, 1, desc);
    const auto expected =
        reference::H3Mix(in.ssm, desc, AddBias(in.q, in.bias, 0, desc), k,
                         AddBias(in.v, in.bias, 2, desc), in.taps, in.halo, in.state);
    // A bias is added to k and v before their product is rounded: two more roundings.
    const double tolerance = GpuTolerance(desc.dtype) * (bias ? 1.3 : 1);
    if (want_y) {
      EXPECT_TRUE(Near(out.y, expected.y, tolerance));
    }
    EXPECT_TRUE(Near(out.state, expected.state, tolerance)) << "state";
    if (desc.shift_taps > 1) {
      EXPECT_TRUE(Near(out.halo, expected.halo, 1e-6)) << "halo";
    }
  }

  H3MixDesc Desc(int64_t batch, int64_t heads, int64_t head_dim, int64_t length, int64_t pairs = 32,
                 int64_t taps = 64, SsmEvaluation evaluation = SsmEvaluation::kDualForm) {
    return {batch, heads, head_dim, length, pairs, taps, evaluation, GetParam()};
  }

  GpuStream stream_;
};

INSTANTIATE_TEST_SUITE_P(Dtypes, H3MixCuda, kDtypes, DtypeName);

TEST_P(H3MixCuda, Lengths) {
  for (const int64_t length : {1, 2, 63, 64, 65, 200, 256, 511, 1009, 2048, 2049, 5000}) {
    // As planned: of a token or two the step, whose only rounding is the result's.
    const bool few = length < 16;
    Expect(length, Desc(1, few ? 24 : 2, 1, length, 32, 64,
                        few ? SsmEvaluation::kAuto : SsmEvaluation::kDualForm));
  }
}

TEST_P(H3MixCuda, BatchStateBiasAndPlaces) {
  for (const int64_t length : {40, 256, 300, 2304}) {
    Expect(length, Desc(3, 2, 1, length), false);
    Expect(length, Desc(3, 2, 1, length), true, true);
    Expect(length, Desc(2, 2, 1, length), true, false, 3, true);
    Expect(length, Desc(2, 2, 1, length), false, true, 8, true);
  }
}

TEST_P(H3MixCuda, HeadsTapsAndPairs) {
  for (const int64_t head_dim : {1, 2, 8}) {
    for (const int64_t taps : {1, 4, 64, 80}) {
      if (head_dim == 8 && taps != 64) continue;
      Expect(taps, Desc(2, 2, head_dim, 150, 4, taps), true, taps == 4);
    }
  }
  Expect(1, Desc(1, 1, 1, 200, 40));
  Expect(2, Desc(1, 1, 2, 2200, 8, 4));
}

TEST_P(H3MixCuda, Segments) {
  Expect(1, Desc(2, 1, 1, 5000, 16), true, false, 0, false, 2);
  Expect(2, Desc(1, 2, 1, 4096, 16), true, true, 0, false, 2);
}

TEST_P(H3MixCuda, StateOnlyPassAndHalo) {
  for (const int64_t length : {2, 15, 40, 256, 300, 2304}) {
    for (const bool state : {false, true}) {
      Expect(length, Desc(3, 2, 1, length, 32, 64, SsmEvaluation::kAuto), state, state, 0, false, 0,
             false);
      Expect(length, Desc(1, 2, 1, length, 32, 64, SsmEvaluation::kAuto), state, !state, 3, false,
             0, false);
    }
  }
  Expect(1, Desc(2, 2, 2, 150, 4, 4), true, true, 0, false, 0, false);
  Expect(2, Desc(1, 1, 1, 200, 40, 80), true, false, 0, false, 0, false);
  Expect(3, Desc(1, 2, 1, 4096, 16), true, true, 0, false, 2, false);
}

// The state-only pass leaves kv, and the pass with y takes it up: bitwise as if it had not.
TEST_P(H3MixCuda, KvIsKeptBetweenThePasses) {
  for (const int64_t length : {20, 256, 300, 2304, 4500}) {
    for (const bool bias : {false, true}) {
      for (const int64_t segments : {1, 2}) {
        if (segments > 1 && length < 4096) continue;
        const H3MixDesc desc = Desc(2, 2, 1, length);
        const MixInputs in = MakeMix(length, desc, true, bias);
        const Outputs whole = Run(desc, in, 3, true, segments);
        const Outputs kept = Run(desc, in, 3, true, segments, true, true);
        EXPECT_TRUE(reference::BitwiseEqual(kept.y, whole.y)) << desc.ToString();
        EXPECT_TRUE(reference::BitwiseEqual(kept.state, whole.state)) << desc.ToString();
      }
    }
  }
  EXPECT_FALSE(PlanH3Mix(Desc(1, 2, 2, 100), (*stream_).device())->keeps_kv);
  EXPECT_FALSE(PlanH3Mix(Desc(1, 2, 1, 100, 33), (*stream_).device())->keeps_kv);
  EXPECT_FALSE(PlanH3Mix(Desc(1, 2, 1, 100, 32, 65), (*stream_).device())->keeps_kv);
}

TEST_P(H3MixCuda, Steps) {
  for (const int64_t length : {1, 3, 70}) {
    for (const int64_t head_dim : {1, 2}) {
      for (const bool state : {false, true}) {
        Expect(length, Desc(5, 3, head_dim, length, 4, 64, SsmEvaluation::kStep), state, state, 0,
               head_dim == 1);
      }
    }
  }
}

TEST_P(H3MixCuda, AnySplitGivesTheWhole) {
  std::mt19937_64 random(5);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const H3MixDesc whole = Desc(2, 2, 1, 1 + static_cast<int64_t>(random() % 3000), 8);
    const MixInputs in = MakeMix(seed, whole, true, false);
    const auto expected =
        reference::H3Mix(in.ssm, whole, in.q, in.k, in.v, in.taps, in.halo, in.state);
    MixInputs chunk = in;
    Floats y(in.q.size());
    for (int64_t begin = 0; begin < whole.length;) {
      H3MixDesc desc = whole;
      desc.length =
          std::min<int64_t>(whole.length - begin, 1 + static_cast<int64_t>(random() % 900));
      desc.evaluation = desc.length < 50 ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
      chunk.q = Columns(in.q, 4, whole.length, begin, desc.length);
      chunk.k = Columns(in.k, 4, whole.length, begin, desc.length);
      chunk.v = Columns(in.v, 4, whole.length, begin, desc.length);
      const Outputs out = Run(desc, chunk, 0, false);
      for (int64_t r = 0; r < 4; ++r) {
        std::copy_n(out.y.data() + r * desc.length, desc.length,
                    y.data() + r * whole.length + begin);
      }
      chunk.halo = out.halo;
      chunk.state = out.state;
      begin += desc.length;
    }
    EXPECT_TRUE(Near(y, expected.y, GpuTolerance(GetParam()))) << whole.ToString();
    EXPECT_TRUE(Near(chunk.state, expected.state, GpuTolerance(GetParam())));
  }
}

}  // namespace
}  // namespace longwave

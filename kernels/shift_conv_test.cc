#include "kernels/shift_conv.h"

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
  Floats u, taps, halo;  // halo empty: none
};

struct Outputs {
  Floats y, halo;
};

Inputs MakeInputs(uint64_t seed, const ShiftConvDesc& desc, bool halo = true) {
  Inputs in;
  in.u = Normal(seed, desc.batch * desc.channels * desc.length);
  in.taps = Normal(seed + 1, desc.channels * desc.taps);
  if (halo) in.halo = Normal(seed + 2, desc.batch * desc.channels * (desc.taps - 1));
  return in;
}

Outputs Evaluate(const ShiftConvDesc& desc, const Inputs& in, int threads = 1, int64_t gap = 0) {
  Guarded u(in.u, desc.batch, desc.channels, desc.length, gap);
  Guarded y(desc.batch, desc.channels, desc.length, gap);
  Guarded taps(in.taps), halo(desc.batch * desc.channels * (desc.taps - 1));
  if (!in.halo.empty()) halo.Set(in.halo);
  ShiftConvArgs args;
  args.u = u.data();
  args.y = y.data();
  args.batch_stride = u.batch_stride();
  args.channel_stride = u.channel_stride();
  args.taps = taps.data();
  if (!in.halo.empty()) args.halo_in = halo.data();
  args.halo_out = halo.data();  // in place where there is a halo
  reference::PoisonedStream stream(threads, 4096);
  const absl::Status status = RunShiftConv(desc, args, *stream);
  EXPECT_TRUE(status.ok()) << status;
  for (const Guarded* buffer : {&u, &y, &taps, &halo}) EXPECT_TRUE(buffer->Intact());
  EXPECT_TRUE(BitwiseEqual(u.Packed(), in.u)) << "u was written";
  return {y.Packed(), halo.Packed()};
}

void ExpectCorrect(const ShiftConvDesc& desc, const Inputs& in, int threads = 1, int64_t gap = 0) {
  SCOPED_TRACE(desc.ToString());
  const Outputs out = Evaluate(desc, in, threads, gap);
  const auto expected = reference::ShiftConv(desc, in.u, in.taps, in.halo);
  EXPECT_TRUE(Near(out.y, expected.y, reference::Tolerance(Device{})));
  // The halo is a copy.
  EXPECT_EQ(reference::ToDoubles(out.halo), expected.halo) << "halo";
}

TEST(ShiftConvTest, LengthsAndTaps) {
  for (const int64_t taps : {1, 2, 3, 4, 5, 16, 31, 63, 64, 65, 127, 1000, 1024}) {
    for (const int64_t length :
         {1, 2, 3, 5, 15, 16, 17, 31, 33, 62, 63, 64, 65, 97, 255, 257, 1009, 2500}) {
      const ShiftConvDesc desc{1, 2, length, taps};
      ExpectCorrect(desc, MakeInputs(taps + length, desc), 1, 5);
      ExpectCorrect(desc, MakeInputs(taps + length, desc, /*halo=*/false));
    }
  }
}

TEST(ShiftConvTest, BatchAndStrides) {
  for (const int64_t batch : {1, 2, 5}) {
    for (const int64_t gap : {0, 1, 3, 16, 61}) {
      for (const int64_t length : {1, 7, 64, 259}) {
        const ShiftConvDesc desc{batch, 3, length, 64};
        ExpectCorrect(desc, MakeInputs(batch + length, desc), 2, gap);
      }
    }
  }
}

TEST(ShiftConvTest, HaloOutIsOptionalAndMayStandApart) {
  for (const int64_t length : {1, 10, 63, 64, 300}) {
    const ShiftConvDesc desc{2, 3, length, 64};
    const Inputs in = MakeInputs(length, desc);
    const Outputs in_place = Evaluate(desc, in);
    for (const bool want : {false, true}) {
      Guarded y(in.u.size()), halo_in(in.halo), halo_out(in.halo.size());
      reference::PoisonedStream stream(1, 4096);
      const absl::Status status =
          RunShiftConv(desc,
                       {in.u.data(), y.data(), 3 * length, length, in.taps.data(), halo_in.data(),
                        want ? halo_out.data() : nullptr},
                       *stream);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(BitwiseEqual(y.Packed(), in_place.y));
      EXPECT_TRUE(BitwiseEqual(halo_in.Packed(), in.halo)) << "halo_in was written";
      if (want) {
        EXPECT_TRUE(BitwiseEqual(halo_out.Packed(), in_place.halo));
      }
    }
  }
}

TEST(ShiftConvTest, ThreadsDoNotChangeTheResult) {
  for (const ShiftConvDesc& desc : {ShiftConvDesc{1, 1, 20000, 64}, ShiftConvDesc{3, 7, 500, 64},
                                    ShiftConvDesc{1, 40, 33, 4}}) {
    const Inputs in = MakeInputs(desc.length, desc);
    const Outputs one = Evaluate(desc, in);
    for (const int threads : {2, 3}) {
      const Outputs several = Evaluate(desc, in, threads);
      EXPECT_TRUE(BitwiseEqual(several.y, one.y)) << desc.ToString();
      EXPECT_TRUE(BitwiseEqual(several.halo, one.halo)) << desc.ToString();
    }
    ExpectCorrect(desc, in, 3);
  }
}

// Chunks of any length, those shorter than the halo too, give what the whole sequence gives.
TEST(ShiftConvTest, AnySplitGivesTheWhole) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 random(seed);
    const ShiftConvDesc whole{1 + static_cast<int64_t>(random() % 2), 3,
                              1 + static_cast<int64_t>(random() % 1500),
                              1 + static_cast<int64_t>(random() % (seed % 2 == 0 ? 70 : 1024))};
    const int64_t rows = whole.batch * whole.channels;
    const Inputs in = MakeInputs(seed, whole);
    const auto expected = reference::ShiftConv(whole, in.u, in.taps, in.halo);
    const auto chunks = reference::RandomSplit(seed, whole.length);
    SCOPED_TRACE(whole.ToString() + " in " + ::testing::PrintToString(chunks));
    Floats y(in.u.size()), halo = in.halo;
    int64_t begin = 0;
    for (const int64_t length : chunks) {
      ShiftConvDesc desc = whole;
      desc.length = length;
      const Outputs out =
          Evaluate(desc, {Columns(in.u, rows, whole.length, begin, length), in.taps, halo}, 1, 1);
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(out.y.data() + r * length, length, y.data() + r * whole.length + begin);
      }
      halo = out.halo;
      begin += length;
    }
    EXPECT_TRUE(Near(y, expected.y, reference::Tolerance(Device{})));
    EXPECT_EQ(reference::ToDoubles(halo), expected.halo);
  }
}

TEST(ShiftConvTest, RejectsEachBadFieldWithItsValue) {
  const ShiftConvDesc good{2, 3, 100, 64};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, int64_t value) {
    ShiftConvDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {std::to_string(value)})) << desc.ToString();
    reference::PoisonedStream stream(1, 4096);
    EXPECT_TRUE(Rejected(RunShiftConv(desc, ShiftConvArgs{}, *stream), {std::to_string(value)}));
  };
  for (const int64_t bad : {0, -1, -7177}) {
    expect_rejected([&](ShiftConvDesc& d) { d.batch = bad; }, bad);
    expect_rejected([&](ShiftConvDesc& d) { d.channels = bad; }, bad);
    expect_rejected([&](ShiftConvDesc& d) { d.length = bad; }, bad);
    expect_rejected([&](ShiftConvDesc& d) { d.taps = bad; }, bad);
  }
  expect_rejected([](ShiftConvDesc& d) { d.taps = 1025; }, 1025);
  for (const int64_t taps : {1, 1024}) {
    ShiftConvDesc desc = good;
    desc.taps = taps;
    EXPECT_TRUE(desc.Validate().ok()) << taps;
  }
}

TEST(ShiftSsmTapsTest, AreTheCorrelationAndTheSkip) {
  for (const int64_t count : {1, 2, 3, 64}) {
    for (const double skip : {0.0, 1.25}) {
      const Floats B = Normal(1, count), C = Normal(2, count);
      Floats taps(count);
      ShiftSsmTaps(B, C, skip, absl::MakeSpan(taps));
      reference::Doubles expected(count);
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t j = 0; i + j < count; ++j) {
          expected[i] += static_cast<double>(B[j]) * static_cast<double>(C[i + j]);
        }
      }
      expected[0] += skip;
      EXPECT_TRUE(Near(taps, expected, reference::Tolerance(Device{}))) << count << " taps";
    }
  }
}

}  // namespace
}  // namespace longwave

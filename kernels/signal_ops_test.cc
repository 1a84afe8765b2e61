#include "kernels/signal_ops.h"

#include <cmath>
#include <limits>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Doubles;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::PoisonedStream;
using reference::Rejected;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Floats EvaluateActivate(Activation activation, const Floats& x, int64_t channels, int64_t gap,
                        int threads) {
  const int64_t length = static_cast<int64_t>(x.size()) / channels;
  Guarded buffer(x, 1, channels, length, gap);
  PoisonedStream stream(threads, 0);
  const absl::Status status = RunActivate(activation, channels, length, buffer.channel_stride(),
                                          Dtype::kFloat32, buffer.data(), *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(buffer.Intact());
  EXPECT_TRUE(stream.ScratchKept());
  return buffer.Packed();
}

TEST(ActivateTest, ChannelsLengthsAndGaps) {
  for (const int64_t channels : {1, 3, 17}) {
    for (const int64_t length : {1, 2, 7, 8, 17, 64, 1001}) {
      const Floats x = Normal(channels + length, channels * length, 2);
      for (const Activation activation : {Activation::kGeluTanh, Activation::kGeluErf}) {
        Doubles expected;
        for (const float value : x) expected.push_back(reference::Activate(activation, value));
        for (const int64_t gap : {0, 1, 16}) {
          EXPECT_TRUE(Near(EvaluateActivate(activation, x, channels, gap, 2), expected,
                           reference::Tolerance(Device{})))
              << Name(activation) << " " << channels << " x " << length << " gap " << gap;
        }
      }
      EXPECT_TRUE(BitwiseEqual(EvaluateActivate(Activation::kNone, x, channels, 1, 2), x));
    }
  }
}

TEST(ActivateTest, ThreadsDoNotChangeTheResult) {
  const Floats x = Normal(1, 40 * 333);
  const Floats one = EvaluateActivate(Activation::kGeluErf, x, 40, 3, 1);
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(BitwiseEqual(EvaluateActivate(Activation::kGeluErf, x, 40, 3, threads), one));
  }
}

TEST(ActivateTest, RejectsBadSizesAndTypesWithTheirValues) {
  PoisonedStream stream(1, 0);
  const auto run = [&](int64_t channels, int64_t length, int64_t stride, Dtype dtype) {
    return RunActivate(Activation::kGeluErf, channels, length, stride, dtype, nullptr, *stream);
  };
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value = {std::to_string(bad)};
    EXPECT_TRUE(Rejected(run(bad, 2, 2, Dtype::kFloat32), value));
    EXPECT_TRUE(Rejected(run(1, bad, 2, Dtype::kFloat32), value));
    EXPECT_TRUE(Rejected(run(1, 2, bad, Dtype::kFloat32), value));
  }
  EXPECT_TRUE(Rejected(run(1, 20, 19, Dtype::kFloat32), {"19", "20"}));
  EXPECT_TRUE(Rejected(run(1, 2, 2, Dtype::kBFloat16), {Name(Dtype::kBFloat16)}));
}

Floats EvaluateGlu(const Floats& z, int64_t rows, int64_t width, const Floats& before,
                   int threads) {
  Guarded gates(z), x(rows * width);
  if (!before.empty()) x.Set(before);
  PoisonedStream stream(threads, width);
  const absl::Status status =
      RunGlu(rows, width, !before.empty(), Dtype::kFloat32, gates.data(), x.data(), *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(gates.Intact());
  EXPECT_TRUE(BitwiseEqual(gates.Packed(), z)) << "z was written";
  EXPECT_TRUE(x.Intact());
  EXPECT_TRUE(stream.ScratchKept());
  return x.Packed();
}

TEST(GluTest, WithAndWithoutTheResidual) {
  for (const int64_t rows : {1, 2, 63, 64, 65, 200}) {
    for (const int64_t width : {1, 7, 8, 33, 256}) {
      const Floats z = Normal(rows + width, rows * 2 * width, 2);
      const Floats before = Normal(rows, rows * width);
      Doubles gated, added;
      for (int64_t i = 0; i < rows * width; ++i) {
        const int64_t at = i / width * 2 * width + i % width;
        gated.push_back(reference::Glu(z[at], z[at + width]));
        added.push_back(gated.back() + before[i]);
      }
      const double tolerance = reference::Tolerance(Device{});
      EXPECT_TRUE(Near(EvaluateGlu(z, rows, width, {}, 2), gated, tolerance))
          << rows << " x " << width;
      EXPECT_TRUE(Near(EvaluateGlu(z, rows, width, before, 2), added, tolerance))
          << rows << " x " << width;
    }
  }
}

TEST(GluTest, ThreadsDoNotChangeTheResult) {
  const Floats z = Normal(1, 500 * 2 * 31), before = Normal(2, 500 * 31);
  const Floats one = EvaluateGlu(z, 500, 31, before, 1);
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(BitwiseEqual(EvaluateGlu(z, 500, 31, before, threads), one));
  }
}

TEST(GluTest, NanStaysNanAndInItsPlace) {
  const Floats x = EvaluateGlu({kNan, 1, 2, 0, kNan, 0}, 1, 3, {1, 1, 1}, 1);
  EXPECT_TRUE(std::isnan(x[0]));
  EXPECT_TRUE(std::isnan(x[1]));
  EXPECT_EQ(x[2], 2.0f);
}

TEST(GluTest, RejectsBadSizesAndTypesWithTheirValues) {
  PoisonedStream stream(1, 0);
  const auto run = [&](int64_t rows, int64_t width, Dtype dtype) {
    return RunGlu(rows, width, false, dtype, nullptr, nullptr, *stream);
  };
  for (const int64_t bad : {0, -1, -7177}) {
    EXPECT_TRUE(Rejected(run(bad, 2, Dtype::kFloat32), {std::to_string(bad)}));
    EXPECT_TRUE(Rejected(run(1, bad, Dtype::kFloat32), {std::to_string(bad)}));
  }
  EXPECT_TRUE(Rejected(run(1, 2, Dtype::kFloat16), {Name(Dtype::kFloat16)}));
}

TEST(TransposeTest, ShapesAndGaps) {
  for (const int64_t rows : {1, 2, 63, 64, 65, 130, 200}) {
    for (const int64_t columns : {1, 3, 64, 77}) {
      const Floats x = Normal(rows + columns, rows * columns);
      for (const int64_t gap : {0, 1, 16}) {
        Guarded in(x), out(1, columns, rows, gap);
        PoisonedStream stream(3, 0);
        ASSERT_TRUE(RunTranspose(rows, columns, Dtype::kFloat32, in.data(), Dtype::kFloat32,
                                 out.data(), out.channel_stride(), *stream)
                        .ok());
        EXPECT_TRUE(BitwiseEqual(out.Packed(), reference::Transpose(x, rows, columns)))
            << rows << " x " << columns << " gap " << gap;
        EXPECT_TRUE(out.Intact());
        EXPECT_TRUE(stream.ScratchKept());
      }
    }
  }
}

TEST(TransposeTest, RejectsBadSizesAndTypesWithTheirValues) {
  PoisonedStream stream(1, 0);
  const auto run = [&](int64_t rows, int64_t columns, int64_t stride, Dtype from, Dtype to) {
    return RunTranspose(rows, columns, from, nullptr, to, nullptr, stride, *stream);
  };
  constexpr Dtype kFloat = Dtype::kFloat32, kHalf = Dtype::kFloat16;
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value = {std::to_string(bad)};
    EXPECT_TRUE(Rejected(run(bad, 2, 2, kFloat, kFloat), value));
    EXPECT_TRUE(Rejected(run(2, bad, 2, kFloat, kFloat), value));
    EXPECT_TRUE(Rejected(run(2, 2, bad, kFloat, kFloat), value));
  }
  EXPECT_TRUE(Rejected(run(20, 2, 19, kFloat, kFloat), {"19", "20"}));
  EXPECT_TRUE(Rejected(run(2, 2, 2, kHalf, kFloat), {Name(kHalf)}));
  EXPECT_TRUE(Rejected(run(2, 2, 2, kFloat, kHalf), {Name(kHalf)}));
}

}  // namespace
}  // namespace longwave

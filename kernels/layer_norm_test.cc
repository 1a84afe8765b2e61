#include "kernels/layer_norm.h"

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;

struct Inputs {
  Floats x, scale, shift;
  float eps = 1e-5f;

  LayerNormWeights weights() const { return {scale.data(), shift.data(), eps}; }
  reference::Doubles Expected(int64_t rows, int64_t width) const {
    return reference::LayerNorm(reference::ToDoubles(x), rows, width, scale, shift, eps);
  }
};

Inputs MakeInputs(uint64_t seed, int64_t rows, int64_t width, double deviation = 1,
                  double mean = 0.3) {
  return {Normal(seed, rows * width, deviation, mean), Normal(seed + 1, width),
          Normal(seed + 2, width)};
}

Floats EvaluateRows(const Inputs& in, int64_t rows, int64_t width, int64_t gap = 0,
                    bool in_place = false) {
  Guarded x(in.x, 1, rows, width, gap), y(1, rows, width, 2 * gap);
  Guarded& out = in_place ? x : y;
  LayerNormRows(in.weights(), rows, width, x.data(), x.channel_stride(), out.data(),
                out.channel_stride());
  EXPECT_TRUE(x.Intact());
  EXPECT_TRUE(y.Intact());
  if (!in_place) {
    EXPECT_TRUE(BitwiseEqual(x.Packed(), in.x)) << "x was written";
  }
  return out.Packed();
}

Floats EvaluateAll(const Inputs& in, int64_t rows, int64_t width, int threads,
                   bool in_place = false) {
  Guarded x(in.x), y(in.x.size());
  Guarded& out = in_place ? x : y;
  reference::PoisonedStream stream(threads, 1 << 14);
  const absl::Status status =
      RunLayerNorm(in.weights(), rows, width, x.data(), out.data(), *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(x.Intact());
  EXPECT_TRUE(y.Intact());
  return out.Packed();
}

TEST(LayerNormTest, RowsAndWidths) {
  for (const int64_t rows : {1, 2, 3, 17, 200}) {
    for (const int64_t width : {2, 3, 7, 8, 15, 16, 17, 31, 64, 100, 768, 1001}) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << width);
      const Inputs in = MakeInputs(rows + width, rows, width);
      const auto expected = in.Expected(rows, width);
      const double tolerance = reference::Tolerance(Device{});
      for (const int64_t gap : {0, 1, 16}) {
        EXPECT_TRUE(Near(EvaluateRows(in, rows, width, gap), expected, tolerance));
        EXPECT_TRUE(
            Near(EvaluateRows(in, rows, width, gap, /*in_place=*/true), expected, tolerance));
      }
      EXPECT_TRUE(Near(EvaluateAll(in, rows, width, 2), expected, tolerance));
      EXPECT_TRUE(Near(EvaluateAll(in, rows, width, 3, /*in_place=*/true), expected, tolerance));
    }
  }
}

TEST(LayerNormTest, ThreadsDoNotChangeTheResult) {
  for (const int64_t rows : {1, 7, 1000}) {
    const Inputs in = MakeInputs(rows, rows, 65);
    const Floats one = EvaluateAll(in, rows, 65, 1);
    for (const int threads : {2, 3})
      EXPECT_TRUE(BitwiseEqual(EvaluateAll(in, rows, 65, threads), one));
  }
}

// A mean of a thousand deviations. The mean alone, rounded to float32, shifts the result by 1000 x
// 2^-24 = 6e-5; E[x^2] - E[x]^2 in float32 would be off by 1e6 x 2^-24 = 6%.
TEST(LayerNormTest, LargeMean) {
  const Inputs in = MakeInputs(1, 20, 512, 1, 1000);
  EXPECT_TRUE(Near(EvaluateRows(in, 20, 512), in.Expected(20, 512), 1e-4));
  EXPECT_TRUE(Near(EvaluateAll(in, 20, 512, 2), in.Expected(20, 512), 1e-4));
}

TEST(LayerNormTest, ConstantRowsGiveTheShift) {
  for (const float value : {0.0f, 3.0f, -1024.0f}) {
    Inputs in = MakeInputs(1, 3, 64);
    in.x.assign(in.x.size(), value);
    EXPECT_TRUE(Near(EvaluateRows(in, 3, 64), in.Expected(3, 64), reference::Tolerance(Device{})))
        << value;
  }
  Inputs one = MakeInputs(2, 5, 1);  // a row of one element has no variance
  EXPECT_TRUE(Near(EvaluateRows(one, 5, 1), one.Expected(5, 1), reference::Tolerance(Device{})));
}

// Deviations about and far below sqrt(eps), and large ones.
TEST(LayerNormTest, EpsilonAndScales) {
  for (const double deviation : {1e-6, 3e-3, 1e-2, 1e6}) {
    for (const float eps : {1e-5f, 1e-3f}) {
      Inputs in = MakeInputs(3, 10, 100, deviation, 0);
      in.eps = eps;
      EXPECT_TRUE(
          Near(EvaluateRows(in, 10, 100), in.Expected(10, 100), reference::Tolerance(Device{})))
          << deviation << " " << eps;
    }
  }
}

}  // namespace
}  // namespace longwave

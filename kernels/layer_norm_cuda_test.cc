#include "kernels/layer_norm.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

constexpr std::pair<Dtype, Dtype> kTypes[] = {{Dtype::kFloat32, Dtype::kFloat32},
                                              {Dtype::kFloat32, Dtype::kBFloat16},
                                              {Dtype::kFloat32, Dtype::kFloat16},
                                              {Dtype::kBFloat16, Dtype::kBFloat16},
                                              {Dtype::kFloat16, Dtype::kFloat16}};

void ExpectCorrect(GpuStream& stream, int64_t rows, int64_t width, Dtype from, Dtype to,
                   int64_t shift = 0, bool in_place = false) {
  SCOPED_TRACE(::testing::Message() << rows << " x " << width << " " << Name(from) << " to "
                                    << Name(to) << " shift " << shift);
  const Floats x = RoundTo(Normal(rows + width, rows * width, 1, 0.3), from);
  const Floats scale = Normal(1, width), offset = Normal(2, width);
  DeviceData gx(stream, from, x, rows, 0, shift), gy(stream, to, rows, width, 0, shift);
  DeviceData gscale(stream, Dtype::kFloat32, scale), goffset(stream, Dtype::kFloat32, offset);
  DeviceData& out = in_place ? gx : gy;
  const absl::Status status = RunLayerNorm({gscale.floats(), goffset.floats(), 1e-5f}, rows, width,
                                           gx.data(), out.data(), *stream, from, to);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(gx.Intact() && gy.Intact());
  EXPECT_TRUE(Near(out.Get(),
                   reference::LayerNorm(reference::ToDoubles(x), rows, width, scale, offset, 1e-5),
                   GpuTolerance(to)));
}

TEST(LayerNormCudaTest, RowsWidthsAndTypes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const auto& [from, to] : kTypes) {
    for (const int64_t width :
         {1, 2, 7, 64, 100, 256, 257, 260, 768, 1001, 1024, 2048, 2560, 2564}) {
      for (const int64_t rows : {1, 5}) ExpectCorrect(stream, rows, width, from, to);
    }
    ExpectCorrect(stream, 3, 64, from, to, 1);
    ExpectCorrect(stream, 3, 64, from, to, 2);
  }
  ExpectCorrect(stream, 3, 64, Dtype::kFloat32, Dtype::kFloat32, 0, true);
  ExpectCorrect(stream, 3, 63, Dtype::kFloat32, Dtype::kFloat32, 0, true);
}

// A mean of a thousand deviations: two passes keep what E[x^2] - E[x]^2 would lose.
TEST(LayerNormCudaTest, LargeMean) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const int64_t width : {512, 513}) {
    const Floats x = Normal(1, 4 * width, 1, 1000), one(width, 1), zero(width, 0);
    DeviceData gx(stream, Dtype::kFloat32, x), gy(stream, Dtype::kFloat32, 4, width);
    DeviceData gone(stream, Dtype::kFloat32, one), gzero(stream, Dtype::kFloat32, zero);
    ASSERT_TRUE(RunLayerNorm({gone.floats(), gzero.floats(), 1e-5f}, 4, width, gx.data(), gy.data(),
                             *stream)
                    .ok());
    EXPECT_TRUE(Near(
        gy.Get(), reference::LayerNorm(reference::ToDoubles(x), 4, width, one, zero, 1e-5), 1e-4));
  }
}

TEST(LayerNormCudaTest, RejectsTypesThatDoNotMeet) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  EXPECT_EQ(
      RunLayerNorm({}, 1, 8, nullptr, nullptr, *stream, Dtype::kBFloat16, Dtype::kFloat16).code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace longwave

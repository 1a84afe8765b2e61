#include <cmath>

#include "kernels/mlp.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Floats;
using reference::GpuStream;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

void ExpectCorrect(GpuStream& stream, const MlpDesc& desc) {
  SCOPED_TRACE(desc.ToString());
  const uint64_t seed = desc.rows + desc.inner;
  const int64_t d = desc.width, inner = desc.inner;
  const Floats x = Normal(seed, desc.rows * d);
  const Floats scale = Normal(seed + 1, d), shift = Normal(seed + 2, d);
  const Floats w1 = RoundTo(Normal(seed + 3, inner * d, 1 / std::sqrt(d)), desc.dtype);
  const Floats b1 = RoundTo(Normal(seed + 4, inner), desc.fc1_bias_dtype);
  const Floats w2 = RoundTo(Normal(seed + 5, d * inner, 2 / std::sqrt(inner)), desc.dtype);
  const Floats b2 = Normal(seed + 6, d);
  DeviceData gx(stream, Dtype::kFloat32, x);
  DeviceData gscale(stream, Dtype::kFloat32, scale), gshift(stream, Dtype::kFloat32, shift);
  DeviceData gw1(stream, desc.dtype, w1), gb1(stream, desc.fc1_bias_dtype, b1);
  DeviceData gw2(stream, desc.dtype, w2), gb2(stream, Dtype::kFloat32, b2);
  const absl::Status status = RunMlp(desc,
                                     {.x = gx.floats(),
                                      .norm = {gscale.floats(), gshift.floats(), 1e-5f},
                                      .fc1_weight = gw1.data(),
                                      .fc1_bias = gb1.data(),
                                      .fc2_weight = gw2.data(),
                                      .fc2_bias = gb2.floats()},
                                     *stream);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(gx.Intact());
  EXPECT_TRUE(Near(
      gx.Get(),
      reference::Mlp(x, desc.rows, d, inner, desc.activation, scale, shift, 1e-5, w1, b1, w2, b2),
      reference::GpuTolerance(desc.dtype)));
}

TEST(MlpCudaTest, ShapesAndTypes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    for (const int64_t rows : {1, 17, 70}) {
      ExpectCorrect(stream, {rows, 32, 96, Activation::kGeluTanh, dtype});
      ExpectCorrect(stream, {rows, 32, 96, Activation::kGeluTanh, dtype, dtype});
      ExpectCorrect(stream, {rows, 13, 29, Activation::kGeluTanh, dtype});
      ExpectCorrect(stream, {rows, 32, 64, Activation::kGeluErf, dtype});
    }
  }
}

TEST(MlpCudaTest, MoreRowsThanATile) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  ExpectCorrect(stream, {MlpDesc::kGpuRows + 3, 4, 8, Activation::kGeluTanh, Dtype::kBFloat16});
}

TEST(MlpCudaTest, ModelShape) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  if (stream.emulated()) GTEST_SKIP() << "too slow in the emulator";
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    ExpectCorrect(stream, {200, 768, 3072, Activation::kGeluTanh, dtype, dtype});
  }
}

}  // namespace
}  // namespace longwave

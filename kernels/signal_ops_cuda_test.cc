#include "kernels/signal_ops.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::DeviceData;
using reference::Doubles;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16};

TEST(SignalOpsCudaTest, ActivatesChannels) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
      for (const auto& [length, stride] :
           {std::pair{67, 80}, std::pair{64, 64}, std::pair{13, 13}, std::pair{1, 9}}) {
        const Floats values = RoundTo(Normal(length, 3 * length, 2), dtype);
        Doubles expected;
        for (const float x : values) expected.push_back(reference::Activate(activation, x));
        DeviceData gx(stream, dtype, values, 3, stride - length);
        ASSERT_TRUE(RunActivate(activation, 3, length, stride, dtype, gx.data(), *stream).ok());
        EXPECT_TRUE(gx.Intact());
        EXPECT_TRUE(Near(gx.Get(), expected, GpuTolerance(dtype))) << length;
      }
    }
  }
}

TEST(SignalOpsCudaTest, GluWithAndWithoutTheResidual) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const auto& [rows, width] : {std::pair{5, 32}, std::pair{3, 7}, std::pair{70, 40}}) {
      for (const bool accumulate : {false, true}) {
        const Floats z = RoundTo(Normal(width, rows * 2 * width, 2), dtype);
        const Floats before = Normal(rows, rows * width);
        DeviceData gz(stream, dtype, z), x(stream, Dtype::kFloat32, rows, width);
        if (accumulate) x.Set(before);
        ASSERT_TRUE(RunGlu(rows, width, accumulate, dtype, gz.data(), x.floats(), *stream).ok());
        Doubles expected;
        for (int i = 0; i < rows * width; ++i) {
          const int at = i / width * 2 * width + i % width;
          expected.push_back(reference::Glu(z[at], z[at + width]) + (accumulate ? before[i] : 0));
        }
        EXPECT_TRUE(x.Intact());
        EXPECT_TRUE(Near(x.Get(), expected, GpuTolerance(Dtype::kFloat32)));
      }
    }
  }
}

TEST(SignalOpsCudaTest, Transposes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const auto& [from, to] :
       {std::pair{Dtype::kFloat32, Dtype::kFloat32}, std::pair{Dtype::kFloat32, Dtype::kBFloat16},
        std::pair{Dtype::kFloat16, Dtype::kFloat16}}) {
    for (const auto& [rows, columns] :
         {std::pair{1, 1}, std::pair{63, 65}, std::pair{130, 64}, std::pair{7, 200}}) {
      const Floats x = RoundTo(Normal(rows, rows * columns), from);
      DeviceData gx(stream, from, x), out(stream, to, columns, rows, 5);
      ASSERT_TRUE(
          RunTranspose(rows, columns, from, gx.data(), to, out.data(), out.stride(), *stream).ok());
      EXPECT_TRUE(out.Intact());
      EXPECT_TRUE(BitwiseEqual(out.Get(), RoundTo(reference::Transpose(x, rows, columns), to)));
    }
  }
}

}  // namespace
}  // namespace longwave

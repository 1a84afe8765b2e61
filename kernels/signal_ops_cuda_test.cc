#include <cmath>

#include "kernels/signal_ops.h"
#include "kernels/testing/gpu_buffers.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Doubles;
using reference::Floats;
using reference::GpuBuffer;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::Round;

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16};

TEST(SignalOpsCudaTest, ActivatesChannels) {
  auto stream = reference::OpenGpu();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
      for (const auto& [length, stride] :
           {std::pair{67, 80}, std::pair{64, 64}, std::pair{13, 13}, std::pair{1, 9}}) {
        Floats x(3 * stride, NAN);
        const Floats values = Round(dtype, Normal(length, 3 * length, 2));
        Doubles expected;
        for (int i = 0; i < 3 * length; ++i) {
          x[i / length * stride + i % length] = values[i];
          expected.push_back(reference::Activate(activation, values[i]));
        }
        GpuBuffer gx(*stream, dtype, x);
        ASSERT_TRUE(RunActivate(activation, 3, length, stride, dtype, gx.data(), *stream).ok());
        EXPECT_TRUE(gx.Intact());
        const Floats wide = gx.Get();
        Floats out;
        for (int i = 0; i < 3 * stride; ++i) {
          if (i % stride < length) out.push_back(wide[i]);
          if (i % stride >= length) {
            EXPECT_TRUE(std::isnan(wide[i]));
          }
        }
        EXPECT_TRUE(Near(out, expected, GpuTolerance(dtype))) << length;
      }
    }
  }
}

TEST(SignalOpsCudaTest, GluWithAndWithoutTheResidual) {
  auto stream = reference::OpenGpu();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const auto& [rows, width] : {std::pair{5, 32}, std::pair{3, 7}, std::pair{70, 40}}) {
      for (const bool accumulate : {false, true}) {
        const Floats z = Round(dtype, Normal(width, rows * 2 * width, 2));
        const Floats before = Normal(rows, rows * width);
        GpuBuffer gz(*stream, dtype, z), x(*stream, Dtype::kFloat32, rows * width);
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
  auto stream = reference::OpenGpu();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const auto& [from, to] :
       {std::pair{Dtype::kFloat32, Dtype::kFloat32}, std::pair{Dtype::kFloat32, Dtype::kBFloat16},
        std::pair{Dtype::kFloat16, Dtype::kFloat16}}) {
    for (const auto& [rows, columns] :
         {std::pair{1, 1}, std::pair{63, 65}, std::pair{130, 64}, std::pair{7, 200}}) {
      const int stride = rows + 5;
      const Floats x = Round(from, Normal(rows, rows * columns));
      GpuBuffer gx(*stream, from, x), out(*stream, to, columns * stride);
      ASSERT_TRUE(
          RunTranspose(rows, columns, from, gx.data(), to, out.data(), stride, *stream).ok());
      EXPECT_TRUE(out.Intact());
      const Floats wide = out.Get();
      Floats got;
      for (int i = 0; i < columns * stride; ++i) {
        if (i % stride < rows) got.push_back(wide[i]);
        if (i % stride >= rows) {
          EXPECT_TRUE(std::isnan(wide[i]));
        }
      }
      EXPECT_TRUE(BitwiseEqual(got, Round(to, reference::Transpose(x, rows, columns))));
    }
  }
}

}  // namespace
}  // namespace longwave

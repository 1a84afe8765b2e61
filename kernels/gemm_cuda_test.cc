#include <cmath>

#include "kernels/gemm.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Doubles;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::RoundTo;
using reference::ToDoubles;
using reference::Transpose;

struct Case {
  GemmDesc desc;
  bool bias = true, norm = false;
  int64_t x_gap = 0, out_gap = 0, shift = 0;
};

void ExpectCorrect(GpuStream& stream, uint64_t seed, const Case& c) {
  const GemmDesc& d = c.desc;
  SCOPED_TRACE(::testing::Message()
               << d.ToString() << " bias " << c.bias << " norm " << c.norm << " gaps " << c.x_gap
               << " " << c.out_gap << " shift " << c.shift);
  const bool x_channels = d.in_layout == Layout::kChannelMajor;
  const bool out_channels = d.out_layout == Layout::kChannelMajor;
  const Floats x = RoundTo(Normal(seed, d.rows * d.in), d.in_dtype);
  const Floats weight = RoundTo(Normal(seed + 1, d.out * d.in, 1 / std::sqrt(d.in)), d.dtype);
  const Floats bias = c.bias ? RoundTo(Normal(seed + 2, d.out), d.bias_dtype) : Floats();
  const Floats before = RoundTo(Normal(seed + 3, d.rows * d.out), d.out_dtype);
  const Floats scale = Normal(seed + 4, d.in), shift = Normal(seed + 5, d.in);

  DeviceData gx(stream, d.in_dtype, x_channels ? Transpose(x, d.rows, d.in) : x,
                x_channels ? d.in : d.rows, c.x_gap, c.shift);
  DeviceData gw(stream, d.dtype, weight, 1, 0, c.shift);
  DeviceData gb(stream, d.bias_dtype, bias, 1, 0, c.shift);
  DeviceData gscale(stream, Dtype::kFloat32, scale), gshift(stream, Dtype::kFloat32, shift);
  DeviceData gout(stream, d.out_dtype, out_channels ? d.out : d.rows, out_channels ? d.rows : d.out,
                  c.out_gap, c.shift);
  if (d.accumulate) gout.Set(out_channels ? Transpose(before, d.rows, d.out) : before);
  const LayerNormWeights norm{gscale.floats(), gshift.floats(), 1e-5f};
  const absl::Status status = RunGemm(d,
                                      {.x = gx.data(),
                                       .x_stride = gx.stride(),
                                       .weight = gw.data(),
                                       .bias = c.bias ? gb.data() : nullptr,
                                       .norm = c.norm ? &norm : nullptr,
                                       .out = gout.data(),
                                       .out_stride = gout.stride()},
                                      *stream);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(gout.Intact());
  Floats out = gout.Get();
  if (out_channels) out = Transpose(out, d.out, d.rows);

  Doubles from = ToDoubles(x);
  if (c.norm) from = reference::LayerNorm(from, d.rows, d.in, scale, shift, 1e-5);
  Doubles expected = reference::Linear(from, d.rows, d.in, d.out, weight, bias);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] =
        d.accumulate ? expected[i] + before[i] : reference::Activate(d.activation, expected[i]);
  }
  EXPECT_TRUE(Near(out, expected, GpuTolerance(d.dtype)));
}

GemmDesc Of(int64_t rows, int64_t in, int64_t out, Dtype dtype, Dtype out_dtype) {
  GemmDesc desc{.rows = rows, .in = in, .out = out};
  desc.dtype = desc.in_dtype = dtype;
  desc.out_dtype = out_dtype;
  return desc;
}

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16};

TEST(GemmCudaTest, LayoutsTypesAndBiases) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 0;
  for (const Dtype dtype : kDtypes) {
    for (const Dtype out_dtype : {dtype, Dtype::kFloat32}) {
      for (const Layout in_layout : {Layout::kTokenMajor, Layout::kChannelMajor}) {
        for (const Layout out_layout : {Layout::kTokenMajor, Layout::kChannelMajor}) {
          for (const int bias : {0, 1, 2}) {
            Case c{Of(24, 32, 40, dtype, out_dtype)};
            c.desc.in_layout = in_layout;
            c.desc.out_layout = out_layout;
            c.bias = bias > 0;
            if (bias == 2) c.desc.bias_dtype = out_dtype;
            ExpectCorrect(stream, ++seed, c);
            c.x_gap = c.out_gap = 8;
            ExpectCorrect(stream, ++seed, c);
          }
        }
      }
    }
  }
}

TEST(GemmCudaTest, OddShapesAndAddresses) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 100;
  for (const Dtype dtype : kDtypes) {
    for (const auto& [rows, in, out] : {std::tuple{1, 64, 48}, std::tuple{7, 13, 11},
                                        std::tuple{1, 1, 40}, std::tuple{67, 31, 3}}) {
      for (const Layout layout : {Layout::kTokenMajor, Layout::kChannelMajor}) {
        for (const int64_t shift : {0, 1}) {
          Case c{Of(rows, in, out, dtype, dtype)};
          c.desc.out_layout = layout;
          c.desc.bias_dtype = dtype;
          c.desc.activation = Activation::kGeluTanh;
          c.shift = shift;
          c.x_gap = shift;
          ExpectCorrect(stream, ++seed, c);
        }
      }
    }
  }
}

TEST(GemmCudaTest, ActivationsAndTheResidual) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 200;
  for (const Dtype dtype : kDtypes) {
    for (const Layout layout : {Layout::kTokenMajor, Layout::kChannelMajor}) {
      for (const bool bias : {false, true}) {
        Case c{Of(20, 24, 16, dtype, dtype)};
        c.desc.out_layout = layout;
        c.bias = bias;
        for (const Activation activation : {Activation::kGeluTanh, Activation::kGeluErf}) {
          c.desc.activation = activation;
          ExpectCorrect(stream, ++seed, c);
        }
        c.desc.activation = Activation::kNone;
        c.desc.accumulate = true;
        c.desc.out_dtype = Dtype::kFloat32;
        ExpectCorrect(stream, ++seed, c);
      }
    }
  }
}

TEST(GemmCudaTest, NormBefore) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  uint64_t seed = 300;
  for (const Dtype dtype : kDtypes) {
    for (const int64_t in : {32, 33}) {
      Case c{Of(19, in, 24, dtype, dtype)};
      c.desc.in_dtype = Dtype::kFloat32;
      c.norm = true;
      c.x_gap = 4;
      ExpectCorrect(stream, ++seed, c);
      c.desc.out_layout = Layout::kChannelMajor;
      c.bias = false;
      ExpectCorrect(stream, ++seed, c);
    }
  }
}

// The model's shapes, where a real GPU multiplies.
TEST(GemmCudaTest, ModelShapes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  if (stream.emulated()) GTEST_SKIP() << "too slow in the emulator";
  uint64_t seed = 400;
  for (const Dtype dtype : kDtypes) {
    for (const int64_t rows : {1, 64, 333}) {
      Case c{Of(rows, 768, 3072, dtype, dtype)};
      c.desc.bias_dtype = dtype;
      c.desc.activation = Activation::kGeluTanh;
      ExpectCorrect(stream, ++seed, c);
      Case back{Of(rows, 3072, 768, dtype, Dtype::kFloat32)};
      back.desc.accumulate = true;
      ExpectCorrect(stream, ++seed, back);
      Case qkv{Of(rows, 768, 2304, dtype, dtype)};
      qkv.desc.in_dtype = Dtype::kFloat32;
      qkv.norm = true;
      qkv.bias = false;
      qkv.desc.out_layout = Layout::kChannelMajor;
      qkv.out_gap = (16 - rows % 16) % 16;
      ExpectCorrect(stream, ++seed, qkv);
    }
  }
}

TEST(GemmCudaTest, RejectsTypesThatDoNotMeet) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  GemmDesc desc = Of(1, 1, 1, Dtype::kBFloat16, Dtype::kFloat16);
  EXPECT_EQ(desc.Validate().code(), absl::StatusCode::kInvalidArgument);
  desc = Of(1, 1, 1, Dtype::kBFloat16, Dtype::kBFloat16);
  desc.in_dtype = Dtype::kFloat32;
  EXPECT_TRUE(desc.Validate().ok());
  EXPECT_EQ(RunGemm(desc, {}, *stream).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace longwave

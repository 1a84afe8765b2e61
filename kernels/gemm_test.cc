#include "kernels/gemm.h"

#include <cmath>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Doubles;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;
using reference::Transpose;

constexpr Layout kLayouts[] = {Layout::kTokenMajor, Layout::kChannelMajor};

struct Inputs {
  Floats x, weight, bias, scale, shift, residual;  // token-major; bias, scale, shift empty: none
};

Inputs MakeInputs(uint64_t seed, const GemmDesc& desc, bool bias = true, bool norm = false) {
  Inputs in;
  in.x = Normal(seed, desc.rows * desc.in, 1, norm ? 0.5 : 0);
  in.weight = Normal(seed + 1, desc.out * desc.in, 1 / std::sqrt(static_cast<double>(desc.in)));
  if (bias) in.bias = Normal(seed + 2, desc.out);
  if (norm) {
    in.scale = Normal(seed + 3, desc.in);
    in.shift = Normal(seed + 4, desc.in);
  }
  in.residual = Normal(seed + 5, desc.rows * desc.out);
  return in;
}

// The result, token-major whatever the layouts are.
Floats Evaluate(const GemmDesc& desc, const Inputs& in, int threads = 1, int64_t gap = 0) {
  const bool x_by_channel = desc.in_layout == Layout::kChannelMajor;
  const bool out_by_channel = desc.out_layout == Layout::kChannelMajor;
  Guarded x = x_by_channel
                  ? Guarded(Transpose(in.x, desc.rows, desc.in), 1, desc.in, desc.rows, gap)
                  : Guarded(in.x, 1, desc.rows, desc.in, gap);
  // Another gap than x has, so that nobody takes one stride for the other.
  Guarded out = out_by_channel ? Guarded(1, desc.out, desc.rows, 2 * gap)
                               : Guarded(1, desc.rows, desc.out, 2 * gap);
  if (desc.accumulate) {
    out.Set(out_by_channel ? Transpose(in.residual, desc.rows, desc.out) : in.residual);
  }
  Guarded weight(in.weight), bias(in.bias), scale(in.scale), shift(in.shift);
  const LayerNormWeights norm{scale.data(), shift.data(), 1e-5f};
  GemmArgs args;
  args.x = x.data();
  args.x_stride = x.channel_stride();
  args.weight = weight.data();
  if (!in.bias.empty()) args.bias = bias.data();
  if (!in.scale.empty()) args.norm = &norm;
  args.out = out.data();
  args.out_stride = out.channel_stride();
  reference::PoisonedStream stream(threads, 1 << 16);
  const absl::Status status = RunGemm(desc, args, *stream);
  EXPECT_TRUE(status.ok()) << status;
  for (const Guarded* buffer : {&x, &out, &weight, &bias, &scale, &shift})
    EXPECT_TRUE(buffer->Intact());
  EXPECT_TRUE(BitwiseEqual(weight.Packed(), in.weight)) << "weight was written";
  EXPECT_TRUE(
      BitwiseEqual(x_by_channel ? Transpose(x.Packed(), desc.in, desc.rows) : x.Packed(), in.x))
      << "x was written";
  return out_by_channel ? Transpose(out.Packed(), desc.out, desc.rows) : out.Packed();
}

void ExpectCorrect(const GemmDesc& desc, const Inputs& in, int threads = 1, int64_t gap = 0) {
  SCOPED_TRACE(desc.ToString());
  Doubles x = reference::ToDoubles(in.x);
  if (!in.scale.empty()) x = reference::LayerNorm(x, desc.rows, desc.in, in.scale, in.shift, 1e-5f);
  Doubles expected = reference::Linear(x, desc.rows, desc.in, desc.out, in.weight, in.bias);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = reference::Activate(desc.activation, expected[i]);
    if (desc.accumulate) expected[i] += in.residual[i];
  }
  EXPECT_TRUE(Near(Evaluate(desc, in, threads, gap), expected, reference::Tolerance(Device{})));
}

TEST(GemmTest, RowsAndLayouts) {
  for (const int64_t rows : {1, 2, 3, 127, 128, 129, 1000}) {
    for (const Layout in_layout : kLayouts) {
      for (const Layout out_layout : kLayouts) {
        GemmDesc desc{rows, 48, 40, in_layout, out_layout};
        ExpectCorrect(desc, MakeInputs(rows, desc), 2, 3);
      }
    }
  }
}

TEST(GemmTest, Widths) {
  for (const int64_t in : {1, 2, 17, 64, 255, 1000}) {
    for (const int64_t out : {1, 3, 16, 65, 300}) {
      for (const Layout in_layout : kLayouts) {
        for (const Layout out_layout : kLayouts) {
          GemmDesc desc{33, in, out, in_layout, out_layout};
          ExpectCorrect(desc, MakeInputs(in + out, desc));
        }
      }
    }
  }
}

TEST(GemmTest, Epilogues) {
  for (const int64_t rows : {1, 5, 130}) {
    for (const Layout in_layout : kLayouts) {
      for (const Layout out_layout : kLayouts) {
        for (const bool bias : {false, true}) {
          GemmDesc desc{rows, 32, 27, in_layout, out_layout};
          const Inputs in = MakeInputs(rows, desc, bias);
          for (const auto activation :
               {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf}) {
            SCOPED_TRACE(::testing::Message() << Name(activation) << " bias " << bias);
            desc.activation = activation;
            ExpectCorrect(desc, in, 2, 1);
          }
          SCOPED_TRACE(::testing::Message() << "accumulate, bias " << bias);
          desc.activation = Activation::kNone;
          desc.accumulate = true;
          ExpectCorrect(desc, in, 2, 1);
        }
      }
    }
  }
}

TEST(GemmTest, NormPrologue) {
  for (const int64_t rows : {1, 3, 128, 129, 300}) {
    for (const int64_t width : {1, 8, 33, 256}) {
      for (const Layout out_layout : kLayouts) {
        GemmDesc desc{rows, width, 29, Layout::kTokenMajor, out_layout};
        for (const bool bias : {false, true}) {
          ExpectCorrect(desc, MakeInputs(rows, desc, bias, /*norm=*/true), 2, 5);
        }
        desc.activation = Activation::kGeluTanh;
        ExpectCorrect(desc, MakeInputs(rows, desc, true, true), 1, 5);
        desc.activation = Activation::kNone;
        desc.accumulate = true;
        ExpectCorrect(desc, MakeInputs(rows, desc, true, true), 1, 5);
      }
    }
  }
}

TEST(GemmTest, ThreadsDoNotChangeTheResult) {
  for (const int64_t rows : {1, 100, 129, 1000}) {
    for (const Layout in_layout : kLayouts) {
      for (const Layout out_layout : kLayouts) {
        for (const bool norm : {false, true}) {
          if (norm && in_layout == Layout::kChannelMajor) continue;
          GemmDesc desc{rows, 96, 70, in_layout, out_layout, Activation::kGeluErf};
          SCOPED_TRACE(desc.ToString());
          const Inputs in = MakeInputs(rows, desc, true, norm);
          const Floats one = Evaluate(desc, in, 1);
          for (const int threads : {2, 3}) {
            EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, threads), one)) << threads;
          }
        }
      }
    }
  }
}

TEST(GemmTest, RejectsEachBadFieldWithItsValue) {
  const GemmDesc good{10, 20, 30};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, const std::vector<std::string>& values) {
    GemmDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), values)) << desc.ToString();
    reference::PoisonedStream stream(1, 0);
    EXPECT_TRUE(Rejected(RunGemm(desc, GemmArgs{}, *stream), values)) << desc.ToString();
  };
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value{std::to_string(bad)};
    expect_rejected([&](GemmDesc& d) { d.rows = bad; }, value);
    expect_rejected([&](GemmDesc& d) { d.in = bad; }, value);
    expect_rejected([&](GemmDesc& d) { d.out = bad; }, value);
  }
  expect_rejected(
      [](GemmDesc& d) {
        d.accumulate = true;
        d.activation = Activation::kGeluTanh;
      },
      {Name(Activation::kGeluTanh)});
}

TEST(GemmTest, NormOfChannelMajorInputIsRejected) {
  const GemmDesc desc{4, 3, 2, Layout::kChannelMajor};
  const Floats x(12), weight(6), scale(3);
  Floats out(8);
  const LayerNormWeights norm{scale.data(), scale.data(), 1e-5f};
  reference::PoisonedStream stream(1, 0);
  EXPECT_TRUE(Rejected(
      RunGemm(desc, {x.data(), 4, weight.data(), nullptr, &norm, out.data(), 2}, *stream), {}));
}

TEST(SgemmTest, TransposesStridesAndAccumulates) {
  for (const int64_t m : {1, 7, 64}) {
    for (const int64_t n : {1, 16, 33}) {
      for (const int64_t k : {1, 5, 100}) {
        // About 1, so that a product of one element does not cancel to nothing.
        const Floats a = Normal(1, m * k, 1, 1), b = Normal(2, k * n, 1, 1);
        const Floats c = Normal(3, m * n);
        // Linear takes B as (n, k).
        const Doubles product =
            reference::Linear(reference::ToDoubles(a), m, k, n, Transpose(b, k, n), {});
        for (const bool trans_a : {false, true}) {
          for (const bool trans_b : {false, true}) {
            for (const bool accumulate : {false, true}) {
              SCOPED_TRACE(::testing::Message()
                           << m << " " << n << " " << k << " transposed " << trans_a << trans_b
                           << " accumulate " << accumulate);
              Guarded A =
                  trans_a ? Guarded(Transpose(a, m, k), 1, k, m, 3) : Guarded(a, 1, m, k, 3);
              Guarded B =
                  trans_b ? Guarded(Transpose(b, k, n), 1, n, k, 2) : Guarded(b, 1, k, n, 2);
              Guarded C(1, m, n, 1);  // NaN: what is there must not be read
              Doubles expected = product;
              if (accumulate) {
                C.Set(c);
                for (size_t i = 0; i < expected.size(); ++i) expected[i] += c[i];
              }
              Sgemm(trans_a, trans_b, m, n, k, A.data(), A.channel_stride(), B.data(),
                    B.channel_stride(), accumulate, C.data(), C.channel_stride());
              EXPECT_TRUE(Near(C.Packed(), expected, reference::Tolerance(Device{})));
              EXPECT_TRUE(C.Intact());
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace longwave

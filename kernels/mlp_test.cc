#include "kernels/mlp.h"

#include <cmath>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Floats;
using reference::Guarded;
using reference::Near;
using reference::Normal;
using reference::Rejected;

struct Inputs {
  Floats x, scale, shift, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
  float eps = 1e-5f;
};

// Weights that make what is added as large as x, so that x does not hide it.
Inputs MakeInputs(uint64_t seed, const MlpDesc& desc) {
  Inputs in;
  in.x = Normal(seed, desc.rows * desc.width);
  in.scale = Normal(seed + 1, desc.width);
  in.shift = Normal(seed + 2, desc.width);
  in.fc1_weight = Normal(seed + 3, desc.inner * desc.width, 1 / std::sqrt(desc.width));
  in.fc1_bias = Normal(seed + 4, desc.inner);
  in.fc2_weight = Normal(seed + 5, desc.width * desc.inner, 2 / std::sqrt(desc.inner));
  in.fc2_bias = Normal(seed + 6, desc.width);
  return in;
}

Floats Evaluate(const MlpDesc& desc, const Inputs& in, int threads = 1) {
  Guarded x(in.x), scale(in.scale), shift(in.shift);
  Guarded fc1_weight(in.fc1_weight), fc1_bias(in.fc1_bias);
  Guarded fc2_weight(in.fc2_weight), fc2_bias(in.fc2_bias);
  reference::PoisonedStream stream(threads, desc.scratch_floats());
  const absl::Status status = RunMlp(desc,
                                     {x.data(),
                                      {scale.data(), shift.data(), in.eps},
                                      fc1_weight.data(),
                                      fc1_bias.data(),
                                      fc2_weight.data(),
                                      fc2_bias.data()},
                                     *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  for (const Guarded* buffer :
       {&x, &scale, &shift, &fc1_weight, &fc1_bias, &fc2_weight, &fc2_bias}) {
    EXPECT_TRUE(buffer->Intact());
  }
  return x.Packed();
}

void ExpectCorrect(const MlpDesc& desc, const Inputs& in, int threads = 1) {
  SCOPED_TRACE(desc.ToString());
  EXPECT_TRUE(
      Near(Evaluate(desc, in, threads),
           reference::Mlp(in.x, desc.rows, desc.width, desc.inner, desc.activation, in.scale,
                          in.shift, in.eps, in.fc1_weight, in.fc1_bias, in.fc2_weight, in.fc2_bias),
           reference::Tolerance(Device{})));
}

TEST(MlpTest, Rows) {
  for (const int64_t rows : {1, 2, 3, 17, 63, 64, 65, 127, 128, 129, 300, 1000}) {
    const MlpDesc desc{rows, 24, 96};
    ExpectCorrect(desc, MakeInputs(rows, desc), 2);
  }
}

TEST(MlpTest, WidthsAndActivations) {
  for (const int64_t width : {1, 7, 64, 129}) {
    for (const int64_t inner : {1, 16, 33, 516}) {
      for (const auto activation :
           {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf}) {
        const MlpDesc desc{20, width, inner, activation};
        ExpectCorrect(desc, MakeInputs(width + inner, desc));
      }
    }
  }
}

TEST(MlpTest, ThreadsDoNotChangeTheResult) {
  for (const int64_t rows : {1, 100, 129, 700}) {
    const MlpDesc desc{rows, 32, 128};
    const Inputs in = MakeInputs(rows, desc);
    const Floats one = Evaluate(desc, in);
    for (const int threads : {2, 3})
      EXPECT_TRUE(BitwiseEqual(Evaluate(desc, in, threads), one)) << rows;
  }
}

TEST(MlpTest, UsesItsEpsilon) {
  const MlpDesc desc{10, 16, 32};
  Inputs in = MakeInputs(1, desc);
  for (float& x : in.x) x *= 1e-2f;
  in.eps = 1e-2f;
  ExpectCorrect(desc, in);
}

TEST(MlpTest, RejectsEachBadFieldWithItsValue) {
  const MlpDesc good{10, 20, 30};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, int64_t value) {
    MlpDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {std::to_string(value)})) << desc.ToString();
    reference::PoisonedStream stream(1, 0);
    EXPECT_TRUE(Rejected(RunMlp(desc, MlpArgs{}, *stream), {std::to_string(value)}));
  };
  for (const int64_t bad : {0, -1, -7177}) {
    expect_rejected([&](MlpDesc& d) { d.rows = bad; }, bad);
    expect_rejected([&](MlpDesc& d) { d.width = bad; }, bad);
    expect_rejected([&](MlpDesc& d) { d.inner = bad; }, bad);
  }
}

}  // namespace
}  // namespace longwave

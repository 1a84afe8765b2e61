// AdvanceState on a GPU, or in the emulator.
#include "kernels/advance_state.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::DeviceData;
using reference::Floats;
using reference::GpuStream;
using reference::Near;
using reference::Normal;

class AdvanceStateCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!stream_.ok()) GTEST_SKIP() << "no GPU";
  }
  GpuStream stream_;
};

TEST_F(AdvanceStateCuda, AnyLengthAndShape) {
  for (const int64_t length :
       {int64_t{1}, int64_t{2}, int64_t{63}, int64_t{100003}, int64_t{1} << 24, int64_t{1} << 40}) {
    for (const auto& [batch, per_filter, pairs] :
         {std::tuple{1, 1, 32}, {3, 4, 5}, {2, 64, 33}, {1, 1, 1}}) {
      const AdvanceStateDesc desc{batch, 3 * per_filter, per_filter, pairs, length};
      SCOPED_TRACE(desc.ToString());
      DiagonalSsm ssm = reference::S4dLin(7, 3, pairs);
      if (length < int64_t{1} << 30) ssm.a[0] = std::polar(1.0, 0.7);
      const int64_t count = batch * desc.channels * 2 * pairs;
      const Floats in = Normal(1, count), local = Normal(2, count);
      auto filter = SsmFilter::Create(ssm);
      ASSERT_TRUE(filter.ok());
      DeviceData a(stream_, Dtype::kFloat32, in), b(stream_, Dtype::kFloat32, local);
      DeviceData out(stream_, Dtype::kFloat32, 1, count);
      EXPECT_TRUE(absl::IsInvalidArgument(
          RunAdvanceState(desc, *filter, {a.floats(), b.floats(), out.floats()}, *stream_)));
      ASSERT_TRUE(filter->Upload(*stream_, Dtype::kBFloat16).ok());
      ASSERT_EQ(RunAdvanceState(desc, *filter, {a.floats(), b.floats(), out.floats()}, *stream_),
                absl::OkStatus());
      const Floats got = out.Get();
      // a is there to 2^-48.
      const double tolerance = 1e-7 + static_cast<double>(length) * 0x1p-47;
      EXPECT_TRUE(Near(got, reference::AdvanceState(ssm, desc, in, local),
                       length < int64_t{1} << 30 ? tolerance : 1e-7));
      EXPECT_TRUE(BitwiseEqual(a.Get(), in));
      EXPECT_TRUE(BitwiseEqual(b.Get(), local));
      ASSERT_EQ(RunAdvanceState(desc, *filter, {a.floats(), b.floats(), b.floats()}, *stream_),
                absl::OkStatus());
      ASSERT_EQ(RunAdvanceState(desc, *filter, {a.floats(), out.floats(), a.floats()}, *stream_),
                absl::OkStatus());
      EXPECT_TRUE(BitwiseEqual(b.Get(), got));
      for (DeviceData* data : {&a, &b, &out}) EXPECT_TRUE(data->Intact());
    }
  }
}

}  // namespace
}  // namespace longwave

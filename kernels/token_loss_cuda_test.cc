#include <cmath>
#include <random>

#include "kernels/testing/device_data.h"
#include "kernels/token_loss.h"

namespace longwave {
namespace {

using reference::DeviceData;
using reference::Doubles;
using reference::Floats;
using reference::GpuStream;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

// Sums are float32 for every dtype, so the loss is right to float32's tolerance.
void ExpectCorrect(GpuStream& stream, const TokenLossDesc& desc, double scale = 1,
                   double tolerance = 2e-6) {
  SCOPED_TRACE(desc.ToString());
  std::mt19937_64 random(desc.rows + desc.vocab);
  const Floats hidden =
      RoundTo(Normal(random(), desc.rows * desc.width, scale / std::sqrt(desc.width)), desc.dtype);
  const Floats embedding = RoundTo(Normal(random(), desc.vocab * desc.width), desc.dtype);
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < desc.rows; ++r) {
    targets.push_back(static_cast<int32_t>(random() % desc.vocab));
  }
  targets.front() = static_cast<int32_t>(desc.vocab - 1);
  targets.back() = 0;
  DeviceData gh(stream, desc.dtype, hidden), ge(stream, desc.dtype, embedding);
  DeviceData nll(stream, Dtype::kFloat32, 1, desc.rows);
  const reference::DeviceIntegers<int32_t> gt(stream, targets);
  const absl::Status status =
      RunTokenLoss(desc, {gh.data(), ge.data(), gt.data(), nll.floats()}, *stream);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(nll.Intact());
  EXPECT_TRUE(
      Near(nll.Get(),
           reference::TokenLoss(desc.rows, desc.width, desc.vocab, hidden, embedding, targets),
           tolerance));
}

TEST(TokenLossCudaTest, RowsVocabulariesAndTypes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    for (const int64_t rows : {2, 67}) {
      for (const int64_t vocab : {2, 12, 255, 1001, 2050}) {
        ExpectCorrect(stream, {rows, 24, vocab, dtype});
      }
    }
    ExpectCorrect(stream, {5, 7, 4099, dtype});
  }
}

TEST(TokenLossCudaTest, SlicesOfTheVocabulary) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  ExpectCorrect(stream, {2, 3, 131073, Dtype::kBFloat16});
  ExpectCorrect(stream, {3, 2, 262147, Dtype::kFloat32});
}

TEST(TokenLossCudaTest, TilesOfRows) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  ExpectCorrect(stream, {4099, 2, 5, Dtype::kFloat32});
}

// Logits of some hundreds, where 16-bit logits would be off by one.
TEST(TokenLossCudaTest, LargeLogits) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  ExpectCorrect(stream, {40, 16, 900, Dtype::kFloat32}, 100);
  ExpectCorrect(stream, {40, 16, 900, Dtype::kBFloat16}, 100);
}

TEST(TokenLossCudaTest, ATargetThatIsNoTokenGivesNan) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  DeviceData hidden(stream, Dtype::kFloat32, Floats(8, 1)),
      embedding(stream, Dtype::kFloat32, Floats(12, 1)), nll(stream, Dtype::kFloat32, 1, 2);
  const reference::DeviceIntegers<int32_t> targets(stream, {3, -1});
  ASSERT_TRUE(RunTokenLoss({2, 4, 3},
                           {hidden.data(), embedding.data(), targets.data(), nll.floats()}, *stream)
                  .ok());
  for (const float value : nll.Get()) EXPECT_TRUE(std::isnan(value));
}

TEST(TokenLossCudaTest, ModelShape) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  if (stream.emulated()) GTEST_SKIP() << "too slow in the emulator";
  ExpectCorrect(stream, {33, 768, 50264, Dtype::kBFloat16}, 3);
  ExpectCorrect(stream, {4100, 64, 5000, Dtype::kBFloat16}, 3);
}

}  // namespace
}  // namespace longwave

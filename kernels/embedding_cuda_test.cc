#include <cmath>
#include <random>

#include "kernels/embedding.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::DeviceData;
using reference::DeviceIntegers;
using reference::Floats;
using reference::GpuStream;
using reference::Normal;
using reference::RoundTo;

TEST(EmbeddingCudaTest, CopiesRowsOfEveryType) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    for (const int64_t width : {1, 8, 33, 768}) {
      for (const int64_t shift : {0, 1}) {
        constexpr int64_t kVocab = 11;
        const Floats table = RoundTo(Normal(width, kVocab * width), dtype);
        DeviceData gtable(stream, dtype, table, 1, 0, shift);
        const std::vector<int32_t> tokens = {10, 0, 3, 3, 7};
        const DeviceIntegers<int32_t> gtokens(stream, tokens);
        DeviceData x(stream, Dtype::kFloat32, 5, width, 0, shift);
        ASSERT_TRUE(RunEmbedding(5, width, kVocab, dtype, gtable.data(), gtokens.data(), x.floats(),
                                 *stream)
                        .ok());
        Floats expected;
        for (const int32_t token : tokens) {
          expected.insert(expected.end(), table.begin() + token * width,
                          table.begin() + (token + 1) * width);
        }
        EXPECT_TRUE(BitwiseEqual(x.Get(), expected)) << width;
        EXPECT_TRUE(x.Intact());
      }
    }
  }
}

TEST(EmbeddingCudaTest, ATokenOutsideGivesNan) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  DeviceData table(stream, Dtype::kFloat32, Floats(16, 1)), x(stream, Dtype::kFloat32, 3, 8);
  const DeviceIntegers<int32_t> tokens(stream, {2, -1, 1});
  ASSERT_TRUE(
      RunEmbedding(3, 8, 2, Dtype::kFloat32, table.data(), tokens.data(), x.floats(), *stream)
          .ok());
  const Floats out = x.Get();
  for (int i = 0; i < 24; ++i) EXPECT_EQ(std::isnan(out[i]), i < 16);
}

TEST(EmbeddingCudaTest, GathersTheLastRows) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  const Floats x = RoundTo(Normal(1, 12 * 7), Dtype::kBFloat16);
  DeviceData gx(stream, Dtype::kBFloat16, x), out(stream, Dtype::kBFloat16, 3, 7);
  ASSERT_TRUE(RunGatherRows(3, 7, Dtype::kBFloat16, gx.data(), 3, 4, out.data(), *stream).ok());
  Floats expected;
  for (const int row : {3, 7, 11}) {
    expected.insert(expected.end(), x.begin() + row * 7, x.begin() + (row + 1) * 7);
  }
  EXPECT_TRUE(BitwiseEqual(out.Get(), expected));
}

TEST(ArgmaxCudaTest, FirstOfTheLargest) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const int64_t vocab : {1, 2, 31, 33, 1000, 5003}) {
    constexpr int64_t kRows = 4;
    const int64_t stride = vocab + 3;
    Floats logits = Normal(vocab, kRows * stride);
    std::vector<int32_t> expected;
    for (int64_t r = 0; r < kRows; ++r) {
      float* row = logits.data() + r * stride;
      const int64_t best = r * 7919 % vocab;
      row[best] = 100;
      if (best + 1 < vocab) row[vocab - 1] = 100;  // as large, later
      if (best > 0) row[0] = NAN;
      for (int i = 0; i < 3; ++i) row[vocab + i] = 1000;
      expected.push_back(static_cast<int32_t>(best));
    }
    DeviceData glogits(stream, Dtype::kFloat32, logits);
    DeviceIntegers<int32_t> tokens(stream, std::vector<int32_t>(kRows, -1));
    DeviceIntegers<int32_t> history(stream, std::vector<int32_t>(kRows * 5, -1));
    DeviceIntegers<int64_t> step(stream, {1});
    ASSERT_TRUE(RunAdvance(step.data(), 2, *stream).ok());
    ASSERT_TRUE(RunArgmax(kRows, vocab,
                          {glogits.floats(), stride, tokens.data(), history.data(), 5, step.data()},
                          *stream)
                    .ok());
    EXPECT_EQ(tokens.Get(), expected) << vocab;
    const std::vector<int32_t> written = history.Get();
    for (int64_t i = 0; i < kRows * 5; ++i) {
      EXPECT_EQ(written[i], i % 5 == 3 ? expected[i / 5] : -1);
    }
    EXPECT_EQ(step.Get()[0], 3);
  }
}

}  // namespace
}  // namespace longwave

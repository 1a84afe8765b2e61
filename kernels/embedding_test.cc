#include "kernels/embedding.h"

#include <limits>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::Floats;
using reference::Guarded;
using reference::Normal;
using reference::PoisonedStream;
using reference::Rejected;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows `rows` of x (…, width).
Floats Pick(const Floats& x, int64_t width, const std::vector<int32_t>& rows) {
  Floats out;
  for (const int32_t row : rows) {
    out.insert(out.end(), x.begin() + row * width, x.begin() + (row + 1) * width);
  }
  return out;
}

TEST(EmbeddingTest, CopiesRows) {
  PoisonedStream stream(2, 0);
  constexpr int64_t kVocab = 11;
  for (const int64_t width : {1, 2, 7, 8, 33, 768}) {
    for (const std::vector<int32_t>& tokens :
         {std::vector<int32_t>{5}, std::vector<int32_t>{10, 0, 3, 3, 7}}) {
      const Floats values = Normal(width, kVocab * width);
      const auto rows = static_cast<int64_t>(tokens.size());
      Guarded table(values), x(rows * width);
      const absl::Status status = RunEmbedding(rows, width, kVocab, Dtype::kFloat32, table.data(),
                                               tokens.data(), x.data(), *stream);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(BitwiseEqual(x.Packed(), Pick(values, width, tokens))) << width;
      EXPECT_TRUE(table.Intact());
      EXPECT_TRUE(x.Intact());
    }
  }
  EXPECT_TRUE(stream.ScratchKept());
}

TEST(EmbeddingTest, RejectsTokensOutsideTheVocabulary) {
  PoisonedStream stream(1, 0);
  const Floats table(3 * 4, 1.0f);
  for (const int32_t bad : {-1, 3, 7177}) {
    const std::vector<int32_t> tokens = {2, bad};
    Guarded x(2 * 4);
    EXPECT_TRUE(Rejected(
        RunEmbedding(2, 4, 3, Dtype::kFloat32, table.data(), tokens.data(), x.data(), *stream),
        {std::to_string(bad)}));
    EXPECT_TRUE(x.Intact());
  }
}

TEST(EmbeddingTest, RejectsBadSizesAndTypesWithTheirValues) {
  PoisonedStream stream(1, 0);
  const auto run = [&](int64_t rows, int64_t width, int64_t vocab, Dtype dtype) {
    return RunEmbedding(rows, width, vocab, dtype, nullptr, nullptr, nullptr, *stream);
  };
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value = {std::to_string(bad)};
    EXPECT_TRUE(Rejected(run(bad, 2, 3, Dtype::kFloat32), value));
    EXPECT_TRUE(Rejected(run(1, bad, 3, Dtype::kFloat32), value));
    EXPECT_TRUE(Rejected(run(1, 2, bad, Dtype::kFloat32), value));
  }
  for (const Dtype dtype : {Dtype::kBFloat16, Dtype::kFloat16}) {
    EXPECT_TRUE(Rejected(run(1, 2, 3, dtype), {Name(dtype)}));
  }
}

TEST(GatherRowsTest, EveryStepthRow) {
  PoisonedStream stream(1, 0);
  for (const int64_t width : {1, 7, 64}) {
    const Floats values = Normal(width, 12 * width);
    Guarded x(values), out(3 * width);
    ASSERT_TRUE(RunGatherRows(3, width, Dtype::kFloat32, x.data(), 3, 4, out.data(), *stream).ok());
    EXPECT_TRUE(BitwiseEqual(out.Packed(), Pick(values, width, {3, 7, 11})));
    EXPECT_TRUE(out.Intact());
  }
}

// Rows are copied, not computed with: any type will do.
TEST(GatherRowsTest, RowsOf16Bits) {
  PoisonedStream stream(1, 0);
  const std::vector<uint16_t> x = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::vector<uint16_t> out(7, 99);
  ASSERT_TRUE(RunGatherRows(2, 3, Dtype::kBFloat16, x.data(), 0, 2, out.data(), *stream).ok());
  EXPECT_EQ(out, (std::vector<uint16_t>{1, 2, 3, 7, 8, 9, 99}));
}

TEST(GatherRowsTest, RejectsBadSizesWithTheirValues) {
  PoisonedStream stream(1, 0);
  const auto run = [&](int64_t count, int64_t width, int64_t first, int64_t step) {
    return RunGatherRows(count, width, Dtype::kFloat32, nullptr, first, step, nullptr, *stream);
  };
  for (const int64_t bad : {-1, -7177}) {
    const std::vector<std::string> value = {std::to_string(bad)};
    EXPECT_TRUE(Rejected(run(bad, 1, 0, 1), value));
    EXPECT_TRUE(Rejected(run(1, bad, 0, 1), value));
    EXPECT_TRUE(Rejected(run(1, 1, bad, 1), value));
    EXPECT_TRUE(Rejected(run(1, 1, 0, bad), value));
  }
}

TEST(ArgmaxTest, FirstOfTheLargest) {
  PoisonedStream stream(1, 0);
  for (const int64_t vocab : {1, 2, 31, 1000}) {
    constexpr int64_t kRows = 4;
    const int64_t stride = vocab + 3;
    Floats logits = Normal(vocab, kRows * stride);
    std::vector<int32_t> expected;
    for (int64_t r = 0; r < kRows; ++r) {
      float* row = logits.data() + r * stride;
      const int64_t best = r * 7919 % vocab;
      row[best] = 100;
      if (best + 1 < vocab) row[vocab - 1] = 100;        // as large, later
      if (best > 0) row[0] = kNan;                       // never wins
      for (int i = 0; i < 3; ++i) row[vocab + i] = 1e6;  // between rows
      expected.push_back(static_cast<int32_t>(best));
    }
    std::vector<int32_t> tokens(kRows, -1);
    ASSERT_TRUE(RunArgmax(kRows, vocab,
                          {.logits = logits.data(), .stride = stride, .tokens = tokens.data()},
                          *stream)
                    .ok());
    EXPECT_EQ(tokens, expected) << vocab;
  }
}

TEST(ArgmaxTest, NothingToChooseFrom) {
  PoisonedStream stream(1, 0);
  const Floats logits = {kNan,       kNan, kNan,       -kInfinity, -kInfinity,
                         -kInfinity, kNan, -kInfinity, -1e30f};
  std::vector<int32_t> tokens(3, -1);
  ASSERT_TRUE(
      RunArgmax(3, 3, {.logits = logits.data(), .stride = 3, .tokens = tokens.data()}, *stream)
          .ok());
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 0, 2}));
}

TEST(ArgmaxTest, HistoryAtTheStepThatAdvances) {
  PoisonedStream stream(1, 0);
  constexpr int64_t kRows = 2, kSteps = 3, kVocab = 5;
  std::vector<int32_t> tokens(kRows), history(kRows * kSteps, -1), expected(kRows * kSteps);
  int64_t step = 0;
  for (int64_t i = 0; i < kSteps; ++i) {
    Floats logits(kRows * kVocab, 0.0f);
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t best = (i + 2 * r) % kVocab;
      logits[r * kVocab + best] = 1;
      expected[r * kSteps + i] = static_cast<int32_t>(best);
    }
    ASSERT_TRUE(RunArgmax(kRows, kVocab,
                          {logits.data(), kVocab, tokens.data(), history.data(), kSteps, &step},
                          *stream)
                    .ok());
    ASSERT_TRUE(RunAdvance(&step, 1, *stream).ok());
  }
  EXPECT_EQ(history, expected);
  EXPECT_EQ(step, kSteps);
  ASSERT_TRUE(RunAdvance(&step, -5, *stream).ok());
  EXPECT_EQ(step, kSteps - 5);
}

TEST(ArgmaxTest, RejectsBadSizesWithTheirValues) {
  PoisonedStream stream(1, 0);
  for (const int64_t bad : {0, -1, -7177}) {
    const std::vector<std::string> value = {std::to_string(bad)};
    EXPECT_TRUE(Rejected(RunArgmax(bad, 3, {.stride = 3}, *stream), value));
    EXPECT_TRUE(Rejected(RunArgmax(1, bad, {.stride = 3}, *stream), value));
    EXPECT_TRUE(Rejected(RunArgmax(1, 3, {.stride = bad}, *stream), value));
  }
  EXPECT_TRUE(Rejected(RunArgmax(1, 3, {.stride = 2}, *stream), {"2", "3"}));
}

}  // namespace
}  // namespace longwave

#include "scheduler/chunk_plan.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

TEST(ChunkPlan, CoversTheSequenceOnceInOrder) {
  for (int64_t length : {1, 2, 6, 7, 8, 100}) {
    for (int64_t chunk : {1, 2, 7, 100, 1000}) {
      const ChunkPlan plan{length, chunk};
      ASSERT_TRUE(plan.Validate().ok());
      int64_t next = 0;
      for (int64_t k = 0; k < plan.count(); ++k) {
        const ChunkRange range = plan.Range(k);
        EXPECT_EQ(range.begin, next) << plan.ToString();
        EXPECT_GE(range.tokens(), 1);
        EXPECT_LE(range.tokens(), chunk);
        EXPECT_EQ(plan.ChunkOf(range.begin), k);
        EXPECT_EQ(plan.ChunkOf(range.end - 1), k);
        next = range.end;
      }
      EXPECT_EQ(next, length) << plan.ToString();
      EXPECT_EQ(plan.last_tokens(), length - (plan.count() - 1) * chunk);
    }
  }
}

TEST(ChunkPlan, OffsetsAre64Bit) {
  const ChunkPlan plan{10'000'000'000, 8192};
  EXPECT_EQ(plan.count(), 1'220'704);
  EXPECT_EQ(plan.last_tokens(), 10'000'000'000 - int64_t{1'220'703} * 8192);
  EXPECT_EQ(plan.Range(1'220'703).begin, 9'999'998'976);
}

TEST(ChunkPlan, TheLargestLengthsDoNotOverflow) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_EQ((ChunkPlan{most, most}).count(), 1);
  EXPECT_EQ((ChunkPlan{most, most - 1}).Range(1).tokens(), 1);
  EXPECT_EQ((ChunkPlan{5, most}).Range(0).end, 5);
}

TEST(ChunkPlan, RefusesWithTheValue) {
  EXPECT_THAT((ChunkPlan{10, 0}).Validate().message(), HasSubstr("chunk 0"));
  EXPECT_THAT((ChunkPlan{10, -3}).Validate().message(), HasSubstr("chunk -3"));
  EXPECT_THAT((ChunkPlan{0, 8}).Validate().message(), HasSubstr("length 0"));
}

TEST(ChunkPlan, Prints) {
  EXPECT_EQ((ChunkPlan{20, 8}).ToString(), "20 tokens in 3 chunks of 8, the last of 4");
}

}  // namespace
}  // namespace longwave

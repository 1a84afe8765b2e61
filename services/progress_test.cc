#include "services/progress.h"

#include <cstdio>

#include "gtest/gtest.h"

namespace longwave {
namespace {

const ProgressState kHalf = {1'000'000, 20, 0.5};

TEST(Progress, BarSaysHowFarHowFastHowLong) {
  EXPECT_EQ(ProgressBar(kHalf, 67),
            "[#####.....]  50 %  1,000,000 tokens  50,000 tokens/s  20.0 s left");
}

TEST(Progress, BarFitsAnyWidth) {
  for (int columns = 0; columns < 200; ++columns) {
    EXPECT_LE(ProgressBar(kHalf, columns).size(), columns);
  }
  EXPECT_EQ(ProgressBar(kHalf, 10), " 50 %  1,0");
}

TEST(Progress, UnknownFractionHasNoBar) {
  EXPECT_EQ(ProgressBar({1000, 2, -1}, 80), "1,000 tokens  500 tokens/s");
  EXPECT_EQ(ProgressLine({1000, 2, -1}), "1,000 tokens, 500 tokens/s");
}

TEST(Progress, NothingDoneYetDividesByNothing) {
  EXPECT_EQ(ProgressLine({0, 0, 0}), "0 tokens (0 %), 0 tokens/s");
}

TEST(Progress, Line) {
  EXPECT_EQ(ProgressLine(kHalf), "1,000,000 tokens (50 %), 50,000 tokens/s, 20.0 s left");
}

TEST(Progress, WhatWasThereBeforeTookNoTime) {
  EXPECT_EQ(ProgressLine({1'000'000, 20, 0.5, 900'000}),
            "1,000,000 tokens (50 %), 5,000 tokens/s, 3:20 left");
  EXPECT_EQ(ProgressLine({900'000, 1, 0.5, 900'000}), "900,000 tokens (50 %), 0 tokens/s");
}

TEST(Progress, StepsOfTheFractionAreFilledIn) {
  SteadyFraction steady;
  EXPECT_EQ(steady.Update(10, 0.25), -1);  // a block is read: what it holds is not known
  EXPECT_EQ(steady.Update(50, 0.25), -1);
  EXPECT_DOUBLE_EQ(steady.Update(100, 0.5), 0.25);  // it held 100
  EXPECT_DOUBLE_EQ(steady.Update(150, 0.5), 0.375);
  EXPECT_DOUBLE_EQ(steady.Update(300, 0.5), 0.5);  // never past what is read
  EXPECT_EQ(SteadyFraction().Update(10, -1), -1);
}

TEST(Progress, ShortRunsPrintNoLines) {
  std::FILE* out = std::tmpfile();
  ASSERT_NE(out, nullptr);
  {
    Progress progress(Progress::Style::kLines, out);
    for (int i = 0; i < 1000; ++i) progress.Update(i, i / 1000.0);
  }
  EXPECT_EQ(std::ftell(out), 0);
  std::fclose(out);
}

}  // namespace
}  // namespace longwave

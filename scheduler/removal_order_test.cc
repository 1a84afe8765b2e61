#include "scheduler/removal_order.h"

#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(RemovalOrder, TheMuchYoungerGoesFirstAndThenTheUidDecides) {
  const int64_t now = 1'000'000;
  const RemovalRank old_one = {now - 400'000, "a"}, as_old = {now - 300'000, "b"},
                    young = {now - 30'000, "c"}, ahead = {now + 5, "d"};
  EXPECT_TRUE(RemovedBefore(young, old_one, now));
  EXPECT_FALSE(RemovedBefore(old_one, young, now));
  EXPECT_TRUE(RemovedBefore(old_one, as_old, now));  // 2^38 to 2^39 ns, both
  EXPECT_FALSE(RemovedBefore(as_old, old_one, now));
  EXPECT_FALSE(RemovedBefore(old_one, old_one, now));
  EXPECT_TRUE(RemovedBefore(ahead, young, now));  // a clock that was set back
}

}  // namespace
}  // namespace longwave

#include "scheduler/sequences.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(SequencesTest, EachChunkIsWhereAPlainWalkFindsIt) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const int64_t chunk = 1 + static_cast<int64_t>(random() % 7), made = random() % 3;
    std::vector<SequenceRow> rows;
    std::vector<ChunkPlace> places;
    int64_t number = 0, token = 0;
    for (int r = 1 + static_cast<int>(random() % 4); r > 0; --r) {
      SequenceRow& row = rows.emplace_back();
      row.given = 1 + static_cast<int64_t>(random() % 30);
      row.length = row.given + made;
      row.repeats = 1 + static_cast<int64_t>(random() % 3);
      for (int64_t i = 0; i < row.repeats; ++i, ++number, token += row.given) {
        for (int64_t first = 0; first < row.length; first += chunk) {
          places.push_back(
              {number, first, std::min(chunk, row.length - first), row.length, row.given, token});
        }
      }
    }
    ASSERT_EQ(PlaceSequences(chunk, rows), static_cast<int64_t>(places.size()));
    for (size_t i = 0; i < places.size(); ++i) {
      const auto row = std::find_if(rows.rbegin(), rows.rend(), [&](const SequenceRow& candidate) {
        return candidate.first_chunk <= static_cast<int64_t>(i);
      });
      EXPECT_EQ(PlaceOf(*row, chunk, static_cast<int64_t>(i)), places[i]) << round << " " << i;
      EXPECT_EQ(places[i].ends(), i + 1 == places.size() || places[i + 1].first == 0);
    }
  }
}

}  // namespace
}  // namespace longwave

#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <random>

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

// One chunk: appends to the cache.
Floats Evaluate(const AttentionDesc& desc, const Floats& qkv, KvCache& cache, int threads = 1) {
  SCOPED_TRACE(desc.ToString());
  const int64_t before = cache.tokens();
  Guarded in(qkv), out(desc.length * desc.width());
  reference::PoisonedStream stream(threads, desc.scratch_floats());
  const absl::Status status = RunAttention(desc, in.data(), cache, out.data(), *stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(stream.ScratchKept());
  EXPECT_TRUE(in.Intact());
  EXPECT_TRUE(out.Intact());
  EXPECT_EQ(cache.tokens(), before + desc.length);
  return out.Packed();
}

Floats Evaluate(const AttentionDesc& desc, const Floats& qkv, int threads = 1) {
  KvCache cache(desc.heads, desc.head_dim);
  return Evaluate(desc, qkv, cache, threads);
}

Floats MakeQkv(uint64_t seed, const AttentionDesc& desc, double scale = 1) {
  return Normal(seed, desc.length * 3 * desc.width(), scale);
}

Doubles Expected(const AttentionDesc& desc, const Floats& qkv) {
  return reference::Attention(desc.heads, desc.head_dim, desc.rotary_dim, desc.length, qkv);
}

TEST(AttentionTest, Lengths) {
  for (const int64_t length :
       {1, 2, 3, 5, 15, 16, 17, 33, 63, 64, 65, 127, 129, 255, 256, 257, 511, 513, 900}) {
    for (const int64_t rotary_dim : {0, 4, 8}) {
      const AttentionDesc desc{2, 8, length, rotary_dim};
      const Floats qkv = MakeQkv(length, desc);
      EXPECT_TRUE(Near(Evaluate(desc, qkv), Expected(desc, qkv), reference::Tolerance(Device{})))
          << desc.ToString();
    }
  }
}

TEST(AttentionTest, HeadsAndHeadDims) {
  for (const int64_t heads : {1, 2, 5, 12}) {
    for (const int64_t head_dim : {1, 2, 7, 16, 33, 64, 80}) {
      for (const int64_t rotary_dim : {int64_t{0}, int64_t{2}, head_dim / 2 * 2}) {
        if (rotary_dim > head_dim) continue;
        for (const int64_t length : {1, 40}) {
          const AttentionDesc desc{heads, head_dim, length, rotary_dim};
          const Floats qkv = MakeQkv(heads + head_dim, desc);
          EXPECT_TRUE(
              Near(Evaluate(desc, qkv, 2), Expected(desc, qkv), reference::Tolerance(Device{})))
              << desc.ToString();
        }
      }
    }
  }
}

// Scores in the hundreds: exp overflows unless the largest is taken off, and the largest moves.
TEST(AttentionTest, LargeScores) {
  const AttentionDesc desc{2, 16, 300, 0};
  Floats qkv = MakeQkv(1, desc, 8);
  // A float32 score of 300 is off by 300 x 2^-24 = 2e-5, and its exponential with it.
  EXPECT_TRUE(Near(Evaluate(desc, qkv), Expected(desc, qkv), 1e-4));
  // Keys that grow with time: every page brings a new largest.
  for (int64_t t = 0; t < desc.length; ++t) {
    for (int64_t i = 0; i < 32; ++i) {
      qkv[t * 96 + i] = 1;
      qkv[t * 96 + 32 + i] = static_cast<float>(t) * 0.25f;  // scores t: exact in float32
    }
  }
  EXPECT_TRUE(Near(Evaluate(desc, qkv), Expected(desc, qkv), reference::Tolerance(Device{})));
  // And that fall, so that all that comes later counts for nothing.
  for (float& value : qkv) value = -value;
  for (int64_t t = 0; t < desc.length; ++t) std::fill_n(qkv.begin() + t * 96, 32, 1.0f);
  EXPECT_TRUE(Near(Evaluate(desc, qkv), Expected(desc, qkv), reference::Tolerance(Device{})));
}

// Equal keys average the values seen so far; nothing of the future comes in.
TEST(AttentionTest, EqualScoresAverageThePast) {
  const AttentionDesc desc{1, 4, 600, 0};
  Floats qkv = MakeQkv(2, desc);
  for (int64_t t = 0; t < desc.length; ++t) std::fill_n(qkv.begin() + t * 12 + 4, 4, 0.0f);
  const Floats out = Evaluate(desc, qkv);
  Doubles expected, sum(4);
  for (int64_t t = 0; t < desc.length; ++t) {
    for (int64_t i = 0; i < 4; ++i) {
      sum[i] += qkv[t * 12 + 8 + i];
      expected.push_back(sum[i] / static_cast<double>(t + 1));
    }
  }
  EXPECT_TRUE(Near(out, expected, reference::Tolerance(Device{})));
}

TEST(AttentionTest, TheFutureDoesNotMatter) {
  const AttentionDesc desc{2, 8, 400, 8};
  Floats qkv = MakeQkv(3, desc);
  const Floats before = Evaluate(desc, qkv);
  for (size_t i = 300 * 48; i < qkv.size(); ++i) qkv[i] = 1e4f;
  const Floats after = Evaluate(desc, qkv);
  EXPECT_TRUE(BitwiseEqual(Floats(after.begin(), after.begin() + 300 * 16),
                           Floats(before.begin(), before.begin() + 300 * 16)));
}

TEST(AttentionTest, ThreadsDoNotChangeTheResult) {
  for (const AttentionDesc& desc :
       {AttentionDesc{1, 16, 700, 0}, AttentionDesc{5, 8, 300, 4}, AttentionDesc{7, 4, 1, 0}}) {
    const Floats qkv = MakeQkv(4, desc);
    const Floats one = Evaluate(desc, qkv);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(BitwiseEqual(Evaluate(desc, qkv, threads), one)) << desc.ToString();
    }
  }
}

void ExpectSplitCorrect(uint64_t seed, const AttentionDesc& whole,
                        const std::vector<int64_t>& chunks) {
  SCOPED_TRACE(whole.ToString() + " in " + ::testing::PrintToString(chunks));
  const Floats qkv = MakeQkv(seed, whole);
  KvCache cache(whole.heads, whole.head_dim);
  Floats out;
  int64_t begin = 0;
  for (const int64_t length : chunks) {
    AttentionDesc desc = whole;
    desc.length = length;
    const auto first = qkv.begin() + begin * 3 * whole.width();
    const Floats chunk =
        Evaluate(desc, Floats(first, first + length * 3 * whole.width()), cache, 1 + begin % 2);
    out.insert(out.end(), chunk.begin(), chunk.end());
    begin += length;
  }
  EXPECT_EQ(cache.tokens(), whole.length);
  EXPECT_TRUE(Near(out, Expected(whole, qkv), reference::Tolerance(Device{})));
}

TEST(AttentionTest, AnySplitGivesTheWhole) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    const int64_t head_dim = 2 * (1 + static_cast<int64_t>(random() % 8));
    const AttentionDesc whole{1 + static_cast<int64_t>(random() % 3), head_dim,
                              1 + static_cast<int64_t>(random() % 800),
                              2 * static_cast<int64_t>(random() % (head_dim / 2 + 1))};
    ExpectSplitCorrect(seed, whole, reference::RandomSplit(seed, whole.length));
  }
}

TEST(AttentionTest, ChunksAcrossPageBorders) {
  constexpr int64_t kPage = KvCache::kPageTokens;
  const std::vector<int64_t> splits[] = {
      {kPage - 1, 1, 1, 1},   {kPage, kPage, 1}, {kPage + 1, kPage - 1, 1},
      {kPage - 1, kPage + 2}, {1, 3 * kPage},    {kPage - 5, 10, kPage - 10, 10},
      {2 * kPage - 1, 2, 17}};
  for (const auto& chunks : splits) {
    int64_t length = 0;
    for (const int64_t chunk : chunks) length += chunk;
    ExpectSplitCorrect(length, {2, 8, length, 4}, chunks);
  }
}

TEST(AttentionTest, TokenByToken) {
  ExpectSplitCorrect(1, {2, 4, 270, 4}, std::vector<int64_t>(270, 1));
}

// The cache holds the rotated keys and the values, page by page.
TEST(KvCacheTest, HoldsRotatedKeysAndValues) {
  const AttentionDesc desc{2, 6, 300, 4};
  const Floats qkv = MakeQkv(5, desc);
  KvCache cache(2, 6);
  Evaluate(desc, qkv, cache, 2);
  ASSERT_EQ(cache.pages(), 2);
  Floats keys, values;
  Doubles expected_keys, expected_values;
  for (int64_t t = 0; t < 300; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      const int64_t page = t / KvCache::kPageTokens, slot = t % KvCache::kPageTokens;
      const int64_t in_page = (h * KvCache::kPageTokens + slot) * 6, in_qkv = t * 36 + h * 6;
      Doubles key(qkv.begin() + in_qkv + 12, qkv.begin() + in_qkv + 18);
      reference::Rotate(key.data(), 4, t);
      for (int64_t i = 0; i < 6; ++i) {
        keys.push_back(cache.keys(page)[in_page + i]);
        values.push_back(cache.values(page)[in_page + i]);
        expected_keys.push_back(key[i]);
        expected_values.push_back(qkv[in_qkv + 24 + i]);
      }
    }
  }
  EXPECT_TRUE(Near(keys, expected_keys, reference::Tolerance(Device{})));
  EXPECT_TRUE(Near(values, expected_values, 0));
}

// At position 1,000,003 an angle in float32 would be off by 0.03 rad.
TEST(AttentionTest, RotatesAtLargePositions) {
  constexpr int64_t kPosition = 1000003;
  KvCache cache(1, 4);
  cache.Extend(kPosition);
  for (int64_t page = 0; page < cache.pages(); ++page) {
    std::fill_n(cache.keys(page), KvCache::kPageTokens * 4, 0.0f);
    std::fill_n(cache.values(page), KvCache::kPageTokens * 4, 0.0f);
  }
  const AttentionDesc desc{1, 4, 3, 4};
  const Floats qkv = MakeQkv(6, desc);
  Evaluate(desc, qkv, cache);
  Floats keys;
  Doubles expected;
  for (int64_t t = 0; t < 3; ++t) {
    const int64_t position = kPosition + t;
    const float* key =
        cache.keys(position / KvCache::kPageTokens) + position % KvCache::kPageTokens * 4;
    keys.insert(keys.end(), key, key + 4);
    Doubles rotated(qkv.begin() + t * 12 + 4, qkv.begin() + t * 12 + 8);
    reference::Rotate(rotated.data(), 4, position);
    expected.insert(expected.end(), rotated.begin(), rotated.end());
  }
  EXPECT_TRUE(Near(keys, expected, reference::Tolerance(Device{})));
}

TEST(KvCacheTest, CountsTokensPagesAndBytes) {
  KvCache cache(3, 8);
  EXPECT_EQ(cache.tokens(), 0);
  EXPECT_EQ(cache.pages(), 0);
  for (const int64_t count : {1, 254, 1, 1, 255, 1, 1000}) {
    cache.Extend(count);
    EXPECT_EQ(cache.pages(), (cache.tokens() + KvCache::kPageTokens - 1) / KvCache::kPageTokens);
  }
  EXPECT_EQ(cache.tokens(), 1513);
  for (const int64_t tokens : {0, 1, 256, 257, 1000000}) {
    const int64_t bytes = KvCache::Bytes(3, 8, tokens);
    const int64_t each = 2 * 3 * 8 * static_cast<int64_t>(sizeof(float));
    EXPECT_GE(bytes, tokens * each);
    EXPECT_LE(bytes, (tokens + KvCache::kPageTokens - 1) * each);  // whole pages at most
  }
}

TEST(KvCacheTest, GrowthKeepsWhatIsThere) {
  KvCache cache(1, 2);
  cache.Extend(10);
  float* const first = cache.keys(0);
  first[0] = 42;
  cache.Extend(100000);
  EXPECT_EQ(cache.keys(0), first);
  EXPECT_EQ(first[0], 42);
}

TEST(KvCacheTest, ClearStartsANewSequence) {
  const AttentionDesc desc{2, 8, 300, 4};
  const Floats qkv = MakeQkv(7, desc);
  KvCache cache(2, 8);
  const Floats fresh = Evaluate(desc, qkv, cache);
  cache.Clear();
  EXPECT_EQ(cache.tokens(), 0);
  EXPECT_TRUE(BitwiseEqual(Evaluate(desc, qkv, cache), fresh));
}

TEST(AttentionTest, RejectsEachBadFieldWithItsValue) {
  const AttentionDesc good{2, 8, 10, 4};
  ASSERT_TRUE(good.Validate().ok()) << good.Validate();
  auto expect_rejected = [&](auto change, int64_t value) {
    AttentionDesc desc = good;
    change(desc);
    EXPECT_TRUE(Rejected(desc.Validate(), {std::to_string(value)})) << desc.ToString();
    KvCache cache(2, 8);
    reference::PoisonedStream stream(1, 0);
    EXPECT_TRUE(
        Rejected(RunAttention(desc, nullptr, cache, nullptr, *stream), {std::to_string(value)}));
    EXPECT_EQ(cache.tokens(), 0);
  };
  for (const int64_t bad : {0, -1, -7177}) {
    expect_rejected([&](AttentionDesc& d) { d.heads = bad; }, bad);
    expect_rejected([&](AttentionDesc& d) { d.head_dim = bad; }, bad);
    expect_rejected([&](AttentionDesc& d) { d.length = bad; }, bad);
  }
  for (const int64_t bad : {-2, 3, 7, 10}) {
    expect_rejected([&](AttentionDesc& d) { d.rotary_dim = bad; }, bad);
  }
}

}  // namespace
}  // namespace longwave

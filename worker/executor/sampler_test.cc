#include "worker/executor/sampler.h"

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace longwave {
namespace {

std::vector<int32_t> Draw(const SamplerOptions& options, const std::vector<float>& logits,
                          int count) {
  Sampler sampler(options);
  std::vector<int32_t> drawn;
  for (int i = 0; i < count; ++i) drawn.push_back(sampler.Sample(logits).value());
  return drawn;
}

// How often each token comes, over `count` draws.
std::vector<double> Frequencies(const SamplerOptions& options, const std::vector<float>& logits,
                                int count) {
  std::vector<double> frequencies(logits.size());
  for (int32_t token : Draw(options, logits, count)) frequencies[token] += 1.0 / count;
  return frequencies;
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(Draw({}, {1, 3, 2, 3}, 3), (std::vector<int32_t>{1, 1, 1}));
  EXPECT_EQ(Draw({}, {-5}, 1), std::vector<int32_t>{0});
}

TEST(Sampler, DrawsInProportion) {
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
  const std::vector<double> f = Frequencies({.temperature = 1}, logits, 80000);
  EXPECT_NEAR(f[0], 1.0 / 8, 0.01);
  EXPECT_NEAR(f[1], 2.0 / 8, 0.01);
  EXPECT_NEAR(f[2], 5.0 / 8, 0.01);
}

TEST(Sampler, TemperatureDividesLogits) {
  const std::vector<float> logits = {0.0f, std::log(9.0f)};
  EXPECT_NEAR(Frequencies({.temperature = 2}, logits, 80000)[1], 3.0 / 4, 0.01);
  EXPECT_NEAR(Frequencies({.temperature = 0.5}, logits, 80000)[1], 81.0 / 82, 0.01);
}

TEST(Sampler, TopKKeepsTheMostProbable) {
  const std::vector<float> logits = {1, 4, 2, 4, 4};
  const std::vector<double> f = Frequencies({.temperature = 10, .top_k = 2}, logits, 20000);
  EXPECT_NEAR(f[1], 0.5, 0.02);  // of the three equals, the lowest ids
  EXPECT_NEAR(f[3], 0.5, 0.02);
  EXPECT_EQ(Draw({.temperature = 10, .top_k = 1, .seed = 7}, logits, 4),
            (std::vector<int32_t>{1, 1, 1, 1}));
  EXPECT_GT(Frequencies({.temperature = 10, .top_k = 99}, logits, 2000)[0], 0);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  // probabilities 0.5, 0.3, 0.2
  const std::vector<float> logits = {std::log(3.0f), std::log(5.0f), std::log(2.0f)};
  auto seen = [&](double p) {
    const std::vector<int32_t> drawn = Draw({.temperature = 1, .top_p = p}, logits, 2000);
    return std::set<int32_t>(drawn.begin(), drawn.end());
  };
  EXPECT_EQ(seen(1e-9), std::set<int32_t>{1});
  EXPECT_EQ(seen(0.49), std::set<int32_t>{1});
  EXPECT_EQ(seen(0.51), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(seen(0.79), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(seen(0.81), (std::set<int32_t>{0, 1, 2}));
}

TEST(Sampler, TopPCountsWithinTopK) {
  // Of probabilities 0.4, 0.3, 0.2, 0.1 the first two become 4/7 and 3/7.
  const std::vector<float> logits = {std::log(4.0f), std::log(3.0f), std::log(2.0f), 0};
  const std::vector<int32_t> drawn =
      Draw({.temperature = 1, .top_k = 2, .top_p = 0.5}, logits, 500);
  EXPECT_EQ(std::set<int32_t>(drawn.begin(), drawn.end()), std::set<int32_t>{0});
}

TEST(Sampler, TheSeedDecides) {
  const std::vector<float> logits(64, 0.0f);
  const SamplerOptions one = {.temperature = 1, .seed = 1};
  const SamplerOptions two = {.temperature = 1, .seed = 2};
  EXPECT_EQ(Draw(one, logits, 50), Draw(one, logits, 50));
  EXPECT_NE(Draw(one, logits, 50), Draw(two, logits, 50));
}

TEST(Sampler, IsTheSameOnEveryMachine) {
  // mt19937_64's tenthousandth number is fixed by the C++ standard; so are these, from seed 5489.
  EXPECT_EQ(Draw({.temperature = 1, .seed = 5489}, std::vector<float>(16, 0.0f), 6),
            (std::vector<int32_t>{12, 4, 11, 15, 0, 6}));
}

TEST(Sampler, TinyTemperatureIsGreedyWithoutOverflow) {
  EXPECT_EQ(Draw({.temperature = 1e-300}, {-1e30f, 1e30f, 0}, 3), (std::vector<int32_t>{1, 1, 1}));
}

TEST(Sampler, RefusesWhatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Sampler({}).Sample({1, nan}).status().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE((SamplerOptions{.temperature = -1}).Validate().ok());
  EXPECT_FALSE((SamplerOptions{.top_k = -1}).Validate().ok());
  EXPECT_FALSE((SamplerOptions{.top_p = 0}).Validate().ok());
  EXPECT_TRUE(SamplerOptions{}.Validate().ok());
}

}  // namespace
}  // namespace longwave

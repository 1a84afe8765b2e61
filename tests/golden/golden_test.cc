// Models against the published code, at every chunk length. The fast half.
#include <algorithm>
#include <cstdio>

#include "tests/golden/golden_util.h"

namespace longwave {
namespace {

constexpr double kLogitsTolerance = 1e-5;

class GoldenLogits : public testing::TestWithParam<std::string> {};

TEST_P(GoldenLogits, EveryChunkLength) {
  const Case golden("tests/golden/" + GetParam());
  ASSERT_NE(golden.model, nullptr);
  const std::vector<int32_t> ids = Values<int32_t>(*golden.golden, "input_ids");
  const std::vector<float> want = Values<float>(*golden.golden, "logits");
  const std::vector<int64_t> shape = golden.golden->Find("input_ids")->shape;
  const int64_t batch = shape[0], length = shape[1], vocab = golden.model->config().vocab_size;
  ThreadPool pool(0);
  for (int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{64}, int64_t{1000}, length}) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    std::vector<float> got(want.size());
    for (int64_t b = 0; b < batch; ++b) {
      runner->Reset();
      for (int64_t t = 0; t < length; t += chunk) {
        const int64_t n = std::min(chunk, length - t), at = b * length + t;
        ASSERT_EQ(runner->Forward({ids.data() + at, static_cast<size_t>(n)}), absl::OkStatus());
        ASSERT_EQ(runner->Logits(0, n, {got.data() + at * vocab, static_cast<size_t>(n * vocab)}),
                  absl::OkStatus());
      }
    }
    const double error = RelativeError(got, want);
    std::printf("%s chunk %lld: relative error %.2e\n", GetParam().c_str(),
                static_cast<long long>(chunk), error);
    EXPECT_LE(error, kLogitsTolerance) << "chunk " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenLogits,
                         testing::Values("h3-pure-hd1", "h3-pure-hd8", "h3-hybrid",
                                         "h3-hybrid-rotary", "h3-long"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GoldenS4d, EveryChunkLength) {
  const Case golden("tests/golden/s4d");
  ASSERT_NE(golden.model, nullptr);
  const std::vector<float> u = Values<float>(*golden.golden, "u");
  const std::vector<float> want = Values<float>(*golden.golden, "y");
  const std::vector<int64_t> shape = golden.golden->Find("u")->shape;
  const int64_t batch = shape[0], H = shape[1], length = shape[2];
  ThreadPool pool(0);
  for (int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{64}, int64_t{999}, length}) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    std::vector<float> got(want.size());
    for (int64_t b = 0; b < batch; ++b) {
      runner->Reset();
      for (int64_t t = 0; t < length; t += chunk) {
        const int64_t n = std::min(chunk, length - t);
        std::vector<float> x(n * H), y(n * H);
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t h = 0; h < H; ++h) x[r * H + h] = u[(b * H + h) * length + t + r];
        }
        ASSERT_EQ(runner->Transform(x, absl::MakeSpan(y)), absl::OkStatus());
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t h = 0; h < H; ++h) got[(b * H + h) * length + t + r] = y[r * H + h];
        }
      }
    }
    const double error = RelativeError(got, want);
    std::printf("s4d chunk %lld: relative error %.2e\n", static_cast<long long>(chunk), error);
    EXPECT_LE(error, kLogitsTolerance) << "chunk " << chunk;
  }
}

TEST(GoldenText, LossesAndGreedyContinuations) {
  const Case golden("examples/h3-text");
  ASSERT_NE(golden.model, nullptr);
  const std::vector<uint8_t> bytes = Values<uint8_t>(*golden.golden, "val_ids");
  const std::vector<int32_t> ids(bytes.begin(), bytes.end());
  const std::vector<float> want = Values<float>(*golden.golden, "nll_first16384_of_val");
  ThreadPool pool(0);
  const std::unique_ptr<SequenceRunner> runner = golden.Runner(4096, pool);
  const std::vector<float> got = Score(*runner, ids, 4096);
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(double{got[i]} - double{want[i]}));
  }
  std::printf("h3-text: greatest difference of a loss %.2e nats\n", worst);
  EXPECT_LE(worst, 1e-3);

  for (const char* name : {"greedy_0", "greedy_1", "greedy_2"}) {
    const std::vector<int32_t> all = Values<int32_t>(*golden.golden, name);
    std::vector<int32_t> text(all.begin(), all.end() - 160);
    runner->Reset();
    ASSERT_EQ(runner->Forward(text), absl::OkStatus());
    std::vector<float> logits(256);
    for (int64_t rows = static_cast<int64_t>(text.size()); text.size() < all.size(); rows = 1) {
      ASSERT_EQ(runner->Logits(rows - 1, 1, absl::MakeSpan(logits)), absl::OkStatus());
      text.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      ASSERT_EQ(runner->Forward({&text.back(), 1}), absl::OkStatus());
    }
    EXPECT_EQ(text, all) << name;
  }
}

}  // namespace
}  // namespace longwave

// Models against the published code, at every chunk length. The fast half.
#include <algorithm>
#include <cstdio>
#include <tuple>

#include "tests/golden/golden_util.h"

namespace longwave {
namespace {

constexpr double kLogitsTolerance = 1e-5;

class GoldenLogits : public testing::TestWithParam<std::tuple<std::string, Target>> {};

TEST_P(GoldenLogits, EveryChunkLength) {
  const auto& [name, target] = GetParam();
  const Case golden("tests/golden/" + name, target);
  ASSERT_NE(golden.model, nullptr);
  const std::vector<int32_t> ids = Values<int32_t>(*golden.golden, "input_ids");
  const std::vector<float> all = Values<float>(*golden.golden, "logits");
  const std::vector<int64_t> shape = golden.golden->Find("input_ids")->shape;
  const int64_t batch = shape[0], vocab = golden.model->config().vocab_size;
  const int64_t length = target.emulated() ? std::min<int64_t>(shape[1], 150) : shape[1];
  std::vector<float> want;
  for (int64_t b = 0; b < batch; ++b) {
    const auto first = all.begin() + b * shape[1] * vocab;
    want.insert(want.end(), first, first + length * vocab);
  }
  ThreadPool pool(0);
  std::vector<int64_t> chunks = {1, 7, 64, 1000, length};
  if (target.emulated()) chunks = {7, 64, length};
  if (target.gpu() && !target.emulated() && shape[1] > 4096) chunks.erase(chunks.begin());
  for (int64_t chunk : chunks) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    std::vector<float> got(want.size());
    for (int64_t b = 0; b < batch; ++b) {
      runner->Reset();
      for (int64_t t = 0; t < length; t += chunk) {
        const int64_t n = std::min(chunk, length - t), at = b * length + t;
        ASSERT_EQ(runner->Forward({ids.data() + b * shape[1] + t, static_cast<size_t>(n)}),
                  absl::OkStatus());
        ASSERT_EQ(runner->Logits(0, n, {got.data() + at * vocab, static_cast<size_t>(n * vocab)}),
                  absl::OkStatus());
      }
    }
    const double error = RelativeError(got, want);
    std::printf("%s %s chunk %lld: relative error %.2e\n", name.c_str(), target.name().c_str(),
                static_cast<long long>(chunk), error);
    EXPECT_LE(error, target.Tolerance(kLogitsTolerance)) << "chunk " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenLogits,
                         testing::Combine(testing::Values("h3-pure-hd1", "h3-pure-hd8", "h3-hybrid",
                                                          "h3-hybrid-rotary", "h3-long"),
                                          testing::ValuesIn(Targets())),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + "_" + std::get<1>(info.param).name();
                         });

class Golden : public testing::TestWithParam<Target> {};
INSTANTIATE_TEST_SUITE_P(Cases, Golden, testing::ValuesIn(Targets()),
                         [](const auto& info) { return info.param.name(); });

TEST_P(Golden, S4dAtEveryChunkLength) {
  const Target& target = GetParam();
  const Case golden("tests/golden/s4d", target);
  ASSERT_NE(golden.model, nullptr);
  const std::vector<float> u = Values<float>(*golden.golden, "u");
  const std::vector<float> all = Values<float>(*golden.golden, "y");
  const std::vector<int64_t> shape = golden.golden->Find("u")->shape;
  const int64_t batch = shape[0], H = shape[1];
  const int64_t length = target.emulated() ? std::min<int64_t>(shape[2], 150) : shape[2];
  std::vector<float> want;
  for (int64_t c = 0; c < batch * H; ++c) {
    want.insert(want.end(), all.begin() + c * shape[2], all.begin() + c * shape[2] + length);
  }
  ThreadPool pool(0);
  std::vector<int64_t> chunks = {1, 7, 64, 999, length};
  if (target.emulated()) chunks = {7, 64, length};
  for (int64_t chunk : chunks) {
    const std::unique_ptr<SequenceRunner> runner = golden.Runner(chunk, pool);
    std::vector<float> got(want.size());
    for (int64_t b = 0; b < batch; ++b) {
      runner->Reset();
      for (int64_t t = 0; t < length; t += chunk) {
        const int64_t n = std::min(chunk, length - t);
        std::vector<float> x(n * H), y(n * H);
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t h = 0; h < H; ++h) x[r * H + h] = u[(b * H + h) * shape[2] + t + r];
        }
        ASSERT_EQ(runner->Transform(x, absl::MakeSpan(y)), absl::OkStatus());
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t h = 0; h < H; ++h) got[(b * H + h) * length + t + r] = y[r * H + h];
        }
      }
    }
    const double error = RelativeError(got, want);
    std::printf("s4d %s chunk %lld: relative error %.2e\n", target.name().c_str(),
                static_cast<long long>(chunk), error);
    EXPECT_LE(error, target.Tolerance(kLogitsTolerance)) << "chunk " << chunk;
  }
}

TEST_P(Golden, TextLossesAndGreedyContinuations) {
  const Target& target = GetParam();
  const Case golden("examples/h3-text", target);
  ASSERT_NE(golden.model, nullptr);
  const std::vector<uint8_t> bytes = Values<uint8_t>(*golden.golden, "val_ids");
  std::vector<int32_t> ids(bytes.begin(), bytes.end());
  std::vector<float> want = Values<float>(*golden.golden, "nll_first16384_of_val");
  if (target.emulated()) {
    ids.resize(66);
    want.resize(65);
  }
  ThreadPool pool(0);
  const std::unique_ptr<SequenceRunner> runner = golden.Runner(4096, pool);
  const std::vector<float> got = Score(*runner, ids, 4096);
  ASSERT_EQ(got.size(), want.size());
  double worst = 0, sum = 0, want_sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, std::abs(double{got[i]} - double{want[i]}));
    sum += got[i];
    want_sum += want[i];
  }
  const double mean_off = std::abs(sum - want_sum) / static_cast<double>(got.size());
  std::printf("h3-text %s: greatest difference of a loss %.2e nats, of the mean %.2e\n",
              target.name().c_str(), worst, mean_off);
  EXPECT_LE(worst, target.options.dtype == Dtype::kFloat32 ? 1e-3 : 0.5);
  EXPECT_LE(mean_off, target.emulated() ? 1e-2 : 2e-3);
  // A 16-bit model may choose otherwise where two bytes are as likely.
  if (target.emulated() || target.options.dtype != Dtype::kFloat32) return;

  for (const char* name : {"greedy_0", "greedy_1", "greedy_2"}) {
    const std::vector<int32_t> all = Values<int32_t>(*golden.golden, name);
    std::vector<int32_t> text(all.begin(), all.end() - 160);
    runner->Reset();
    ASSERT_EQ(runner->Forward(text), absl::OkStatus());
    std::vector<int32_t> made(160);
    ASSERT_EQ(runner->Greedy(160, absl::MakeSpan(made)), absl::OkStatus());
    text.insert(text.end(), made.begin(), made.end());
    EXPECT_EQ(text, all) << name;

    text.resize(all.size() - 160);
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

// The runner on every device that there is: models of random weights and one shape for each kind of
// layer, against the CPU's float32. In worker_emulated_test the device is the emulated GPU.
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/queue.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/tasks.h"
#include "worker/model/model.h"
#include "worker/model/relative_error_test_util.h"

namespace longwave {
namespace {

using Floats = std::vector<float>;

ModelConfig PureConfig() {
  ModelConfig config;
  config.d_model = 32;
  config.n_layer = 2;
  config.d_state = 64;
  config.d_inner = 64;
  config.vocab_size = 37;
  return config;
}

ModelConfig HybridConfig() {
  ModelConfig config = PureConfig();
  config.head_dim = 8;
  config.attn_layer_idx = {1};
  config.attn_num_heads = 2;
  config.rotary_emb_dim = 8;
  return config;
}

ModelConfig SignalConfig() {
  ModelConfig config;
  config.type = ModelConfig::Type::kS4d;
  config.d_model = 24;
  config.n_layer = 2;
  config.d_state = 32;
  config.norm = ModelConfig::Norm::kPre;
  return config;
}

std::shared_ptr<const Model> Make(const ModelConfig& config, const ModelOptions& options) {
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Random(config, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : nullptr;
}

std::vector<int32_t> Tokens(int64_t count, int64_t vocab, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

class DeviceTest : public testing::TestWithParam<Dtype> {
 protected:
  void SetUp() override {
    if (gpu::DeviceCount() == 0) GTEST_SKIP() << "no GPU";
  }
  ModelOptions Options() const { return {Device{Device::Kind::kCuda}, GetParam()}; }
  double Tolerance() const {
    return GetParam() == Dtype::kFloat32 ? 1e-5 : GetParam() == Dtype::kFloat16 ? 3e-3 : 2e-2;
  }
  std::unique_ptr<SequenceRunner> Runner(std::shared_ptr<const Model> model, int64_t chunk,
                                         int64_t batch = 1) {
    auto runner =
        SequenceRunner::Create(std::move(model), {.chunk = chunk, .batch = batch}, &pool_);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }
  // Logits of all tokens, in pieces of these sizes.
  Floats Logits(SequenceRunner& runner, const std::vector<int32_t>& tokens,
                const std::vector<int64_t>& pieces) {
    const int64_t vocab = runner.model().config().vocab_size;
    Floats all(tokens.size() * vocab);
    int64_t at = 0;
    for (int64_t n : pieces) {
      EXPECT_EQ(runner.Forward({tokens.data() + at, static_cast<size_t>(n)}), absl::OkStatus());
      EXPECT_EQ(runner.Logits(0, n, absl::MakeSpan(all).subspan(at * vocab, n * vocab)),
                absl::OkStatus());
      at += n;
    }
    EXPECT_EQ(at, static_cast<int64_t>(tokens.size()));
    EXPECT_EQ(runner.position(), at);
    return all;
  }

  ThreadPool pool_{2};
};

INSTANTIATE_TEST_SUITE_P(Dtypes, DeviceTest,
                         testing::Values(Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16),
                         [](const auto& info) { return std::string(Name(info.param)); });

// Single tokens run as a recorded graph, here between chunks that move the scratch memory.
TEST_P(DeviceTest, AnySplitIsTheModelOfTheCpu) {
  for (const ModelConfig& config : {PureConfig(), HybridConfig()}) {
    const std::vector<int32_t> tokens = Tokens(97, config.vocab_size);
    const auto cpu = Runner(Make(config, {}), 97);
    const Floats want = Logits(*cpu, tokens, {97});
    const auto runner = Runner(Make(config, Options()), 97);
    for (const std::vector<int64_t>& pieces : std::vector<std::vector<int64_t>>{
             {97}, {1, 1, 1, 1, 30, 1, 1, 1, 60}, {64, 33}, {5, 1, 1, 90}}) {
      runner->Reset();
      EXPECT_LE(RelativeError(Logits(*runner, tokens, pieces), want), Tolerance());
    }
  }
}

// State and caches of a runner, taken up by another one, and what each chunk added to the caches.
TEST_P(DeviceTest, ASequenceGoesOnInAnotherRunner) {
  const std::shared_ptr<const Model> model = Make(HybridConfig(), Options());
  const std::vector<int32_t> tokens = Tokens(90, model->config().vocab_size);
  const auto first = Runner(model, 64), second = Runner(model, 64);
  const int64_t vocab = model->config().vocab_size;
  const Floats want = Logits(*first, tokens, {40, 20, 1, 1, 28});
  first->Reset();
  std::vector<std::vector<CacheRows>> added;
  for (const auto& [begin, count] : {std::pair{0, 40}, std::pair{40, 20}}) {
    ASSERT_EQ(first->Forward({tokens.data() + begin, static_cast<size_t>(count)}),
              absl::OkStatus());
    const auto rows = first->ExportCaches(begin);
    ASSERT_TRUE(rows.ok()) << rows.status();
    added.push_back(*rows);
  }
  const absl::StatusOr<HostState> state = first->ExportState();
  ASSERT_TRUE(state.ok()) << state.status();
  (void)Logits(*second, std::vector<int32_t>(tokens.begin(), tokens.begin() + 7), {7});
  EXPECT_TRUE(absl::IsFailedPrecondition(second->Seek(60)));
  ASSERT_EQ(second->Seek(0), absl::OkStatus());
  for (const auto& rows : added) ASSERT_EQ(second->AppendCaches(rows), absl::OkStatus());
  EXPECT_FALSE(second->AppendCaches({}).ok());
  ASSERT_EQ(second->Seek(60), absl::OkStatus());
  ASSERT_EQ(second->ImportState(*state), absl::OkStatus());
  Floats got(30 * vocab);
  int64_t at = 0;
  for (const int64_t n : {1, 1, 28}) {
    ASSERT_EQ(second->Forward({tokens.data() + 60 + at, static_cast<size_t>(n)}), absl::OkStatus());
    ASSERT_EQ(second->Logits(0, n, absl::MakeSpan(got).subspan(at * vocab, n * vocab)),
              absl::OkStatus());
    at += n;
  }
  EXPECT_EQ(got, Floats(want.begin() + 60 * vocab, want.end()));
}

TEST_P(DeviceTest, ABatchIsItsSequences) {
  constexpr int64_t kBatch = 3, kLength = 21;
  for (const ModelConfig& config : {PureConfig(), HybridConfig()}) {
    const std::shared_ptr<const Model> model = Make(config, Options());
    const std::vector<int32_t> tokens = Tokens(kBatch * kLength, config.vocab_size);
    const auto batch = Runner(model, 16, kBatch), one = Runner(model, kLength);
    for (const auto& [first, count] : {std::pair{0, 16}, std::pair{16, 4}, std::pair{20, 1}}) {
      std::vector<int32_t> chunk;
      for (int64_t b = 0; b < kBatch; ++b) {
        const auto begin = tokens.begin() + b * kLength + first;
        chunk.insert(chunk.end(), begin, begin + count);
      }
      ASSERT_EQ(batch->Forward(chunk), absl::OkStatus());
    }
    Floats got(kBatch * config.vocab_size), want;
    ASSERT_EQ(batch->Logits(0, kBatch, absl::MakeSpan(got)), absl::OkStatus());
    std::vector<int32_t> continued(kBatch * 5), alone(5);
    ASSERT_EQ(batch->Greedy(5, absl::MakeSpan(continued)), absl::OkStatus());
    for (int64_t b = 0; b < kBatch; ++b) {
      one->Reset();
      ASSERT_EQ(one->Forward({tokens.data() + b * kLength, kLength}), absl::OkStatus());
      Floats row(config.vocab_size);
      ASSERT_EQ(one->Logits(kLength - 1, 1, absl::MakeSpan(row)), absl::OkStatus());
      want.insert(want.end(), row.begin(), row.end());
      if (GetParam() != Dtype::kFloat32) continue;  // ties
      ASSERT_EQ(one->Greedy(5, absl::MakeSpan(alone)), absl::OkStatus());
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), continued.begin() + b * 5)) << b;
    }
    EXPECT_LE(RelativeError(got, want), Tolerance());
  }
}

// Greedy() against a loop over the same runner's logits: bit for bit.
TEST_P(DeviceTest, GreedyIsALoopOverLogits) {
  const ModelConfig config = HybridConfig();
  const std::shared_ptr<const Model> model = Make(config, Options());
  const std::vector<int32_t> prompt = Tokens(9, config.vocab_size);
  const auto runner = Runner(model, 16);
  ASSERT_EQ(runner->Forward(prompt), absl::OkStatus());
  std::vector<int32_t> want(12), got(12);
  Floats logits(config.vocab_size);
  int64_t row = 8;
  for (int32_t& token : want) {
    ASSERT_EQ(runner->Logits(row, 1, absl::MakeSpan(logits)), absl::OkStatus());
    token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    ASSERT_EQ(runner->Forward({&token, 1}), absl::OkStatus());
    row = 0;
  }
  for (const int64_t first : {12, 5}) {  // at once, and in two parts
    runner->Reset();
    ASSERT_EQ(runner->Forward(prompt), absl::OkStatus());
    ASSERT_EQ(runner->Greedy(first, absl::MakeSpan(got).first(first)), absl::OkStatus());
    EXPECT_EQ(runner->position(), 9 + first - 1);
    if (first < 12) {
      ASSERT_EQ(runner->Forward({&got[first - 1], 1}), absl::OkStatus());
      ASSERT_EQ(runner->Greedy(12 - first, absl::MakeSpan(got).subspan(first)), absl::OkStatus());
    }
    EXPECT_EQ(got, want);
  }
}

TEST_P(DeviceTest, LossesOverlapTheNextChunk) {
  const ModelConfig config = PureConfig();
  const std::vector<int32_t> tokens = Tokens(101, config.vocab_size);
  const auto run = [&](const ModelOptions& options, int64_t ahead) {
    const auto runner = Runner(Make(config, options), 32);
    Floats nll;
    const auto take = [&](int64_t left) {
      while (runner->losses_pending() > left) {
        const auto losses = runner->TakeTokenLoss();
        ASSERT_TRUE(losses.ok()) << losses.status();
        nll.insert(nll.end(), losses->begin(), losses->end());
      }
    };
    for (int64_t t = 0; t < 100; t += 32) {
      const size_t n = static_cast<size_t>(std::min<int64_t>(32, 100 - t));
      EXPECT_EQ(runner->Forward({tokens.data() + t, n}), absl::OkStatus());
      EXPECT_EQ(runner->StartTokenLoss({tokens.data() + t + 1, n}), absl::OkStatus());
      take(ahead);
    }
    take(0);
    return nll;
  };
  const Floats want = run({}, 0), ahead = run(Options(), 1);
  EXPECT_LE(RelativeError(ahead, want), Tolerance());
  EXPECT_EQ(run(Options(), 0), ahead);

  const auto runner = Runner(Make(config, Options()), 32);
  ASSERT_EQ(runner->Forward({tokens.data(), 32}), absl::OkStatus());
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(runner->StartTokenLoss({tokens.data() + 1, 32}), absl::OkStatus());
  }
  EXPECT_THAT(runner->StartTokenLoss({tokens.data() + 1, 32}).message(),
              testing::HasSubstr("pending = 2"));
  EXPECT_EQ(runner->losses_pending(), 2);
  runner->Reset();
  EXPECT_EQ(runner->losses_pending(), 0);
}

TEST_P(DeviceTest, AStateGoesToAnotherRunner) {
  const ModelConfig config = PureConfig();
  const std::shared_ptr<const Model> model = Make(config, Options());
  const std::vector<int32_t> tokens = Tokens(80, config.vocab_size);
  const auto first = Runner(model, 80), second = Runner(model, 80);
  const Floats all = Logits(*first, tokens, {50, 30});
  first->Reset();
  ASSERT_EQ(first->Forward({tokens.data(), 50}), absl::OkStatus());
  absl::StatusOr<HostState> state = first->ExportState();
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->size(), model->state_specs().size());
  ASSERT_EQ(second->ImportState(*state), absl::OkStatus());
  const std::vector<int32_t> rest(tokens.begin() + 50, tokens.end());
  const Floats got = Logits(*second, rest, {30});
  EXPECT_EQ(got, Floats(all.begin() + 50 * config.vocab_size, all.end()));
  state->front().push_back(0);
  EXPECT_TRUE(absl::IsInvalidArgument(second->ImportState(*state)));
}

TEST_P(DeviceTest, HiddenStatesAndSignals) {
  const ModelConfig words = PureConfig();
  const std::vector<int32_t> tokens = Tokens(40, words.vocab_size);
  const auto hidden = [&](const ModelOptions& options) {
    const auto runner = Runner(Make(words, options), 40);
    EXPECT_EQ(runner->Forward(tokens), absl::OkStatus());
    const auto rows = runner->hidden();
    EXPECT_TRUE(rows.ok()) << rows.status();
    return Floats(rows->begin(), rows->end());
  };
  EXPECT_LE(RelativeError(hidden(Options()), hidden({})), Tolerance());

  const ModelConfig signals = SignalConfig();
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Floats x(70 * signals.d_model);
  for (float& value : x) value = normal(random);
  const auto transform = [&](const ModelOptions& options, int64_t chunk) {
    const auto runner = Runner(Make(signals, options), chunk);
    Floats y(x.size());
    for (int64_t t = 0; t < 70; t += chunk) {
      const size_t at = t * signals.d_model, n = std::min<int64_t>(chunk, 70 - t) * signals.d_model;
      EXPECT_EQ(runner->Transform({x.data() + at, n}, absl::MakeSpan(y).subspan(at, n)),
                absl::OkStatus());
    }
    return y;
  };
  const Floats want = transform({}, 70);
  for (int64_t chunk : {70, 33, 9}) {
    EXPECT_LE(RelativeError(transform(Options(), chunk), want), Tolerance()) << chunk;
  }
}

TEST_P(DeviceTest, WhatIsRefused) {
  const ModelConfig config = HybridConfig();
  const std::shared_ptr<const Model> model = Make(config, Options());
  const auto batch = Runner(model, 8, 2);
  EXPECT_THAT(batch->Forward({1, 2, 3, 4, 5}).message(), testing::HasSubstr("tokens of the batch"));
  EXPECT_THAT(batch->Forward({1, 2, 3, 99}).message(),
              testing::HasSubstr("token id 99 at position 1 "));
  EXPECT_FALSE(SequenceRunner::Create(Make(config, {}), {.chunk = 8, .batch = 2}, &pool_).ok());
  const int64_t budget = model->cache_bytes(10);
  auto small = SequenceRunner::Create(model, {.chunk = 8, .cache_budget_bytes = budget}, &pool_);
  ASSERT_TRUE(small.ok()) << small.status();
  const std::vector<int32_t> tokens = Tokens(8, config.vocab_size);
  ASSERT_EQ((*small)->Forward(tokens), absl::OkStatus());
  const absl::Status refused = (*small)->Forward(tokens);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(refused.message(), testing::HasSubstr("enough for 10 tokens"));
  const absl::Status none =
      Model::Random(config, {Device{Device::Kind::kCuda, 99}, GetParam()}).status();
  EXPECT_THAT(none.message(), testing::HasSubstr("cuda:99"));
}

// What is said before anything is allocated is no less than what there is then.
TEST_P(DeviceTest, MemoryIsToldBefore) {
  const absl::StatusOr<gpu::Properties> device = gpu::GetProperties(0);
  if (device->name == "emulated") GTEST_SKIP() << "the emulator does not count";
  ModelConfig config = HybridConfig();
  config.d_model = 512;
  config.d_inner = 2048;
  config.vocab_size = 5000;
  const std::shared_ptr<const Model> model = Make(config, Options());
  const int64_t chunk = 65536;
  const std::vector<int32_t> tokens = Tokens(chunk + 1, config.vocab_size);
  {
    const auto warm = Runner(model, 64);  // the library's handles, and the program's code
    ASSERT_EQ(warm->Forward({tokens.data(), 64}), absl::OkStatus());
    ASSERT_EQ(warm->StartTokenLoss({tokens.data() + 1, 64}), absl::OkStatus());
    ASSERT_TRUE(warm->TakeTokenLoss().ok());
  }
  const int64_t before = gpu::GetMemoryInfo(0)->free_bytes;
  const auto runner = Runner(model, chunk);
  ASSERT_EQ(runner->Forward({tokens.data(), static_cast<size_t>(chunk)}), absl::OkStatus());
  ASSERT_EQ(runner->StartTokenLoss({tokens.data() + 1, static_cast<size_t>(chunk)}),
            absl::OkStatus());
  ASSERT_TRUE(runner->TakeTokenLoss().ok());
  const int64_t used = before - gpu::GetMemoryInfo(0)->free_bytes;
  const int64_t told =
      model->workspace_bytes(chunk, 0) + model->state_bytes() + model->cache_bytes(chunk);
  EXPECT_LE(used, told + (64 << 20));
  EXPECT_GE(used, told / 2);
}

}  // namespace
}  // namespace longwave

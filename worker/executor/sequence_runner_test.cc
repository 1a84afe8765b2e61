// Sequences chunk by chunk, through models of random weights.
#include "worker/executor/sequence_runner.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/model_test_util.h"

namespace longwave {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(SequenceRunner, ThreadsDoNotChangeABit) {
  constexpr int64_t kLength = 700;
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength);
    const Floats want = RunWhole(model, input, kLength, 1);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(SameBytes(RunWhole(model, input, kLength, threads), want))
          << threads << " threads, " << files.config;
    }
  }
}

// After one token of signal the states of a stack fade until they are subnormal.
TEST(SequenceRunner, ThreadsDoNotChangeABitOfFadedStates) {
  constexpr int64_t kLength = 2000;
  ModelFiles files = RandomS4d({.d = 4, .residual = false});
  for (Tensor& tensor : files.tensors) {
    const bool bias = tensor.name.find("bias") != std::string::npos;
    const bool dt = tensor.name.find("log_dt") != std::string::npos;
    for (float& x : tensor.values) x = bias ? 0.0f : dt ? -1.0f : x;
  }
  const std::shared_ptr<const Model> model = Loaded(files);
  Input input(*model, kLength);
  std::fill(input.x.begin() + 4, input.x.end(), 0.0f);
  const Floats want = RunWhole(model, input, kLength, 1);
  EXPECT_TRUE(std::any_of(want.begin(), want.end(), [](float x) {
    return std::fpclassify(x) == FP_SUBNORMAL;
  })) << "the input does not test what it should";
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(SameBytes(RunWhole(model, input, kLength, threads), want)) << threads;
  }
}

TEST(SequenceRunner, ChunksDoNotMatter) {
  constexpr int64_t kLength = 900;
  ThreadPool pool(1);
  double worst = 0;
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength);
    const Floats want = RunWhole(model, input, kLength);
    const std::unique_ptr<SequenceRunner> runner = Runner(model, kLength, pool);
    std::mt19937_64 random(5);
    for (const int64_t most : {1, 3, 31, 33, 64, 257, 899}) {
      std::vector<int64_t> pieces;
      for (int64_t left = kLength; left > 0; left -= pieces.back()) {
        pieces.push_back(std::min<int64_t>(left, most <= 64 ? most : 1 + random() % most));
      }
      runner->Reset();
      const double error = RelativeError(RunPieces(*runner, input, pieces), want);
      EXPECT_LE(error, 1e-5) << "pieces of " << most << ", " << files.config;
      worst = std::max(worst, error);
    }
  }
  RecordProperty("worst", absl::StrCat(worst));
}

TEST(SequenceRunner, ResetGivesTheSameBytes) {
  constexpr int64_t kLength = 300;
  ThreadPool pool(2);
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength), other(*model, kLength, 99);
    const std::unique_ptr<SequenceRunner> runner = Runner(model, kLength, pool);
    const std::vector<int64_t> pieces = {100, 1, 150, 49};
    const Floats first = RunPieces(*runner, input, pieces);
    EXPECT_FALSE(SameBytes(Step(*runner, input, 0, kLength), first));  // the state counts
    for (int i = 0; i < 2; ++i) {
      runner->Reset();
      EXPECT_EQ(runner->position(), 0);
      EXPECT_EQ(HiddenOf(*runner).size(), 0u);
      EXPECT_TRUE(SameBytes(RunPieces(*runner, input, pieces), first)) << files.config;
      Step(*runner, other, 0, kLength);
    }
  }
}

TEST(SequenceRunner, IdsOutsideTheVocabularyChangeNothing) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.attention = {1}}));
  const Input input(*model, 60);
  const auto undisturbed = Runner(model, 40, pool), disturbed = Runner(model, 40, pool);
  Step(*undisturbed, input, 0, 20);
  Step(*disturbed, input, 0, 20);
  const Floats hidden = HiddenOf(*disturbed);
  for (const int32_t bad : {-1, 11, 12, INT32_MAX, INT32_MIN}) {
    for (const size_t at : {0, 3, 19}) {
      std::vector<int32_t> ids(input.ids.begin() + 20, input.ids.begin() + 40);
      ids[at] = bad;
      ids[19] = -7;  // the first is said
      const absl::Status refused = disturbed->Forward(ids);
      EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
      EXPECT_THAT(
          MessageOf(refused),
          AllOf(HasSubstr(absl::StrCat("token id ", ids[at], " at position ", 20 + at, " ")),
                HasSubstr("vocabulary of 11")));
      EXPECT_EQ(disturbed->position(), 20);
      EXPECT_TRUE(SameBytes(HiddenOf(*disturbed), hidden));
    }
  }
  EXPECT_TRUE(SameBytes(Step(*disturbed, input, 20, 40), Step(*undisturbed, input, 20, 40)));
}

TEST(SequenceRunner, ChunksTooLongOrEmptyChangeNothing) {
  ThreadPool pool(1);
  for (const ModelFiles& files : {RandomH3({}), RandomS4d({})}) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, 40);
    const auto runner = Runner(model, 20, pool), undisturbed = Runner(model, 20, pool);
    EXPECT_TRUE(SameBytes(Step(*runner, input, 0, 20), Step(*undisturbed, input, 0, 20)));
    const size_t d = model->config().d_model;
    for (const size_t n : {0, 21}) {
      Floats y(n * d);
      const absl::Status refused =
          IsH3(*model) ? runner->Forward({input.ids.data(), n})
                       : runner->Transform({input.x.data(), n * d}, absl::MakeSpan(y));
      EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
      EXPECT_THAT(MessageOf(refused), AllOf(HasSubstr(absl::StrCat("= ", n)), HasSubstr("20")));
    }
    EXPECT_TRUE(SameBytes(Step(*runner, input, 20, 20), Step(*undisturbed, input, 20, 20)));
  }
  const std::shared_ptr<const Model> model = Loaded(RandomS4d({}));
  for (const int64_t chunk : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
    const auto runner = SequenceRunner::Create(model, {.chunk = chunk}, &pool);
    EXPECT_TRUE(absl::IsInvalidArgument(runner.status()));
    EXPECT_THAT(MessageOf(runner), HasSubstr(absl::StrCat("chunk = ", chunk)));
  }
}

TEST(SequenceRunner, TokensAndSignalsAreNotMixed) {
  ThreadPool pool(1);
  const auto words = Runner(Loaded(RandomH3({})), 4, pool);
  const auto signals = Runner(Loaded(RandomS4d({})), 4, pool);
  Floats x(2 * 8), y(2 * 8);
  EXPECT_THAT(MessageOf(words->Transform(x, absl::MakeSpan(y))), HasSubstr("takes tokens"));
  EXPECT_THAT(MessageOf(signals->Forward({1, 2})), HasSubstr("takes signals"));
  EXPECT_TRUE(absl::IsInvalidArgument(signals->TokenLoss({1}, absl::MakeSpan(y).first(1))));
  EXPECT_EQ(words->position(), 0);
  EXPECT_EQ(signals->position(), 0);
}

TEST(SequenceRunner, CacheBudget) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.rotary = 4, .attention = {0, 2}}));
  const Input input(*model, 700);
  const int64_t page = model->cache_bytes(1), budget = 2 * page + 5;
  auto created = SequenceRunner::Create(model, {.chunk = 300, .cache_budget_bytes = budget}, &pool);
  ASSERT_TRUE(created.ok()) << created.status();
  SequenceRunner& runner = **created;
  const auto unlimited = Runner(model, 300, pool);
  for (int round = 0; round < 2; ++round) {
    Step(runner, input, 0, 300);
    Step(runner, input, 300, 100);
    for (const int64_t count : {113, 300}) {  // to 513: one beyond two pages
      const absl::Status refused =
          runner.Forward({input.ids.data() + 400, static_cast<size_t>(count)});
      EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
      EXPECT_THAT(MessageOf(refused), AllOf(HasSubstr(absl::StrCat("need ", 3 * page, " bytes")),
                                            HasSubstr(absl::StrCat("at ", 400 + count, " tokens")),
                                            HasSubstr(absl::StrCat("budget is ", budget, " bytes")),
                                            HasSubstr("enough for 512 tokens")));
      EXPECT_EQ(runner.position(), 400);
    }
    unlimited->Reset();
    RunPieces(*unlimited, input, {300, 100});
    EXPECT_TRUE(SameBytes(Step(runner, input, 400, 112), Step(*unlimited, input, 400, 112)));
    EXPECT_TRUE(absl::IsResourceExhausted(runner.Forward({1})));
    runner.Reset();  // gives the caches back
  }
  // Without attention there is nothing to pay for.
  const std::shared_ptr<const Model> pure = Loaded(RandomH3({}));
  auto free = SequenceRunner::Create(pure, {.chunk = 700, .cache_budget_bytes = 0}, &pool);
  ASSERT_TRUE(free.ok());
  EXPECT_EQ((*free)->Forward(input.ids), absl::OkStatus());
}

TEST(SequenceRunner, ASequenceWithAttentionGoesOnInAnotherRunner) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.rotary = 4, .attention = {0, 2}}));
  const Input input(*model, 700);
  const auto whole = Runner(model, 300, pool), one = Runner(model, 300, pool),
             other = Runner(model, 300, pool);
  const Floats want = RunPieces(*whole, input, {300, 250, 1, 149});
  std::vector<std::vector<CacheRows>> added;
  Floats got;
  for (const auto& [begin, count] : {std::pair{0, 300}, std::pair{300, 250}}) {
    const Floats values = Step(*one, input, begin, count);
    got.insert(got.end(), values.begin(), values.end());
    added.push_back(*one->ExportCaches(begin));
  }
  Step(*other, input, 0, 17);  // another sequence's caches are there
  EXPECT_TRUE(absl::IsFailedPrecondition(other->Seek(550)));
  ASSERT_EQ(other->Seek(0), absl::OkStatus());
  for (const auto& rows : added) ASSERT_EQ(other->AppendCaches(rows), absl::OkStatus());
  ASSERT_EQ(other->Seek(550), absl::OkStatus());
  ASSERT_EQ(other->ImportState(*one->ExportState()), absl::OkStatus());
  for (const auto& [begin, count] : {std::pair{550, 1}, std::pair{551, 149}}) {
    const Floats values = Step(*other, input, begin, count);
    got.insert(got.end(), values.begin(), values.end());
  }
  EXPECT_TRUE(SameBytes(got, want));
  added[0][0].keys.pop_back();
  EXPECT_FALSE(other->AppendCaches(added[0]).ok());
}

TEST(SequenceRunner, LossesAreThoseOfTheLogits) {
  constexpr int64_t kLength = 50, kVocab = 11;
  ThreadPool pool(2);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.vocab = kVocab}));
  const Input input(*model, kLength + 1);
  const auto runner = Runner(model, kLength, pool);
  Floats nll(kLength), logits(kLength * kVocab);
  EXPECT_FALSE(runner->TokenLoss({1}, absl::MakeSpan(nll).first(1)).ok());  // nothing has run
  RunPieces(*runner, input, {20, kLength - 20});
  const size_t rows = kLength - 20;
  std::vector<int32_t> targets(input.ids.begin() + 21, input.ids.end());
  ASSERT_EQ(runner->TokenLoss(targets, absl::MakeSpan(nll).first(rows)), absl::OkStatus());
  ASSERT_EQ(runner->Logits(0, rows, absl::MakeSpan(logits).first(rows * kVocab)), absl::OkStatus());
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t v = 0; v < kVocab; ++v) sum += std::exp(double{logits[r * kVocab + v]});
    EXPECT_NEAR(nll[r], std::log(sum) - logits[r * kVocab + targets[r]], 1e-5);
  }
  Floats one(kVocab);
  ASSERT_EQ(runner->Logits(7, 1, absl::MakeSpan(one)), absl::OkStatus());
  EXPECT_LE(RelativeError(one, Floats(logits.begin() + 7 * kVocab, logits.begin() + 8 * kVocab)),
            1e-6);
  EXPECT_TRUE(absl::IsInvalidArgument(runner->Logits(rows, 1, absl::MakeSpan(one))));

  targets[4] = 11;  // follows the token at 24, so stands at 25
  const absl::Status refused = runner->TokenLoss(targets, absl::MakeSpan(nll).first(rows));
  EXPECT_THAT(MessageOf(refused), HasSubstr("token id 11 at position 25 "));
  targets.push_back(1);
  EXPECT_TRUE(absl::IsInvalidArgument(runner->TokenLoss(targets, absl::MakeSpan(nll))));
}

TEST(SequenceRunner, TwoRunnersShareAModel) {
  constexpr int64_t kLength = 400;
  for (const ModelFiles& files : BothTypes()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input inputs[] = {Input(*model, kLength, 1), Input(*model, kLength, 2)};
    Floats got[2];
    const auto run = [&](int i) {
      ThreadPool pool(2);
      const auto runner = Runner(model, kLength, pool);
      for (int round = 0; round < 3; ++round) {
        runner->Reset();
        got[i] = RunPieces(*runner, inputs[i], {kLength - 130, 130});
      }
    };
    std::thread first(run, 0), second(run, 1);
    first.join();
    second.join();
    for (int i = 0; i < 2; ++i) {
      ThreadPool pool(1);
      EXPECT_TRUE(SameBytes(
          got[i], RunPieces(*Runner(model, kLength, pool), inputs[i], {kLength - 130, 130})));
    }
  }
}

}  // namespace
}  // namespace longwave

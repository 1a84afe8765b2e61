// Consecutive chunks of a sequence on several runners at once, states passed from one to the next:
// bitwise what one runner gives that goes chunk by chunk. In worker_emulated_test on the emulated
// GPU as well.
#include "worker/model/state_flow.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/queue.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/state_chain_test_util.h"
#include "worker/model/model.h"

namespace longwave {
namespace {

using Floats = std::vector<float>;

ModelConfig H3Config(int64_t head_dim) {
  ModelConfig config;
  config.d_model = 16;
  config.n_layer = 2;
  config.d_state = 64;
  config.d_inner = 64;
  config.vocab_size = 37;
  config.head_dim = head_dim;
  return config;
}

ModelConfig SignalConfig() {
  ModelConfig config;
  config.type = ModelConfig::Type::kS4d;
  config.d_model = 24;
  config.n_layer = 3;
  config.d_state = 32;
  return config;
}

struct Target {
  ModelOptions options;
  std::string name;
};

std::vector<Target> Targets() {
  std::vector<Target> targets = {{{}, "cpu"}};
  if (gpu::DeviceCount() == 0) return targets;
  for (Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    targets.push_back({{Device{Device::Kind::kCuda}, dtype}, std::string("gpu_") + Name(dtype)});
  }
  return targets;
}

class StateFlowTest : public testing::TestWithParam<Target> {
 protected:
  std::shared_ptr<const Model> Make(const ModelConfig& config) const {
    absl::StatusOr<std::shared_ptr<const Model>> model = Model::Random(config, GetParam().options);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *model : nullptr;
  }
  static bool Emulated() {
    return gpu::DeviceCount() > 0 && gpu::GetProperties(0)->name == "emulated";
  }
  static std::unique_ptr<SequenceRunner> Runner(std::shared_ptr<const Model> model, int64_t chunk,
                                                ThreadPool& pool) {
    auto runner = SequenceRunner::Create(std::move(model), {.chunk = chunk}, &pool);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, StateFlowTest, testing::ValuesIn(Targets()),
                         [](const auto& info) { return info.param.name; });

// A sequence: tokens of a language model, or a signal.
struct Sequence {
  explicit Sequence(const Model& model, int64_t length) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const ModelConfig& config = model.config();
    signal = config.type == ModelConfig::Type::kS4d;
    width = signal ? config.d_model : config.vocab_size;
    for (int64_t t = 0; t < length && !signal; ++t) {
      tokens.push_back(static_cast<int32_t>(random() % config.vocab_size));
    }
    x.resize(signal ? length * width : 0);
    for (float& value : x) value = normal(random);
    length_ = length;
  }
  int64_t length() const { return length_; }

  // One chunk's outputs.
  Floats Run(SequenceRunner& runner, int64_t begin, int64_t count, StateFlow* flow,
             absl::Status* status) const {
    Floats out(count * width);
    if (signal) {
      *status = runner.Transform(absl::MakeConstSpan(x).subspan(begin * width, count * width),
                                 absl::MakeSpan(out), flow);
      return out;
    }
    *status = runner.Forward(absl::MakeConstSpan(tokens).subspan(begin, count), flow);
    if (status->ok()) *status = runner.Logits(0, count, absl::MakeSpan(out));
    return out;
  }

  bool signal = false;
  int64_t width = 0, length_ = 0;
  std::vector<int32_t> tokens;
  Floats x;
};

struct Result {
  std::vector<Floats> chunks;  // outputs
  HostState state;             // after the last chunk
  std::vector<std::string> calls;
};

int64_t Sum(const std::vector<int64_t>& lengths) {
  int64_t sum = 0;
  for (int64_t n : lengths) sum += n;
  return sum;
}

// Chunk by chunk on one runner of `threads` threads.
Result OneRunner(const std::shared_ptr<const Model>& model, const Sequence& sequence,
                 const std::vector<int64_t>& lengths, int threads) {
  ThreadPool pool(threads);
  auto runner = SequenceRunner::Create(
      model, {.chunk = *std::max_element(lengths.begin(), lengths.end())}, &pool);
  EXPECT_TRUE(runner.ok()) << runner.status();
  Result result;
  int64_t begin = 0;
  for (int64_t n : lengths) {
    absl::Status status;
    result.chunks.push_back(sequence.Run(**runner, begin, n, nullptr, &status));
    EXPECT_EQ(status, absl::OkStatus());
    begin += n;
  }
  auto state = (*runner)->ExportState();
  EXPECT_TRUE(state.ok()) << state.status();
  result.state = *std::move(state);
  return result;
}

// Chunk i on runner i modulo `runners`, a thread each, all started at once.
Result SeveralRunners(const std::shared_ptr<const Model>& model, const Sequence& sequence,
                      const std::vector<int64_t>& lengths, int runners) {
  const int64_t chunks = static_cast<int64_t>(lengths.size());
  StateChain chain(*model, chunks);
  Result result;
  result.chunks.resize(chunks);
  std::vector<std::thread> threads;
  for (int r = 0; r < runners; ++r) {
    threads.emplace_back([&, r] {
      ThreadPool pool(1 + r % 2);
      auto runner = SequenceRunner::Create(
          model, {.chunk = *std::max_element(lengths.begin(), lengths.end())}, &pool);
      ASSERT_TRUE(runner.ok()) << runner.status();
      for (int64_t i = r; i < chunks; i += runners) {
        const int64_t begin = Sum({lengths.begin(), lengths.begin() + i});
        ASSERT_EQ((*runner)->Seek(begin), absl::OkStatus());
        absl::Status status;
        result.chunks[i] = sequence.Run(**runner, begin, lengths[i], &chain.flow(i), &status);
        ASSERT_EQ(status, absl::OkStatus());
        EXPECT_EQ((*runner)->position(), begin + lengths[i]);
        if (i + 1 < chunks) continue;
        auto state = (*runner)->ExportState();
        ASSERT_TRUE(state.ok()) << state.status();
        result.state = *std::move(state);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int64_t i = 0; i < chunks; ++i) result.calls.push_back(chain.calls(i));
  return result;
}

bool SameBytes(const Floats& a, const Floats& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const float& x, const float& y) {
           return std::memcmp(&x, &y, sizeof(float)) == 0;
         });
}

void ExpectSame(const Result& got, const Result& want) {
  ASSERT_EQ(got.chunks.size(), want.chunks.size());
  for (size_t i = 0; i < got.chunks.size(); ++i) {
    EXPECT_TRUE(SameBytes(got.chunks[i], want.chunks[i])) << "chunk " << i;
  }
  ASSERT_EQ(got.state.size(), want.state.size());
  for (size_t i = 0; i < got.state.size(); ++i) {
    EXPECT_TRUE(SameBytes(got.state[i], want.state[i])) << "tensor " << i;
  }
}

TEST_P(StateFlowTest, SeveralRunnersGiveTheBytesOfOne) {
  std::vector<ModelConfig> configs = {H3Config(1), SignalConfig()};
  // Around the halo's 63 tokens, single tokens, and longer ones.
  std::vector<std::vector<int64_t>> splits = {{66, 1, 40, 64}};
  if (!Emulated()) {
    configs.push_back(H3Config(8));
    splits.push_back({64, 1, 63, 5, 1, 1, 62, 130, 2, 31, 40});
    splits.push_back({2500, 2500, 2500, 100});
  }
  for (const ModelConfig& config : configs) {
    const std::shared_ptr<const Model> model = Make(config);
    for (const std::vector<int64_t>& lengths : splits) {
      const Sequence sequence(*model, Sum(lengths));
      const Result one = OneRunner(model, sequence, lengths, 1);
      for (int runners : {2, 3}) {
        ExpectSame(SeveralRunners(model, sequence, lengths, runners), one);
      }
      if (!Emulated()) ExpectSame(OneRunner(model, sequence, lengths, 3), one);
    }
  }
}

// The same with trained and published weights, whose states are as long-lived as they come.
TEST_P(StateFlowTest, SeveralRunnersGiveTheBytesOfOneOnGoldenModels) {
  if (Emulated()) GTEST_SKIP() << "too slow in the emulator";
  const char* moved = std::getenv("LONGWAVE_SOURCE");
  const std::string source = moved != nullptr ? moved : LONGWAVE_SOURCE_DIR;
  for (const char* name : {"tests/golden/h3-pure-hd1", "tests/golden/h3-pure-hd8",
                           "tests/golden/h3-long", "tests/golden/s4d", "examples/h3-dna"}) {
    const auto model = Model::Load(source + "/" + name, GetParam().options);
    ASSERT_TRUE(model.ok()) << model.status();
    const std::vector<int64_t> lengths = {700, 700, 64, 1, 700, 37};
    const Sequence sequence(**model, Sum(lengths));
    const Result one = OneRunner(*model, sequence, lengths, 2);
    for (int runners : {2, 3}) {
      SCOPED_TRACE(name);
      ExpectSame(SeveralRunners(*model, sequence, lengths, runners), one);
    }
  }
}

// Nothing is received before it is needed, and what is known is sent before anything is waited for.
TEST_P(StateFlowTest, StatesAreSentAsSoonAsTheyAreKnown) {
  const std::shared_ptr<const Model> h3 = Make(H3Config(1)), s4d = Make(SignalConfig());
  const std::vector<int64_t> lengths = {63, 62, 1, 2};
  const Result words = SeveralRunners(h3, Sequence(*h3, Sum(lengths)), lengths, 2);
  EXPECT_EQ(words.calls[0], "S0 R0 R1 S1 S2 R2 R3 S3");
  EXPECT_EQ(words.calls[1], "R0 S0 R1 S1 R2 S2 R3 S3");
  EXPECT_EQ(words.calls[2], "R0 R1 S0 S1 R2 R3 S2 S3");
  EXPECT_EQ(words.calls[3], words.calls[1]);
  const Result signal = SeveralRunners(s4d, Sequence(*s4d, Sum(lengths)), lengths, 2);
  for (const std::string& calls : signal.calls) EXPECT_EQ(calls, "R0 S0 R1 S1 R2 S2");
}

TEST_P(StateFlowTest, AnErrorOfTheFlowEndsThePass) {
  const std::shared_ptr<const Model> model = Make(H3Config(1));
  const std::vector<int64_t> lengths = {70, 80};
  const Sequence sequence(*model, Sum(lengths));
  ThreadPool pool(1);
  const auto runner = Runner(model, 80, pool);
  StateChain chain(*model, 2);
  absl::Status status;
  std::thread waiting([&] { sequence.Run(*runner, 70, 80, &chain.flow(1), &status); });
  chain.Cancel();
  waiting.join();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(chain.calls(1), "S0 R0");

  runner->Reset();
  const Floats first = sequence.Run(*runner, 0, 70, nullptr, &status);
  ASSERT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(SameBytes(first, OneRunner(model, sequence, lengths, 1).chunks[0]));
}

TEST_P(StateFlowTest, AttentionCannotBeSpread) {
  ModelConfig config = H3Config(1);
  config.attn_layer_idx = {1};
  config.attn_num_heads = 2;
  const std::shared_ptr<const Model> model = Make(config);
  ThreadPool pool(1);
  const auto runner = Runner(model, 80, pool);
  EXPECT_EQ(runner->Seek(0), absl::OkStatus());
  EXPECT_TRUE(absl::IsFailedPrecondition(runner->Seek(5)));
}

}  // namespace
}  // namespace longwave

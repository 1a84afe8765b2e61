// Chunks of a sequence in turn on two workers with a GPU each, states by links between them:
// bitwise what one runner gives, over NCCL or what takes its place (nccl_test_util.h), over ZeroMQ,
// and where NCCL fails on the way.
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "worker/executor/sequence_runner.h"
#include "worker/links/exchange.h"
#include "worker/links/link_flow.h"
#include "worker/links/nccl_test_util.h"
#include "worker/model/model.h"

namespace longwave {
namespace {

using Floats = std::vector<float>;
using Fault = FaultyNccl::Fault;

constexpr int64_t kVocab = 37;
constexpr int64_t kLengths[] = {70, 64, 1, 75, 5, 70};  // around the halo's 63 tokens
constexpr int64_t kChunk = 75, kChunks = std::size(kLengths);

int64_t First(int64_t chunk) {
  int64_t sum = 0;
  for (int64_t i = 0; i < chunk; ++i) sum += kLengths[i];
  return sum;
}

class LinkChainTest : public testing::Test {
 protected:
  void SetUp() override {
    LONGWAVE_NEEDS_TWO_GPUS();
    ModelConfig config;
    config.d_model = 32;
    config.n_layer = 2;
    config.d_state = 64;
    config.d_inner = 64;
    config.vocab_size = kVocab;
    for (int side = 0; side < 2; ++side) {
      const Device device{Device::Kind::kCuda, TestDevice(side)};
      auto model = Model::Random(config, {device, Dtype::kBFloat16});
      ASSERT_TRUE(model.ok()) << model.status();
      models_[side] = *model;
      pools_[side] = DevicePool::Create(device.index);
    }
    std::mt19937 random(7);
    for (int64_t t = 0; t < First(kChunks); ++t) {
      tokens_.push_back(static_cast<int32_t>(random() % kVocab));
    }
    one_ = OneRunner();
  }

  void Open(std::shared_ptr<NcclApi> first, std::shared_ptr<NcclApi> second) {
    for (int side = 0; side < 2; ++side) {
      ExchangeOptions options;
      options.nccl = TestLink(side == 0 ? first : second, side);
      auto exchange = Exchange::Open(options);
      ASSERT_TRUE(exchange.ok()) << exchange.status();
      exchanges_[side] = *std::move(exchange);
    }
  }
  void Join() {
    for (int side = 0; side < 2; ++side) {
      ASSERT_TRUE(
          JoinByNccl(*exchanges_[side], *exchanges_[1 - side], *pools_[side], TestDevice(side)));
    }
  }

  std::unique_ptr<SequenceRunner> Runner(int side, ThreadPool& pool) const {
    auto runner = SequenceRunner::Create(models_[side], {.chunk = kChunk}, &pool);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }
  // One chunk's logits.
  Floats Run(SequenceRunner& runner, int64_t chunk, StateFlow* flow) const {
    const int64_t count = kLengths[chunk];
    Floats logits(count * kVocab);
    const auto tokens = absl::MakeConstSpan(tokens_).subspan(First(chunk), count);
    EXPECT_EQ(runner.Forward(tokens, flow), absl::OkStatus());
    EXPECT_EQ(runner.Logits(0, count, absl::MakeSpan(logits)), absl::OkStatus());
    return logits;
  }
  std::vector<Floats> OneRunner() const {
    ThreadPool pool(1);
    const auto runner = Runner(0, pool);
    std::vector<Floats> logits;
    for (int64_t i = 0; i < kChunks; ++i) logits.push_back(Run(*runner, i, nullptr));
    return logits;
  }

  // A worker's chunks, of job `job`.
  void Work(int side, const std::string& job, std::vector<Floats>& logits) const {
    ThreadPool pool(1);
    const auto runner = Runner(side, pool);
    std::vector<int64_t> floats;
    for (const StateTensorSpec& spec : models_[side]->state_specs())
      floats.push_back(spec.elements());
    const auto tensors = static_cast<int64_t>(floats.size());
    auto flow = LinkFlow::Create(models_[side]->device(), floats);
    ASSERT_TRUE(flow.ok()) << flow.status();
    for (int64_t chunk = side; chunk < kChunks; chunk += 2) {
      const std::string before_name = absl::StrCat(job, "/", chunk - 1);
      auto after = exchanges_[side]->Publish(absl::StrCat(job, "/", chunk), tensors);
      std::shared_ptr<StateStream> before;
      if (chunk == 0) {
        before = std::make_shared<StateStream>(tensors);
        for (int64_t i = 0; i < tensors; ++i) {
          before->Put(i, std::make_shared<const std::string>(floats[i] * sizeof(float), '\0'));
        }
      } else {
        before =
            exchanges_[side]->Subscribe(before_name, exchanges_[1 - side]->endpoint(), tensors);
      }
      EXPECT_EQ(runner->Seek(First(chunk)), absl::OkStatus());
      (*flow)->Begin(before, after);
      logits[chunk] = Run(*runner, chunk, flow->get());
      exchanges_[side]->Unsubscribe(before_name);
    }
  }
  void ExpectOnesBytes(const std::string& job) {
    std::vector<Floats> logits(kChunks);
    std::thread other([&] { Work(1, job, logits); });
    Work(0, job, logits);
    other.join();
    for (int64_t i = 0; i < kChunks; ++i) {
      ASSERT_EQ(logits[i].size(), one_[i].size());
      EXPECT_EQ(std::memcmp(logits[i].data(), one_[i].data(), one_[i].size() * sizeof(float)), 0)
          << "chunk " << i;
    }
  }

  std::shared_ptr<const Model> models_[2];
  std::shared_ptr<DevicePool> pools_[2];
  std::unique_ptr<Exchange> exchanges_[2];
  std::vector<int32_t> tokens_;
  std::vector<Floats> one_;
};

TEST_F(LinkChainTest, OverNcclTheBytesAreThoseOfOneRunner) {
  const auto api = TestNccl();
  Open(api, api);
  Join();
  for (const char* job : {"j/1", "j/2", "j/3"}) ExpectOnesBytes(job);
  int64_t by_nccl = 0, all = 0;
  for (const auto& exchange : exchanges_) by_nccl += exchange->counts().nccl.received_bytes;
  for (const StateTensorSpec& spec : models_[0]->state_specs()) all += spec.elements() * 4;
  EXPECT_EQ(by_nccl, 3 * (kChunks - 1) * all + 2 * 4);  // and "join" twice
}

TEST_F(LinkChainTest, OverZmqTheBytesAreThoseOfOneRunner) {
  Open(nullptr, nullptr);
  for (const char* job : {"j/1", "j/2", "j/3"}) ExpectOnesBytes(job);
  EXPECT_EQ(exchanges_[0]->counts().nccl.received_tensors, 0);
}

TEST_F(LinkChainTest, WhereNcclFailsOnTheWayTheBytesAreTheSame) {
  const auto api = TestNccl();
  // Joining takes 7 calls: an id, an end and two transfers of the one link, and of the other the
  // same without the id. The job makes some twenty.
  for (const Fault fault : {Fault::kError, Fault::kErrorLater, Fault::kNothing}) {
    for (const int64_t at : {7, 14}) {
      SCOPED_TRACE(absl::StrCat("fault ", static_cast<int>(fault), " in call ", at));
      const auto faulty = std::make_shared<FaultyNccl>(api, at, fault);
      Open(at % 2 == 0 ? faulty : api, at % 2 == 0 ? api : faulty);
      Join();
      ExpectOnesBytes("j/1");
      EXPECT_TRUE(faulty->happened());
      ExpectOnesBytes("j/2");
    }
  }
}

}  // namespace
}  // namespace longwave

// Links over NCCL, or over what takes its place: see nccl_test_util.h.
#include "worker/links/nccl_link.h"

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/links/exchange.h"
#include "worker/links/nccl_test_util.h"

namespace longwave {
namespace {

using Fault = FaultyNccl::Fault;
using Role = NcclLink::Role;
using State = NcclLink::State;

std::string Text(int64_t index, int64_t bytes = 4000) {
  return std::string(bytes, static_cast<char>('a' + index % 26));
}

// Until it is so; false where that takes too long.
template <typename Fn>
bool Eventually(Fn so) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!so()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

struct Received {
  std::mutex mutex;
  std::vector<std::string> texts;
  size_t count() {
    const std::lock_guard<std::mutex> lock(mutex);
    return texts.size();
  }
};

TEST(NcclLink, MovesTensorsInOrderBothWaysAtOnce) {
  LONGWAVE_NEEDS_TWO_GPUS();
  constexpr int64_t kTensors = 40;
  const auto api = TestNccl();
  const NcclLinkOptions options[2] = {TestLink(api, 0), TestLink(api, 1)};
  std::unique_ptr<NcclLink> from[2], to[2];
  Received received[2];
  for (int side = 0; side < 2; ++side) {
    const NcclId id = *api->NewId();
    from[side] = std::make_unique<NcclLink>(options[side], Role::kSender, id, [] {});
    to[side] = std::make_unique<NcclLink>(options[1 - side], Role::kReceiver, id, [] {});
  }
  for (int64_t i = 0; i < kTensors; ++i) {
    const int64_t bytes = 1 + i * 7000;
    for (int side = 0; side < 2; ++side) {
      const int device = TestDevice(1 - side);
      to[side]->Receive(bytes, [&, side, device](std::shared_ptr<const DeviceTensor> tensor) {
        std::string text = TextOf(*tensor, device);
        const std::lock_guard<std::mutex> lock(received[side].mutex);
        received[side].texts.push_back(std::move(text));
      });
      from[side]->Send(OnDevice(Text(i + side, bytes), *options[side].pool, options[side].device));
    }
  }
  for (int side = 0; side < 2; ++side) {
    ASSERT_TRUE(Eventually([&] { return received[side].count() == kTensors; }))
        << from[side]->error() << to[side]->error();
    EXPECT_EQ(from[side]->state(), State::kUp);
    for (int64_t i = 0; i < kTensors; ++i) {
      EXPECT_EQ(received[side].texts[i], Text(i + side, 1 + i * 7000)) << i;
    }
  }
}

TEST(NcclLink, IsBrokenWhereTheOtherSideGoesOrNeverComes) {
  LONGWAVE_NEEDS_TWO_GPUS();
  const auto api = TestNccl();
  const NcclId id = *api->NewId();
  NcclLink from(TestLink(api, 0), Role::kSender, id, [] {});
  auto to = std::make_unique<NcclLink>(TestLink(api, 1), Role::kReceiver, id, [] {});
  ASSERT_TRUE(Eventually([&] { return from.state() == State::kUp; })) << from.error();
  ASSERT_TRUE(Eventually([&] { return to->state() == State::kUp; })) << to->error();
  from.Stop();
  ASSERT_TRUE(Eventually([&] { return from.ended(); }));
  EXPECT_TRUE(absl::IsCancelled(from.error())) << from.error();
  to->Receive(100, [](auto) { ADD_FAILURE() << "nobody sent this"; });
  ASSERT_TRUE(Eventually([&] { return to->ended(); }));
  EXPECT_FALSE(to->error().ok());
  to->Receive(100, [](auto) { ADD_FAILURE() << "the link is broken"; });

  NcclLinkOptions alone = TestLink(api, 0);
  alone.connect_limit = std::chrono::milliseconds(100);
  NcclLink waits(alone, Role::kSender, *api->NewId(), [] {});
  ASSERT_TRUE(Eventually([&] { return waits.ended(); }));
  EXPECT_TRUE(absl::IsDeadlineExceeded(waits.error())) << waits.error();
}

// ---- Two exchanges, as two workers have them.
class NcclExchangeTest : public testing::Test {
 protected:
  void SetUp() override { LONGWAVE_NEEDS_TWO_GPUS(); }

  static std::unique_ptr<Exchange> Open(const NcclLinkOptions& nccl) {
    ExchangeOptions options;
    options.nccl = nccl;
    auto exchange = Exchange::Open(options);
    EXPECT_TRUE(exchange.ok()) << exchange.status();
    return *std::move(exchange);
  }
  void Open(std::shared_ptr<NcclApi> publisher, std::shared_ptr<NcclApi> subscriber) {
    from_ = Open(TestLink(std::move(publisher), 0));
    to_ = Open(TestLink(std::move(subscriber), 1));
  }
  // A stream of so many tensors on the GPU and one that is not; what arrives is looked at.
  void PassStream(const std::string& name, int64_t tensors) {
    auto subscribed = to_->Subscribe(name, from_->endpoint(), tensors + 1);
    auto published = from_->Publish(name, tensors + 1);
    std::thread publisher([&] {
      for (int64_t i = 0; i <= tensors; ++i) {
        const auto bytes = std::make_shared<const std::string>(Text(i));
        const auto on_device = i < tensors ? OnDevice(*bytes, *pool_, TestDevice(0)) : nullptr;
        published->Put(i, {bytes, on_device});
      }
    });
    for (int64_t i = 0; i <= tensors; ++i) {
      const absl::StatusOr<StateTensor> tensor = subscribed->WaitTensor(i);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(tensor->link, tensor->on_device != nullptr ? Link::kNccl : Link::kZmq);
      EXPECT_EQ(
          tensor->on_device != nullptr ? TextOf(*tensor->on_device, TestDevice(1)) : *tensor->bytes,
          Text(i))
          << i;
    }
    publisher.join();
    to_->Unsubscribe(name);
    from_->Forget(name);
  }

  std::shared_ptr<DevicePool> pool_ = DevicePool::Create(TestDevice(0));
  std::unique_ptr<Exchange> from_, to_;
};

TEST_F(NcclExchangeTest, TensorsOnTheGpuGoByNcclAndTheRestByZmq) {
  const auto api = TestNccl();
  Open(api, api);
  ASSERT_TRUE(JoinByNccl(*from_, *to_, *pool_, TestDevice(0)));
  const LinkCounts before = from_->counts(), before_there = to_->counts();
  for (int s = 0; s < 5; ++s) PassStream(absl::StrCat("j/1/", s), 20);
  const LinkCounts counts = from_->counts(), there = to_->counts();
  EXPECT_EQ(counts.nccl.sent_tensors - before.nccl.sent_tensors, 100);
  EXPECT_EQ(counts.nccl.sent_bytes - before.nccl.sent_bytes, 100 * 4000);
  EXPECT_EQ(there.nccl.received_bytes - before_there.nccl.received_bytes, 100 * 4000);
  EXPECT_EQ(counts.zmq.sent_tensors - before.zmq.sent_tensors, 5);
  EXPECT_EQ(there.zmq.received_tensors - before_there.zmq.received_tensors, 5);
  EXPECT_EQ(counts.process.sent_tensors, 0);
}

TEST_F(NcclExchangeTest, OneSideWithoutNcclIsServedByZmq) {
  const auto api = TestNccl();
  for (const bool publisher_has_it : {false, true}) {
    Open(publisher_has_it ? api : nullptr, publisher_has_it ? nullptr : api);
    for (int s = 0; s < 3; ++s) PassStream(absl::StrCat("j/1/", s), 3);
    EXPECT_EQ(from_->counts().nccl.sent_tensors, 0);
    EXPECT_EQ(to_->counts().zmq.received_tensors, 12);
  }
}

// Every call to NCCL in turn goes wrong, on either side; what arrives is right all the same.
TEST_F(NcclExchangeTest, WhateverGoesWrongEndsInZmq) {
  const auto api = TestNccl();
  for (const Fault fault : {Fault::kError, Fault::kErrorLater, Fault::kNothing}) {
    for (const bool publishers : {true, false}) {
      for (int64_t at = 0; at < 6; ++at) {
        SCOPED_TRACE(absl::StrCat("fault ", static_cast<int>(fault), " in call ", at, " of the ",
                                  publishers ? "publisher" : "subscriber"));
        if (fault != Fault::kError && publishers && at == 0) continue;  // a new id breaks nothing
        const auto faulty = std::make_shared<FaultyNccl>(api, at, fault);
        Open(publishers ? faulty : api, publishers ? api : faulty);
        for (int s = 0; !faulty->happened() && s < 20000; ++s) {
          PassStream(absl::StrCat("j/1/", s), 2);
          if (HasFatalFailure()) return;
        }
        EXPECT_TRUE(faulty->happened());
        for (int s = 0; s < 3; ++s) PassStream(absl::StrCat("j/2/", s), 2);
        // Once both know, nothing goes by NCCL any more.
        ASSERT_TRUE(Eventually([&, s = 0]() mutable {
          const int64_t sent = from_->counts().nccl.sent_tensors;
          PassStream(absl::StrCat("j/3/", s++), 2);
          return from_->counts().nccl.sent_tensors == sent;
        }));
        to_.reset();
        from_.reset();
      }
    }
  }
}

TEST_F(NcclExchangeTest, APeerThatLeavesHoldsNobodyUp) {
  const auto api = TestNccl();
  Open(api, api);
  ASSERT_TRUE(JoinByNccl(*from_, *to_, *pool_, TestDevice(0)));
  // The subscriber goes in the middle of a stream; another comes for the same.
  auto published = from_->Publish("j/1/0", 3);
  auto subscribed = to_->Subscribe("j/1/0", from_->endpoint(), 3);
  published->Put(0, {nullptr, OnDevice(Text(0), *pool_, TestDevice(0))});
  EXPECT_TRUE(subscribed->WaitTensor(0).ok());
  to_.reset();
  from_->Forget("j/1/0");
  to_ = Open(TestLink(api, 1));
  for (int s = 0; s < 3; ++s) PassStream(absl::StrCat("j/2/", s), 3);
  ASSERT_TRUE(JoinByNccl(*from_, *to_, *pool_, TestDevice(0)));
  // The publisher goes: the wait is ended by whoever has the boundary.
  published = from_->Publish("j/3/0", 1);
  subscribed = to_->Subscribe("j/3/0", from_->endpoint(), 1);
  from_.reset();
  std::thread store([&] { subscribed->Put(0, std::make_shared<const std::string>(Text(0))); });
  EXPECT_EQ(**subscribed->Wait(0), Text(0));
  store.join();
}

TEST(ChooseCollective, KnowsThreeWords) {
  const Device gpu{Device::Kind::kCuda};
  EXPECT_EQ(*ChooseCollective("zmq", gpu), nullptr);
  EXPECT_EQ(*ChooseCollective("auto", {}), nullptr);
  EXPECT_TRUE(absl::IsInvalidArgument(ChooseCollective("nccl", {}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ChooseCollective("gloo", gpu).status()));
  const auto loaded = NcclApi::Load();
  EXPECT_EQ(*ChooseCollective("auto", gpu) != nullptr, loaded.ok());
  EXPECT_EQ(ChooseCollective("nccl", gpu).ok(), loaded.ok());
  EXPECT_TRUE(loaded.ok() || absl::IsUnavailable(loaded.status())) << loaded.status();
}

}  // namespace
}  // namespace longwave

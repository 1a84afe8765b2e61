#include "worker/links/exchange.h"

#include <random>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/links/link_messages.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Exchange> Open(const ExchangeOptions& options = {}) {
  auto exchange = Exchange::Open(options);
  EXPECT_TRUE(exchange.ok()) << exchange.status();
  return *std::move(exchange);
}

StateBytes Tensor(int64_t index, size_t size = 1000) {
  return std::make_shared<const std::string>(size, static_cast<char>('a' + index));
}

void ExpectAll(StateStream& stream) {
  for (int64_t i = 0; i < stream.size(); ++i) {
    const absl::StatusOr<StateBytes> got = stream.Wait(i);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(**got, *Tensor(i)) << i;
  }
}

TEST(StateStream, IsFilledInAnyOrderAndOnlyOnce) {
  int puts = 0;
  StateStream stream(3, [&] { ++puts; });
  EXPECT_TRUE(stream.Put(1, Tensor(1)));
  EXPECT_EQ(stream.first_missing(), 0);
  EXPECT_TRUE(stream.Put(0, Tensor(0)));
  EXPECT_EQ(stream.first_missing(), 2);
  EXPECT_FALSE(stream.Put(1, Tensor(2)));
  EXPECT_FALSE(stream.Put(3, Tensor(3)));
  EXPECT_FALSE(stream.Put(-1, Tensor(3)));
  EXPECT_EQ(puts, 2);
  EXPECT_EQ(**stream.Wait(1), *Tensor(1));
  stream.Fail(absl::CancelledError("no"));
  EXPECT_TRUE(stream.Wait(0).ok());
  EXPECT_TRUE(absl::IsCancelled(stream.Wait(2).status()));
}

TEST(Exchange, OfOneProcessIsAPointer) {
  auto exchange = Open();
  auto published = exchange->Publish("j/1/0", 2);
  EXPECT_EQ(exchange->Subscribe("j/1/0", exchange->endpoint(), 2), published);
  EXPECT_EQ(exchange->counts().process.sent_tensors, 0);
  published->Put(0, Tensor(0));
  while (exchange->counts().process.received_tensors == 0) std::this_thread::yield();
  EXPECT_EQ(exchange->counts().process.sent_bytes, 1000);
  EXPECT_EQ(exchange->counts().zmq.sent_tensors, 0);
}

TEST(Exchange, SubscribersEarlyAndLateGetEverything) {
  auto from = Open(), to = Open(), late = Open();
  auto early = to->Subscribe("j/1/0", from->endpoint(), 6);  // before there is such a stream
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  auto published = from->Publish("j/1/0", 6);
  for (int64_t i = 0; i < 3; ++i) published->Put(i, Tensor(i));
  auto after = late->Subscribe("j/1/0", from->endpoint(), 6);
  EXPECT_TRUE(after->Wait(2).ok());
  EXPECT_TRUE(early->Wait(2).ok());
  for (int64_t i = 3; i < 6; ++i) published->Put(i, Tensor(i));
  ExpectAll(*early);
  ExpectAll(*after);
  // More where the machine is so busy that one asked again after half a second.
  EXPECT_GE(from->counts().zmq.sent_bytes, 12 * 1000);
  EXPECT_EQ(to->counts().zmq.received_bytes, 6 * 1000);
}

TEST(Exchange, GoesThroughSocketsInOneProcessWhereItIsTold) {
  auto exchange = Open({.always_sockets = true});
  auto published = exchange->Publish("j/1/0", 2);
  auto subscribed = exchange->Subscribe("j/1/0", exchange->endpoint(), 2);
  EXPECT_NE(subscribed, published);
  published->Put(0, Tensor(0));
  published->Put(1, Tensor(1));
  ExpectAll(*subscribed);
}

TEST(Exchange, ManyStreamsBothWaysAtOnce) {
  constexpr int kStreams = 20, kTensors = 30;
  auto a = Open(), b = Open();
  std::vector<std::thread> threads;
  for (auto [from, to] : {std::pair{a.get(), b.get()}, std::pair{b.get(), a.get()}}) {
    threads.emplace_back([from = from] {
      for (int s = 0; s < kStreams; ++s) {
        auto stream = from->Publish(absl::StrCat("j/", s), kTensors);
        for (int64_t i = 0; i < kTensors; ++i) stream->Put(i, Tensor(i % 26, 50000));
      }
    });
    threads.emplace_back([from = from, to = to] {
      for (int s = 0; s < kStreams; ++s) {
        const std::string name = absl::StrCat("j/", s);
        auto stream = to->Subscribe(name, from->endpoint(), kTensors);
        for (int64_t i = 0; i < kTensors; ++i) EXPECT_EQ(**stream->Wait(i), *Tensor(i % 26, 50000));
        to->Unsubscribe(name);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Exchange, APublisherThatComesBackGivesTheRest) {
  auto to = Open();
  auto from = Open();
  const std::string endpoint = from->endpoint();
  auto stream = to->Subscribe("s", endpoint, 4);
  auto published = from->Publish("s", 4);
  published->Put(0, Tensor(0));
  published->Put(1, Tensor(1));
  EXPECT_TRUE(stream->Wait(1).ok());
  from.reset();  // the connection is cut
  // ZeroMQ closes sockets in the background.
  absl::StatusOr<std::unique_ptr<Exchange>> again = absl::UnavailableError("");
  while (absl::IsUnavailable(again.status())) again = Exchange::Open({.listen = endpoint});
  ASSERT_TRUE(again.ok()) << again.status();
  from = *std::move(again);
  published = from->Publish("s", 4);
  for (int64_t i = 0; i < 4; ++i) published->Put(i, Tensor(i));
  ExpectAll(*stream);
}

TEST(Exchange, WhatAnotherPutsEndsTheWait) {
  auto to = Open();
  auto stream = to->Subscribe("s", "tcp://127.0.0.1:1", 1);  // nobody listens there
  std::thread other([&] { stream->Put(0, Tensor(0)); });
  ExpectAll(*stream);
  other.join();
}

TEST(Exchange, GarbageIsPassedOver) {
  auto from = Open(), to = Open();
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::linger, 100);
  socket.connect(from->endpoint());
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    const int frames = 1 + random() % 3;
    for (int f = 0; f < frames; ++f) {
      std::string bytes(random() % 40, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      if (random() % 2 == 0) bytes = EncodeLink({LinkMessage::Type::kTensor, "s", 0});
      socket.send(zmq::buffer(bytes),
                  f + 1 < frames ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }
  auto stream = to->Subscribe("s", from->endpoint(), 1);
  from->Publish("s", 1)->Put(0, Tensor(0));
  ExpectAll(*stream);
}

TEST(Exchange, RefusesAddressesThatAreNone) {
  for (const char* listen : {"127.0.0.1:0", "tcp://nowhere:x", "ipc:///tmp/x"}) {
    const auto exchange = Exchange::Open({.listen = listen});
    EXPECT_FALSE(exchange.ok()) << listen;
    EXPECT_THAT(std::string(exchange.status().message()), HasSubstr(listen));
  }
}

TEST(LinkMessage, GoesThereAndBackAndNothingElseDoes) {
  using Type = LinkMessage::Type;
  for (const LinkMessage& message :
       std::vector<LinkMessage>{{Type::kSubscribe, "job/3/17", 41, LinkMessage::kWantsNccl},
                                {Type::kTensor, "job/3/17", 41},
                                {Type::kCommunicator, "", 0, 7, std::string(kNcclIdBytes, 'i')},
                                {Type::kCommunicator, "", 0, 7},
                                {Type::kByNccl, "job/3/17", 41, 7, "", 12, 390144}}) {
    const std::string bytes = EncodeLink(message);
    EXPECT_EQ(*DecodeLink(bytes), message);
    for (size_t cut = 0; cut < bytes.size(); ++cut)
      EXPECT_FALSE(DecodeLink(bytes.substr(0, cut)).ok());
    EXPECT_FALSE(DecodeLink(bytes + "x").ok());
  }
  for (const LinkMessage& message :
       std::vector<LinkMessage>{{Type::kTensor, "s", -1},
                                {Type::kTensor, "", 0},
                                {Type::kTensor, std::string(600, 'n'), 0},
                                {Type::kSubscribe, "s", 0, -3},
                                {Type::kCommunicator, "", 0, 0, std::string(kNcclIdBytes, 'i')},
                                {Type::kCommunicator, "", 0, 7, "short"},
                                {Type::kByNccl, "s", 0, 0, "", 0, 1},
                                {Type::kByNccl, "s", 0, 1, "", -1, 1},
                                {Type::kByNccl, "s", 0, 1, "", 0, kMostTensorBytes + 1}}) {
    EXPECT_FALSE(DecodeLink(EncodeLink(message)).ok());
  }
}

}  // namespace
}  // namespace longwave

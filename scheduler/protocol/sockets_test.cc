#include "scheduler/protocol/sockets.h"

#include <chrono>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

std::optional<Received> Next(MessageSocket& socket) {
  for (int i = 0; i < 100; ++i) {
    if (auto received = socket.Receive()) return received;
    socket.Wait(50);
  }
  return std::nullopt;
}

void SendSoon(MessageSocket& socket, const Message& message) {
  for (int i = 0; i < 200 && !socket.Send("", message); ++i) socket.Wait(20);
}

TEST(Sockets, MessagesGoBothWaysByName) {
  auto router = OpenRouter("tcp://127.0.0.1:0");
  ASSERT_TRUE(router.ok()) << router.status();
  auto a = OpenDealer((*router)->endpoint(), "a"), b = OpenDealer((*router)->endpoint(), "b");
  SendSoon(**a, Hello{1, "cpu", ""});
  auto received = Next(**router);
  ASSERT_TRUE(received.has_value() && received->message.ok());
  EXPECT_EQ(received->peer, "a");
  SendSoon(**b, HandBack{{"a", 5, 1}});
  received = Next(**router);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->peer, "b");
  EXPECT_TRUE((*router)->Send("a", Drain{}));
  received = Next(**a);
  ASSERT_TRUE(received.has_value() && received->message.ok());
  EXPECT_TRUE(*received->message == Message(Drain{}));
  EXPECT_FALSE((*router)->Send("nobody", Drain{}));
}

TEST(Sockets, ASecondConnectionOfOneNameTakesOver) {
  auto router = OpenRouter("tcp://127.0.0.1:0");
  auto before = OpenDealer((*router)->endpoint(), "w");
  SendSoon(**before, HandBack{{"a", 1, 1}});
  ASSERT_TRUE(Next(**router).has_value());
  auto after = OpenDealer((*router)->endpoint(), "w");
  SendSoon(**after, HandBack{{"a", 2, 1}});
  ASSERT_TRUE(Next(**router).has_value());
  EXPECT_TRUE((*router)->Send("w", Unknown{}));
  EXPECT_TRUE(Next(**after).has_value());
  EXPECT_FALSE((*before)->Receive().has_value());
}

TEST(Sockets, AWakeEndsAWait) {
  auto router = OpenRouter("tcp://127.0.0.1:0");
  std::thread other([&] { (*router)->waker().Wake(); });
  const auto start = std::chrono::steady_clock::now();
  (*router)->Wait(20000);
  other.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Sockets, RefusesWhatIsNoEndpoint) {
  EXPECT_TRUE(absl::IsInvalidArgument(OpenRouter("http://x:1").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenRouter("tcp://nonsense").status()));
  auto first = OpenRouter("tcp://127.0.0.1:0");
  EXPECT_TRUE(absl::IsUnavailable(OpenRouter((*first)->endpoint()).status()));
}

}  // namespace
}  // namespace longwave

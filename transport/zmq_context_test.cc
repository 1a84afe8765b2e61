#include "transport/zmq_context.h"

#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

CurveKey Key(char digit) {
  const auto key = ParseCurveKey(std::string(64, digit));
  EXPECT_TRUE(key.ok()) << key.status();
  return *key;
}

// Whether what a client with one key says reaches a server with another.
bool Hears(const CurveKey& server_key, const CurveKey& client_key) {
  const auto context = SharedZmqContext();
  zmq::socket_t server(*context, zmq::socket_type::router);
  zmq::socket_t client(*context, zmq::socket_type::dealer);
  for (zmq::socket_t* socket : {&server, &client}) socket->set(zmq::sockopt::linger, 0);
  Secure(server, server_key, true);
  Secure(client, client_key, false);
  server.bind("tcp://127.0.0.1:*");
  client.connect(server.get(zmq::sockopt::last_endpoint));
  client.send(zmq::str_buffer("hello"), zmq::send_flags::none);
  zmq::pollitem_t item{server.handle(), 0, ZMQ_POLLIN, 0};
  // One that is refused never comes; a second is long on loopback.
  const bool same = server_key.secret == client_key.secret;
  return zmq::poll(&item, 1, std::chrono::milliseconds(same ? 20000 : 1000)) > 0;
}

TEST(Endpoint, HasAHostAndAPort) {
  for (const char* good : {"tcp://127.0.0.1:0", "tcp://*:7601", "tcp://[::1]:65535", "tcp://a:*"}) {
    EXPECT_EQ(CheckEndpoint(good), absl::OkStatus()) << good;
  }
  for (const char* bad : {"", "tcp://", "tcp://a", "tcp://:1", "udp://a:1", "tcp://a:65536",
                          "tcp://a:-1", "tcp://a:1x", "tcp://a:"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckEndpoint(bad))) << bad;
  }
}

TEST(Curve, LetsInWhoHasTheKeyAndNobodyElse) {
  EXPECT_TRUE(Hears({}, {}));
  EXPECT_TRUE(Hears(Key('1'), Key('1')));
  EXPECT_FALSE(Hears(Key('1'), {}));
  EXPECT_FALSE(Hears({}, Key('1')));
  EXPECT_FALSE(Hears(Key('1'), Key('2')));
  // The server's public key alone, which anybody may have seen, is not enough.
  CurveKey stranger = Key('2');
  const auto context = SharedZmqContext();
  zmq::socket_t server(*context, zmq::socket_type::router);
  zmq::socket_t client(*context, zmq::socket_type::dealer);
  for (zmq::socket_t* socket : {&server, &client}) socket->set(zmq::sockopt::linger, 0);
  Secure(server, Key('1'), true);
  client.set(zmq::sockopt::curve_secretkey, stranger.secret);
  client.set(zmq::sockopt::curve_publickey, stranger.published);
  client.set(zmq::sockopt::curve_serverkey, Key('1').published);
  server.bind("tcp://127.0.0.1:*");
  client.connect(server.get(zmq::sockopt::last_endpoint));
  client.send(zmq::str_buffer("hello"), zmq::send_flags::none);
  zmq::pollitem_t item{server.handle(), 0, ZMQ_POLLIN, 0};
  EXPECT_EQ(zmq::poll(&item, 1, std::chrono::milliseconds(1000)), 0);
}

TEST(Curve, AKeyFileHasSixtyFourHexadecimalDigits) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/curve-", getpid());
  std::ofstream(path) << std::string(64, 'a') << "\n";
  const auto key = ReadCurveKey(path);
  ASSERT_TRUE(key.ok()) << key.status();
  EXPECT_EQ(key->secret, Key('A').secret);
  EXPECT_EQ(key->published.size(), 40u);
  std::ofstream(path) << std::string(63, 'a') << "g";
  EXPECT_THAT(std::string(ReadCurveKey(path).status().message()), HasSubstr(path));
  std::ofstream(path) << "";
  EXPECT_FALSE(ReadCurveKey(path).ok());
  unlink(path.c_str());
  EXPECT_THAT(std::string(ReadCurveKey(path).status().message()), HasSubstr(path));
}

}  // namespace
}  // namespace longwave

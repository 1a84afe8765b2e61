#include "services/cluster/status_listener.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <vector>

namespace longwave {
namespace {

namespace asio = boost::asio;

class Client {
 public:
  explicit Client(const std::string& url) {
    const std::string port = url.substr(url.rfind(':') + 1);
    socket_.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(std::stoi(port))});
  }
  void Send(const std::string& text) { asio::write(socket_, asio::buffer(text)); }
  std::string ReadAll() {
    std::string text;
    boost::system::error_code code;
    asio::read(socket_, asio::dynamic_buffer(text), code);
    return text;
  }

 private:
  asio::io_context context_;
  asio::ip::tcp::socket socket_{context_};
};

std::string Ask(const std::string& url, const std::string& request) {
  Client client(url);
  client.Send(request);
  return client.ReadAll();
}

TEST(StatusListener, AnswersAndRefuses) {
  std::atomic<int> asked = 0;
  auto listener = StatusListener::Start("127.0.0.1:0", [&](absl::string_view path) {
    ++asked;
    StatusListener::Answer answer;
    if (path == "/metrics") answer = {200, "text/plain; version=0.0.4", "a 1\n"};
    return answer;
  });
  ASSERT_TRUE(listener.ok()) << listener.status();
  const std::string& url = (*listener)->url();
  const std::string good = Ask(url, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(good.rfind("HTTP/1.1 200 OK\r\n", 0), 0u) << good;
  EXPECT_NE(good.find("Content-Type: text/plain; version=0.0.4\r\n"), std::string::npos) << good;
  EXPECT_EQ(good.substr(good.size() - 8), "\r\n\r\na 1\n") << good;
  const std::string head = Ask(url, "HEAD /metrics HTTP/1.0\r\n\r\n");
  EXPECT_EQ(head.rfind("HTTP/1.1 200 OK\r\n", 0), 0u) << head;
  EXPECT_EQ(head.substr(head.size() - 4), "\r\n\r\n");
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(Ask(url, "GET /x HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 404 ", 0), 0u);
  EXPECT_EQ(Ask(url, "POST /metrics HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 405 ", 0), 0u);
  EXPECT_EQ(Ask(url, "nonsense\r\n\r\n").rfind("HTTP/1.1 400 ", 0), 0u);
  const std::string long_line(20000, 'a');
  EXPECT_EQ(Ask(url, "GET /" + long_line + " HTTP/1.1\r\n\r\n").rfind("HTTP/1.1 400 ", 0), 0u);
}

TEST(StatusListener, SilentClientsDoNotStopOthers) {
  auto listener = StatusListener::Start("127.0.0.1:0", [](absl::string_view path) {
    return StatusListener::Answer{200, "text/plain", "ok\n"};
  });
  ASSERT_TRUE(listener.ok());
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < StatusListener::kMostConnections / 2; ++i) {
    silent.push_back(std::make_unique<Client>((*listener)->url()));
    silent.back()->Send("GET /");
  }
  EXPECT_NE(Ask((*listener)->url(), "GET / HTTP/1.1\r\n\r\n").find("ok\n"), std::string::npos);
}

TEST(StatusListener, AddressesThatAreNone) {
  for (const char* listen :
       {"", "9100", "localhost:x", "127.0.0.1:70000", "no.such.host.invalid:0"}) {
    const auto listener = StatusListener::Start(listen, nullptr);
    EXPECT_TRUE(absl::IsInvalidArgument(listener.status())) << listen;
    EXPECT_NE(listener.status().message().find(listen), std::string::npos);
  }
}

}  // namespace
}  // namespace longwave

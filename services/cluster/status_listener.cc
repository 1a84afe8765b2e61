#include "services/cluster/status_listener.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr uint32_t kHeaderBytes = 8 << 10;

class BeastListener final : public StatusListener {
 public:
  explicit BeastListener(AnswerFn answer) : answer_(std::move(answer)) {}
  ~BeastListener() override {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    int port = -1;
    if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
        port < 0 || port > 65535) {
      return absl::InvalidArgumentError(
          absl::StrCat("--metrics-listen ", listen, ": must be HOST:PORT"));
    }
    std::string host = listen.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
      host = host.substr(1, host.size() - 2);
    }
    error_code code;
    tcp::resolver resolver(context_);
    const auto found = resolver.resolve(host, absl::StrCat(port), tcp::resolver::passive, code);
    if (!code) acceptor_.open(found->endpoint().protocol(), code);
    if (!code) acceptor_.set_option(asio::socket_base::reuse_address(true), code);
    if (!code) acceptor_.bind(found->endpoint(), code);
    if (!code) acceptor_.listen(kMostConnections, code);
    if (code) {
      return absl::InvalidArgumentError(
          absl::StrCat("--metrics-listen ", listen, ": ", code.message()));
    }
    url_ = absl::StrCat("http://", listen.substr(0, colon), ":", acceptor_.local_endpoint().port());
    asio::co_spawn(context_, Accept(), asio::detached);
    thread_ = std::thread([this] { context_.run(); });
    return absl::OkStatus();
  }

  const std::string& url() const override { return url_; }

 private:
  asio::awaitable<void> Accept() {
    while (true) {
      error_code code;
      tcp::socket socket =
          co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, code));
      if (code) {  // out of file descriptors, say: others may be given back
        asio::steady_timer timer(context_, std::chrono::milliseconds(100));
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, code));
      } else if (connections_ < kMostConnections) {
        asio::co_spawn(context_, Serve(std::move(socket)), asio::detached);
      }
    }
  }

  asio::awaitable<void> Serve(tcp::socket socket) {
    ++connections_;
    try {
      co_await One(beast::tcp_stream(std::move(socket)));
    } catch (const std::exception&) {
      // The client is gone.
    }
    --connections_;
  }

  asio::awaitable<void> One(beast::tcp_stream stream) {
    stream.expires_after(std::chrono::seconds(kSeconds));
    beast::flat_buffer buffer(2 * kHeaderBytes);
    http::request_parser<http::empty_body> request;
    request.header_limit(kHeaderBytes);
    error_code code;
    co_await http::async_read_header(stream, buffer, request,
                                     asio::redirect_error(asio::use_awaitable, code));
    if (code == beast::error::timeout || code == http::error::end_of_stream) co_return;
    Answer answer;
    const bool head = !code && request.get().method() == http::verb::head;
    if (code) {
      answer = {400, answer.content_type, absl::StrCat("request: ", code.message(), "\n")};
    } else if (request.get().method() != http::verb::get && !head) {
      answer = {405, answer.content_type, "must be GET\n"};
    } else {
      const auto target = request.get().target();
      answer = answer_({target.data(), std::min(target.find('?'), target.size())});
    }
    http::response<http::string_body> response(static_cast<http::status>(answer.status), 11);
    response.set(http::field::server, "longwave");
    response.set(http::field::content_type, answer.content_type);
    if (answer.status == 405) response.set(http::field::allow, "GET, HEAD");
    response.keep_alive(false);
    response.body() = std::move(answer.body);
    response.prepare_payload();
    http::response_serializer<http::string_body> serializer(response);
    if (head) {
      co_await http::async_write_header(stream, serializer,
                                        asio::redirect_error(asio::use_awaitable, code));
    } else {
      co_await http::async_write(stream, serializer,
                                 asio::redirect_error(asio::use_awaitable, code));
    }
    stream.socket().shutdown(tcp::socket::shutdown_send, code);
  }

  AnswerFn answer_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  std::string url_;
  int connections_ = 0;  // of thread_
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StatusListener>> StatusListener::Start(const std::string& listen,
                                                                      AnswerFn answer) {
  auto listener = std::make_unique<BeastListener>(std::move(answer));
  absl::Status listening = listener->Listen(listen);
  if (!listening.ok()) return listening;
  return listener;
}

}  // namespace longwave

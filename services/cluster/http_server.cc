#include "services/cluster/http_server.h"

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/cluster/http_server_session.h"
#include "services/cluster/http_server_tls.h"

namespace longwave {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HostPort {
  std::string host;
  int port = 0;
};

absl::StatusOr<HostPort> ParseListen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  HostPort parsed;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &parsed.port) ||
      parsed.port < 0 || parsed.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("--listen ", listen, ": must be HOST:PORT"));
  }
  parsed.host = listen.substr(0, colon);
  if (parsed.host.size() > 2 && parsed.host.front() == '[' && parsed.host.back() == ']') {
    parsed.host = parsed.host.substr(1, parsed.host.size() - 2);
  }
  return parsed;
}

class BeastServer final : public HttpServer {
 public:
  BeastServer(const HttpOptions& options, Api& api, ObjectStore& objects)
      : options_(options),
        handlers_(kHandlerThreads),
        transfers_(kTransferThreads),
        acceptor_(asio::make_strand(context_)),
        shared_{api,
                objects,
                handlers_,
                transfers_,
                stopping_,
                streams_,
                std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                    std::chrono::duration<double>(options.seconds))} {}
  ~BeastServer() override { Stop(0); }

  absl::Status Listen() {
    const std::string& listen = options_.listen;
    const absl::StatusOr<HostPort> parsed = ParseListen(listen);
    if (!parsed.ok()) return parsed.status();
    if (options_.tls_cert.empty() != options_.tls_key.empty()) {
      return absl::InvalidArgumentError("--tls-cert and --tls-key: give both or none");
    }
    if (!options_.tls_cert.empty()) {
      absl::StatusOr<std::unique_ptr<TlsFiles>> tls =
          TlsFiles::Open(options_.tls_cert, options_.tls_key);
      if (!tls.ok()) return tls.status();
      tls_ = *std::move(tls);
    }
    error_code code;
    tcp::resolver resolver(context_);
    const auto found =
        resolver.resolve(parsed->host, absl::StrCat(parsed->port), tcp::resolver::passive, code);
    if (!code) acceptor_.open(found->endpoint().protocol(), code);
    if (!code) acceptor_.set_option(asio::socket_base::reuse_address(true), code);
    if (!code) acceptor_.bind(found->endpoint(), code);
    if (!code) acceptor_.listen(asio::socket_base::max_listen_connections, code);
    if (code) {
      return absl::InvalidArgumentError(absl::StrCat("--listen ", listen, ": ", code.message()));
    }
    url_ = absl::StrCat(tls_ ? "https://" : "http://", listen.substr(0, listen.rfind(':')), ":",
                        acceptor_.local_endpoint().port());
    asio::co_spawn(acceptor_.get_executor(), Accept(), asio::detached);
    for (int i = 0; i < kIoThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return absl::OkStatus();
  }

  const std::string& url() const override { return url_; }

  absl::Status ReloadTls() override { return tls_ ? tls_->Reload() : absl::OkStatus(); }

  void Stop(int seconds) override {
    if (threads_.empty()) return;
    stopping_ = true;
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
    });
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (connections_ > 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    handlers_.join();
    transfers_.join();
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  asio::awaitable<void> Accept() {
    while (!stopping_) {
      error_code code;
      tcp::socket socket = co_await acceptor_.async_accept(
          asio::make_strand(context_), asio::redirect_error(asio::use_awaitable, code));
      if (stopping_) co_return;
      if (code) {  // out of file descriptors, say: others may be given back
        asio::steady_timer timer(acceptor_.get_executor(), std::chrono::milliseconds(100));
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, code));
        continue;
      }
      if (connections_ >= options_.connections) {
        TurnAway(socket);
        continue;
      }
      auto strand = socket.get_executor();
      asio::co_spawn(strand, Serve(std::move(socket)), asio::detached);
    }
  }

  // A short word that fits into the socket's buffer, so that nothing waits for this client.
  void TurnAway(tcp::socket& socket) {
    error_code ignored;
    socket.non_blocking(true, ignored);
    if (!tls_) {
      const ApiResponse problem =
          Problem(503, absl::StrCat("connections: ", options_.connections, " are open already"));
      std::string text = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n";
      for (const auto& [name, value] : problem.headers) {
        absl::StrAppend(&text, name, ": ", value, "\r\n");
      }
      absl::StrAppend(&text, "Content-Type: ", problem.content_type,
                      "\r\nContent-Length: ", problem.body.size(), "\r\n\r\n", problem.body);
      socket.send(asio::buffer(text), 0, ignored);
      socket.shutdown(tcp::socket::shutdown_send, ignored);
    }
  }

  asio::awaitable<void> Serve(tcp::socket socket) {
    ++connections_;
    try {
      if (tls_) {
        const std::shared_ptr<asio::ssl::context> context = tls_->Current();
        HttpSession<asio::ssl::stream<tcp::socket>> session({std::move(socket), *context}, shared_);
        co_await session.Run();
      } else {
        HttpSession<tcp::socket> session(std::move(socket), shared_);
        co_await session.Run();
      }
    } catch (const std::exception&) {
      // The client is gone.
    }
    --connections_;
  }

  const HttpOptions options_;
  std::unique_ptr<TlsFiles> tls_;
  asio::io_context context_;
  asio::thread_pool handlers_, transfers_;
  tcp::acceptor acceptor_;
  std::string url_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> connections_ = 0, streams_ = 0;
  const SessionContext shared_;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options, Api& api,
                                                              ObjectStore& objects) {
  auto server = std::make_unique<BeastServer>(options, api, objects);
  absl::Status listening = server->Listen();
  if (!listening.ok()) return listening;
  return server;
}

bool IsLoopback(const std::string& listen) {
  const absl::StatusOr<HostPort> parsed = ParseListen(listen);
  if (!parsed.ok()) return false;
  if (parsed->host == "localhost") return true;
  error_code code;
  const auto address = asio::ip::make_address(parsed->host, code);
  return !code && address.is_loopback();
}

}  // namespace longwave

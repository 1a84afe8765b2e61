#include "services/cluster/http_server.h"

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr int64_t kBlock = 256 << 10;  // of a body that streams
constexpr auto kTime = std::chrono::seconds(HttpServer::kSeconds);

ApiRequest RequestOf(const http::request_header<>& header) {
  const auto text = [](auto view) { return std::string(view.data(), view.size()); };
  ApiRequest request;
  request.method = text(header.method_string());
  request.target = text(header.target());
  request.idempotency_key = text(header["Idempotency-Key"]);
  request.range = text(header[http::field::range]);
  return request;
}

// One connection, from its first request to its last.
class Session {
 public:
  Session(tcp::socket socket, Api& api, ObjectStore& objects, const std::atomic<bool>& stopping)
      : stream_(std::move(socket)), api_(api), objects_(objects), stopping_(stopping) {}

  asio::awaitable<void> Run() {
    error_code unset;  // then answers wait for the client's acknowledgements, 40 ms each
    stream_.socket().set_option(tcp::no_delay(true), unset);
    bool again = true;
    while (again && !stopping_) again = co_await OneRequest();
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  }

 private:
  // False: the connection is to be closed.
  asio::awaitable<bool> OneRequest() {
    http::request_parser<http::empty_body> head;
    head.header_limit(HttpServer::kHeaderBytes);
    head.body_limit(boost::none);
    stream_.expires_after(kTime);
    error_code code;
    co_await http::async_read_header(stream_, buffer_, head,
                                     asio::redirect_error(asio::use_awaitable, code));
    // A stream whose time is up has closed itself: there is no way left to say so.
    if (code == beast::error::timeout || code == http::error::end_of_stream ||
        (buffer_.size() == 0 && IsIo(code))) {
      co_return false;
    }
    if (code) co_return co_await Refuse(400, absl::StrCat("request: ", code.message()));
    ApiRequest request = RequestOf(head.get());
    version_ = head.get().version();
    const bool keep = head.get().keep_alive();
    if (beast::iequals(head.get()[http::field::expect], "100-continue")) {
      http::response<http::empty_body> go_on(http::status::continue_, version_);
      co_await http::async_write(stream_, go_on, asio::redirect_error(asio::use_awaitable, code));
      if (code) co_return false;
    }
    if (Api::IsUpload(request)) co_return co_await TakeUpload(request, head, keep);
    if (head.content_length().value_or(0) > static_cast<uint64_t>(Api::kMostBody)) {
      co_return co_await Refuse(413, absl::StrCat("body: more than ", Api::kMostBody, " bytes"));
    }
    http::request_parser<http::string_body> whole(std::move(head));
    whole.body_limit(Api::kMostBody);
    co_await http::async_read(stream_, buffer_, whole,
                              asio::redirect_error(asio::use_awaitable, code));
    if (code == http::error::body_limit) {
      co_return co_await Refuse(413, absl::StrCat("body: more than ", Api::kMostBody, " bytes"));
    }
    if (code == beast::error::timeout) co_return false;
    if (code) co_return co_await Refuse(400, absl::StrCat("body: ", code.message()));
    request.body = std::move(whole.get().body());
    const ApiResponse response = api_.Handle(request);
    co_return co_await Answer(response, request.method == "HEAD", keep);
  }

  static bool IsIo(const error_code& code) {
    return code == asio::error::connection_reset || code == asio::error::eof ||
           code == asio::error::operation_aborted || code == http::error::partial_message;
  }

  asio::awaitable<bool> TakeUpload(const ApiRequest& request,
                                   http::request_parser<http::empty_body>& head, bool keep) {
    absl::StatusOr<Upload> upload = api_.StartUpload(request);
    if (!upload.ok()) co_return co_await Refuse(Api::Problem(upload.status()));
    http::request_parser<http::buffer_body> parser(std::move(head));
    parser.body_limit(boost::none);
    std::vector<char> block(kBlock);
    while (!parser.is_done()) {
      parser.get().body().data = block.data();
      parser.get().body().size = block.size();
      stream_.expires_after(kTime);
      error_code code;
      co_await http::async_read(stream_, buffer_, parser,
                                asio::redirect_error(asio::use_awaitable, code));
      if (code == beast::error::timeout) co_return false;
      if (code && code != http::error::need_buffer) {
        co_return co_await Refuse(400, absl::StrCat("upload: ", code.message()));
      }
      const absl::Status kept =
          upload->Append({block.data(), block.size() - parser.get().body().size});
      if (!kept.ok()) co_return co_await Refuse(Api::Problem(kept));
    }
    const ApiResponse response = api_.FinishUpload(*std::move(upload));
    co_return co_await Answer(response, false, keep);
  }

  // What was not read of the request is not worth reading.
  asio::awaitable<bool> Refuse(ApiResponse response) {
    co_await Answer(response, false, false);
    // Closing with unread bytes would reset the connection before the answer arrives.
    error_code code;
    stream_.socket().shutdown(tcp::socket::shutdown_send, code);
    std::vector<char> rest(kBlock);
    stream_.expires_after(std::chrono::seconds(2));
    for (int64_t total = 0; !code && total < (int64_t{64} << 20);) {
      total += co_await stream_.async_read_some(asio::buffer(rest),
                                                asio::redirect_error(asio::use_awaitable, code));
    }
    co_return false;
  }
  asio::awaitable<bool> Refuse(int status, const std::string& detail) {
    return Refuse(Api::Problem(status, detail));
  }

  asio::awaitable<bool> Answer(const ApiResponse& response, bool head_only, bool keep) {
    http::response<http::empty_body> message(static_cast<http::status>(response.status), version_);
    message.set(http::field::server, "longwave");
    message.set(http::field::content_type, response.content_type);
    for (const auto& [name, value] : response.headers) message.set(name, value);
    message.keep_alive(keep && !stopping_);
    if (response.status != 204) message.content_length(response.body_bytes());
    http::response_serializer<http::empty_body> serializer(message);
    stream_.expires_after(kTime);
    error_code code;
    co_await http::async_write_header(stream_, serializer,
                                      asio::redirect_error(asio::use_awaitable, code));
    if (code || head_only) co_return !code && message.keep_alive();
    co_await asio::async_write(stream_, asio::buffer(response.body),
                               asio::redirect_error(asio::use_awaitable, code));
    for (const BodyPart& part : response.parts) {
      for (int64_t sent = 0; !code && sent < part.bytes; sent += kBlock) {
        const absl::StatusOr<std::string> block = objects_.Read(
            part.object, part.offset + sent, std::min<int64_t>(kBlock, part.bytes - sent));
        // The length was promised: a connection cut short is the one way left to say so.
        if (!block.ok()) co_return false;
        stream_.expires_after(kTime);
        co_await asio::async_write(stream_, asio::buffer(*block),
                                   asio::redirect_error(asio::use_awaitable, code));
      }
    }
    co_return !code && message.keep_alive();
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kBlock + HttpServer::kHeaderBytes};
  Api& api_;
  ObjectStore& objects_;
  const std::atomic<bool>& stopping_;
  unsigned version_ = 11;
};

class BeastServer final : public HttpServer {
 public:
  BeastServer(Api& api, ObjectStore& objects)
      : api_(api), objects_(objects), acceptor_(asio::make_strand(context_)) {}
  ~BeastServer() override { Stop(0); }

  absl::Status Listen(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    int port = -1;
    if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
        port < 0 || port > 65535) {
      return absl::InvalidArgumentError(absl::StrCat("--listen ", listen, ": must be HOST:PORT"));
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
    if (!code) acceptor_.listen(asio::socket_base::max_listen_connections, code);
    if (code) {
      return absl::InvalidArgumentError(absl::StrCat("--listen ", listen, ": ", code.message()));
    }
    url_ = absl::StrCat("http://", listen.substr(0, colon), ":", acceptor_.local_endpoint().port());
    asio::co_spawn(acceptor_.get_executor(), Accept(), asio::detached);
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return absl::OkStatus();
  }

  const std::string& url() const override { return url_; }

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
      if (connections_ >= kMostConnections) continue;
      auto strand = socket.get_executor();
      asio::co_spawn(strand, Serve(std::move(socket)), asio::detached);
    }
  }

  asio::awaitable<void> Serve(tcp::socket socket) {
    ++connections_;
    try {
      Session session(std::move(socket), api_, objects_, stopping_);
      co_await session.Run();
    } catch (const std::exception&) {
      // The client is gone.
    }
    --connections_;
  }

  Api& api_;
  ObjectStore& objects_;
  asio::io_context context_;
  tcp::acceptor acceptor_;
  std::string url_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> connections_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& listen, Api& api,
                                                              ObjectStore& objects) {
  auto server = std::make_unique<BeastServer>(api, objects);
  absl::Status listening = server->Listen(listen);
  if (!listening.ok()) return listening;
  return server;
}

}  // namespace longwave

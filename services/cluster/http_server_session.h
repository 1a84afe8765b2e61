// One connection of the HTTP listener, from its first request to its last; plain or TLS. For
// http_server.cc, and for what fuzzes it.
//
// Thread safety: all of a session runs on its socket's strand, but for what Work() hands over.
#pragma once

#include <netinet/tcp.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "observability/log.h"
#include "services/cluster/api.h"
#include "services/cluster/http_server.h"

namespace longwave {

// Ends what a socket waits for once its time is up. The socket stays open, for a last word.
class Deadline {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  explicit Deadline(Socket& socket)
      : timer_(socket.get_executor()), state_(std::make_shared<State>(State{&socket})) {}
  ~Deadline() { state_->socket = nullptr; }

  // From now on; the one before no longer counts.
  void Set(std::chrono::steady_clock::duration time) {
    state_->expired = false;
    timer_.expires_after(time);
    timer_.async_wait([state = state_, turn = ++state_->turn](boost::system::error_code code) {
      if (code || state->socket == nullptr || state->turn != turn) return;
      state->expired = true;
      boost::system::error_code ignored;
      state->socket->cancel(ignored);
    });
  }
  bool expired() const { return state_->expired; }

 private:
  struct State {  // outlives the deadline while a wait is under way
    Socket* socket = nullptr;
    int64_t turn = 0;
    bool expired = false;
  };
  boost::asio::steady_timer timer_;
  std::shared_ptr<State> state_;
};

// What the sessions of a server share.
struct SessionContext {
  Api& api;
  ObjectStore& objects;
  boost::asio::thread_pool& handlers;
  boost::asio::thread_pool& transfers;  // for what needs the object store
  const std::atomic<bool>& stopping;
  std::atomic<int64_t>& streams;  // event streams that are open
  std::chrono::steady_clock::duration time;
};

template <typename Stream>  // tcp::socket, or an SSL stream over one
class HttpSession {
 public:
  HttpSession(Stream stream, const SessionContext& shared)
      : stream_(std::move(stream)), deadline_(socket()), shared_(shared) {}

  boost::asio::awaitable<void> Run() {
    error_code code;  // no delay: else answers wait for the client's acknowledgements, 40 ms each
    socket().set_option(boost::asio::ip::tcp::no_delay(true), code);
    // No more than this waits for a slow client, so that it is seen to go on reading.
    using LeastUnsent = boost::asio::detail::socket_option::integer<IPPROTO_TCP, TCP_NOTSENT_LOWAT>;
    socket().set_option(LeastUnsent(kUnsent), code);
    if constexpr (kTls) {
      deadline_.Set(shared_.time);
      co_await stream_.async_handshake(boost::asio::ssl::stream_base::server, Token(code));
      if (code) co_return;
    }
    bool again = true;
    while (again && !shared_.stopping) again = co_await OneRequest();
    co_await Close();
  }

 private:
  template <typename T>
  using Awaitable = boost::asio::awaitable<T>;
  using error_code = boost::system::error_code;
  static constexpr bool kTls = !std::is_same_v<Stream, boost::asio::ip::tcp::socket>;
  static constexpr int64_t kBlock = 256 << 10;  // of a body that streams
  static constexpr int kUnsent = 64 << 10;
  static constexpr auto kAgain = std::chrono::milliseconds(25);    // between looks at `later`
  static constexpr auto kEvents = std::chrono::milliseconds(100);  // and at `stream`

  static auto Token(error_code& code) {
    return boost::asio::redirect_error(boost::asio::use_awaitable, code);
  }
  boost::asio::ip::tcp::socket& socket() {
    if constexpr (kTls) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  // Runs `work` on a thread for that, where it may wait.
  template <typename Function>
  Awaitable<std::invoke_result_t<Function&>> Work(boost::asio::thread_pool& threads,
                                                  Function work) {
    using Result = std::invoke_result_t<Function&>;
    co_return co_await boost::asio::co_spawn(
        threads, [&work]() -> Awaitable<Result> { co_return work(); }, boost::asio::use_awaitable);
  }

  Awaitable<void> Sleep(std::chrono::steady_clock::duration time) {
    boost::asio::steady_timer timer(socket().get_executor(), time);
    error_code ignored;
    co_await timer.async_wait(Token(ignored));
  }

  // A TLS session that ends without a word looks like one that was cut.
  Awaitable<void> Close() {
    error_code ignored;
    if constexpr (kTls) {
      deadline_.Set(std::chrono::seconds(2));
      co_await stream_.async_shutdown(Token(ignored));
    }
    socket().shutdown(boost::asio::ip::tcp::socket::shutdown_both, ignored);
  }

  static ApiRequest RequestOf(const boost::beast::http::request_header<>& header) {
    namespace http = boost::beast::http;
    const auto text = [](auto view) { return std::string(view.data(), view.size()); };
    ApiRequest request;
    request.method = text(header.method_string());
    request.target = text(header.target());
    request.authorization = text(header[http::field::authorization]);
    request.idempotency_key = text(header["Idempotency-Key"]);
    request.range = text(header[http::field::range]);
    request.if_range = text(header[http::field::if_range]);
    request.if_none_match = text(header[http::field::if_none_match]);
    request.last_event_id = text(header["Last-Event-ID"]);
    return request;
  }

  // A way of encoding the body that is not understood, so that its end is not known.
  static std::optional<std::string> UnknownEncoding(
      const boost::beast::http::request_header<>& header) {
    const auto [first, end] = header.equal_range(boost::beast::http::field::transfer_encoding);
    for (auto field = first; field != end; ++field) {
      const bool known = field == first && header.version() >= 11 &&
                         boost::beast::iequals(field->value(), "chunked");
      if (!known) return std::string(field->value().data(), field->value().size());
    }
    return std::nullopt;
  }

  // False: the connection is to be closed.
  Awaitable<bool> OneRequest() {
    namespace http = boost::beast::http;
    http::request_parser<http::empty_body> head;
    head.header_limit(HttpServer::kHeaderBytes);
    head.body_limit(boost::none);
    deadline_.Set(shared_.time);
    error_code code;
    co_await http::async_read_header(stream_, buffer_, head, Token(code));
    version_ = 11;
    const bool begun = head.got_some() || buffer_.size() > 0;
    if (code && !begun) co_return false;  // it has gone, or had nothing to say
    if (deadline_.expired()) co_return co_await TooSlow("the request's header");
    if (code == http::error::header_limit) {
      co_return co_await Refuse(
          431, absl::StrCat("header: more than ", HttpServer::kHeaderBytes, " bytes"));
    }
    if (code) co_return co_await Refuse(400, absl::StrCat("request: ", code.message()));
    ApiRequest request = RequestOf(head.get());
    version_ = head.get().version();
    const bool keep = head.get().keep_alive();
    const size_t hosts = head.get().count(http::field::host);
    if (hosts > 1 || (hosts == 0 && version_ >= 11)) {
      co_return co_await Refuse(400, "header Host: must be given once");
    }
    if (head.get().count(http::field::authorization) > 1) {
      co_return co_await Refuse(400, "header Authorization: must be given once");
    }
    if (const std::optional<std::string> encoding = UnknownEncoding(head.get())) {
      co_return co_await Refuse(501, absl::StrCat("header Transfer-Encoding ", Quoted(*encoding),
                                                  ": must be chunked, of HTTP/1.1, or left out"));
    }
    if (boost::beast::iequals(head.get()[http::field::expect], "100-continue")) {
      http::response<http::empty_body> go_on(http::status::continue_, version_);
      co_await http::async_write(stream_, go_on, Token(code));
      if (code) co_return false;
    }
    if (Api::IsUpload(request)) co_return co_await TakeUpload(request, head, keep);
    const std::string too_large = absl::StrCat("body: more than ", Api::kMostBody, " bytes");
    if (head.content_length().value_or(0) > static_cast<uint64_t>(Api::kMostBody)) {
      co_return co_await Refuse(413, too_large);
    }
    http::request_parser<http::string_body> whole(std::move(head));
    whole.body_limit(Api::kMostBody);
    co_await http::async_read(stream_, buffer_, whole, Token(code));
    if (code == http::error::body_limit) co_return co_await Refuse(413, too_large);
    if (deadline_.expired()) co_return co_await TooSlow("the request's body");
    if (code) co_return co_await Refuse(400, absl::StrCat("body: ", code.message()));
    request.body = std::move(whole.get().body());
    boost::asio::thread_pool& threads =
        Api::NeedsObjects(request) ? shared_.transfers : shared_.handlers;
    ApiResponse response;
    if (Api::IsImmediate(request)) {  // it says that the process lives, whatever its stores do
      response = shared_.api.Handle(request);
    } else {
      response = co_await Work(threads, [&] { return shared_.api.Handle(request); });
    }
    while (response.later && !shared_.stopping) {
      std::optional<ApiResponse> answer = co_await Work(threads, response.later);
      if (answer.has_value()) {
        response = *std::move(answer);
      } else {
        co_await Sleep(kAgain);
      }
    }
    if (response.later) response = Problem(503, "the server stops: ask again");
    if (response.stream && shared_.streams >= HttpServer::kMostStreams) {
      response = Problem(
          503, absl::StrCat("event streams: ", HttpServer::kMostStreams, " are open already"));
    }
    co_return co_await Answer(response, request.method == "HEAD", keep);
  }

  Awaitable<bool> TakeUpload(
      const ApiRequest& request,
      boost::beast::http::request_parser<boost::beast::http::empty_body>& head, bool keep) {
    namespace http = boost::beast::http;
    const std::optional<int64_t> bytes =
        head.content_length() ? std::optional<int64_t>(*head.content_length()) : std::nullopt;
    absl::StatusOr<Upload> upload =
        co_await Work(shared_.transfers, [&] { return shared_.api.StartUpload(request, bytes); });
    if (!upload.ok()) co_return co_await Refuse(Problem(upload.status()));
    http::request_parser<http::buffer_body> parser(std::move(head));
    parser.body_limit(boost::none);
    std::vector<char> block(kBlock);
    while (!parser.is_done()) {
      parser.get().body().data = block.data();
      parser.get().body().size = block.size();
      deadline_.Set(shared_.time);
      error_code code;
      co_await http::async_read(stream_, buffer_, parser, Token(code));
      if (deadline_.expired()) co_return co_await TooSlow("a block of the upload");
      if (code && code != http::error::need_buffer) {
        co_return co_await Refuse(400, absl::StrCat("upload: ", code.message()));
      }
      const absl::Status kept = co_await Work(shared_.transfers, [&] {
        return upload->Append({block.data(), block.size() - parser.get().body().size});
      });
      if (!kept.ok()) co_return co_await Refuse(Problem(kept));
    }
    const ApiResponse response = co_await Work(
        shared_.transfers, [&] { return shared_.api.FinishUpload(*std::move(upload)); });
    co_return co_await Answer(response, false, keep);
  }

  // What was not read of the request is not worth reading.
  Awaitable<bool> Refuse(ApiResponse response) {
    co_await Answer(response, false, false);
    // Closing with unread bytes would reset the connection before the answer arrives.
    error_code code;
    if constexpr (!kTls) {
      socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, code);
    }
    std::vector<char> rest(kBlock);
    deadline_.Set(std::chrono::seconds(2));
    for (int64_t total = 0; !code && total < (int64_t{64} << 20);) {
      total += co_await stream_.async_read_some(boost::asio::buffer(rest), Token(code));
    }
    co_return false;
  }
  Awaitable<bool> Refuse(int status, const std::string& detail) {
    return Refuse(Problem(status, detail));
  }
  Awaitable<bool> TooSlow(const char* what) {
    const double seconds = std::chrono::duration<double>(shared_.time).count();
    return Refuse(408, absl::StrCat(what, " took more than ", seconds, " s"));
  }

  Awaitable<bool> Answer(const ApiResponse& response, bool head_only, bool keep) {
    namespace http = boost::beast::http;
    const bool streams = response.stream != nullptr;
    http::response<http::empty_body> message(static_cast<http::status>(response.status), version_);
    message.set(http::field::server, "longwave");
    const bool empty = response.status == 204 || response.status == 304;
    if (!empty) message.set(http::field::content_type, response.content_type);
    for (const auto& [name, value] : response.headers) message.set(name, value);
    message.keep_alive(keep && !shared_.stopping && !streams);
    if (!empty && !streams) message.content_length(response.body_bytes());
    http::response_serializer<http::empty_body> serializer(message);
    deadline_.Set(shared_.time);
    error_code code;
    co_await http::async_write_header(stream_, serializer, Token(code));
    if (code || head_only) co_return !code && message.keep_alive();
    if (streams) co_return co_await SendStream(response);
    code = co_await WriteSteadily(response.body);
    for (const BodyPart& part : response.parts) {
      Sha256 hash;
      for (int64_t sent = 0; !code && sent < part.bytes; sent += kBlock) {
        const absl::StatusOr<std::string> block =
            co_await Work(shared_.transfers, [&] { return ReadBlock(part, sent, hash); });
        if (!block.ok()) {  // the length was promised: a connection cut short says so
          log::Error("an answer is cut short", {{"error", block.status().message()}});
          co_return false;
        }
        code = co_await WriteSteadily(*block);
      }
    }
    co_return !code && message.keep_alive();
  }

  // Bytes of a part from `sent` on. `hash` has those before them. DataLoss, in place of the last,
  // where they are not what was written.
  absl::StatusOr<std::string> ReadBlock(const BodyPart& part, int64_t sent, Sha256& hash) const {
    const int64_t count = std::min<int64_t>(kBlock, part.bytes - sent);
    absl::StatusOr<std::string> block =
        shared_.objects.Read(part.object, part.offset + sent, count);
    if (!block.ok()) return block;
    if (static_cast<int64_t>(block->size()) != count) {
      return absl::DataLossError(absl::StrCat(part.object, ": shorter than it was"));
    }
    if (part.sha256.empty()) return block;
    hash.Add(*block);
    if (sent + count < part.bytes) return block;
    absl::Status same = CheckSha256(part.object, hash.HexDigest(), part.sha256);
    if (!same.ok()) return same;
    return block;
  }

  // However slowly the client reads: it has to go on reading.
  Awaitable<error_code> WriteSteadily(const std::string& bytes) {
    error_code code;
    for (size_t sent = 0; !code && sent < bytes.size();) {
      deadline_.Set(shared_.time);
      sent += co_await stream_.async_write_some(boost::asio::buffer(bytes) + sent, Token(code));
    }
    co_return code;
  }

  // Until the client goes, the stream ends or the server stops. The end of the connection is that
  // of the body.
  Awaitable<bool> SendStream(const ApiResponse& response) {
    struct Count {
      std::atomic<int64_t>& value;
      ~Count() { --value; }
    } count{shared_.streams};
    ++shared_.streams;
    auto said = std::chrono::steady_clock::now();
    while (!shared_.stopping) {
      absl::StatusOr<std::string> text = co_await Work(shared_.handlers, response.stream);
      if (!text.ok()) co_return false;
      const auto now = std::chrono::steady_clock::now();
      if (text->empty() && now - said >= std::chrono::seconds(HttpServer::kKeepAliveSeconds)) {
        *text = ":\n\n";  // a comment: the connection lives
      }
      if (text->empty()) {
        co_await Sleep(kEvents);
        continue;
      }
      said = now;
      if (co_await WriteSteadily(*text)) co_return false;
    }
    co_return false;
  }

  Stream stream_;
  boost::beast::flat_buffer buffer_{kBlock + HttpServer::kHeaderBytes};
  Deadline deadline_;
  const SessionContext& shared_;
  unsigned version_ = 11;
};

}  // namespace longwave

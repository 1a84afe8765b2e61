#include "services/cluster/http_client.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "boost/json/parse.hpp"
#include "boost/url/parse.hpp"
#include "services/signals.h"

namespace longwave {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMostJson = 64 << 20;
constexpr int64_t kMostProblem = 1 << 20;
constexpr int64_t kBlock = 256 << 10;
constexpr size_t kMostEvent = 1 << 20;
constexpr auto kLook = std::chrono::milliseconds(100);  // how soon a signal is seen

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kFailedPrecondition;
    case 413:
    case 429:
    case 507:
      return absl::StatusCode::kResourceExhausted;
    case 502:
    case 503:
    case 504:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInvalidArgument;
  }
}

double SecondsSince(Clock::time_point time) {
  return std::chrono::duration<double>(Clock::now() - time).count();
}

}  // namespace

struct HttpClient::Tls {
  asio::ssl::context context{asio::ssl::context::tls_client};
};

// A connection whose operations wait no longer than the server may be silent, nor beyond a signal.
struct HttpClient::Connection {
  asio::io_context context;
  std::optional<beast::tcp_stream> plain;
  std::optional<beast::ssl_stream<beast::tcp_stream>> secure;
  beast::flat_buffer buffer;
  std::chrono::milliseconds silence;

  beast::tcp_stream& tcp() { return secure.has_value() ? secure->next_layer() : *plain; }

  // `start(handler)` starts an operation; returns its error once it is over.
  template <typename Start>
  error_code Await(Start start) {
    std::optional<error_code> result;
    tcp().expires_after(silence);
    start([&](error_code code, auto&&...) { result = code; });
    context.restart();
    bool cancelled = false;
    while (!result.has_value()) {
      context.run_for(kLook);
      if (StopSignal() != 0 && !cancelled) {
        tcp().cancel();
        cancelled = true;
      }
      if (context.stopped()) context.restart();
    }
    tcp().expires_never();
    return *result;
  }
  // `start(stream, handler)`, over the stream that this connection has.
  template <typename Start>
  error_code Do(Start start) {
    return Await([&](auto&& handler) {
      if (secure.has_value()) {
        start(*secure, std::move(handler));
      } else {
        start(*plain, std::move(handler));
      }
    });
  }
  template <typename Message>
  error_code Write(const Message& message) {
    return Do([&](auto& stream, auto handler) {
      http::async_write(stream, message, std::move(handler));
    });
  }
  template <typename Parser>
  error_code ReadHeader(Parser& parser) {
    return Do([&](auto& stream, auto handler) {
      http::async_read_header(stream, buffer, parser, std::move(handler));
    });
  }
  template <typename Parser>
  error_code Read(Parser& parser) {
    return Do([&](auto& stream, auto handler) {
      http::async_read(stream, buffer, parser, std::move(handler));
    });
  }
  template <typename Parser>
  error_code ReadSome(Parser& parser) {
    return Do([&](auto& stream, auto handler) {
      http::async_read_some(stream, buffer, parser, std::move(handler));
    });
  }
};

HttpClient::HttpClient(HttpClientOptions options) : options_(std::move(options)) {}
HttpClient::~HttpClient() = default;

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(const HttpClientOptions& options) {
  const auto url = boost::urls::parse_uri(options.server);
  if (!url.has_value() || (url->scheme() != "http" && url->scheme() != "https") ||
      url->host().empty() || (!url->path().empty() && url->path() != "/") || url->has_query()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--server ", options.server, ": must be http://HOST:PORT or https://HOST:PORT"));
  }
  const bool secure = url->scheme() == "https";
  if (!secure && !options.ca.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ca ", options.ca, ": --server ", options.server, " is not https"));
  }
  std::unique_ptr<HttpClient> client(new HttpClient(options));
  client->host_ = std::string(url->host_address());
  client->port_ = url->has_port() ? std::string(url->port()) : secure ? "443" : "80";
  if (!secure) return client;
  client->tls_ = std::make_unique<Tls>();
  error_code code;
  client->tls_->context.set_verify_mode(asio::ssl::verify_peer, code);
  if (options.ca.empty()) {
    client->tls_->context.set_default_verify_paths(code);
  } else {
    client->tls_->context.load_verify_file(options.ca, code);
  }
  if (code) {
    return absl::InvalidArgumentError(absl::StrCat("--ca ", options.ca, ": ", code.message()));
  }
  return client;
}

absl::Status HttpClient::Failed(absl::string_view what) const {
  absl::Status stop = CheckStop();
  if (!stop.ok()) return stop;
  return absl::UnavailableError(absl::StrCat(options_.server, ": ", what));
}

absl::StatusOr<std::unique_ptr<HttpClient::Connection>> HttpClient::Connect() {
  auto connection = std::make_unique<Connection>();
  connection->silence =
      std::chrono::milliseconds(static_cast<int64_t>(options_.silence_seconds * 1000));
  error_code code;
  tcp::resolver resolver(connection->context);
  const auto found = resolver.resolve(host_, port_, code);
  if (code) return Failed(code.message());
  if (tls_ != nullptr) {
    connection->secure.emplace(connection->context, tls_->context);
  } else {
    connection->plain.emplace(connection->context);
  }
  code = connection->Await(
      [&](auto handler) { connection->tcp().async_connect(found, std::move(handler)); });
  if (code) return Failed(code.message());
  if (tls_ != nullptr) {
    auto& secure = *connection->secure;
    secure.set_verify_callback(asio::ssl::host_name_verification(host_));
    if (SSL_set_tlsext_host_name(secure.native_handle(), host_.c_str()) != 1) {
      return Failed("its name cannot be asked for over TLS");
    }
    code = connection->Await([&](auto handler) {
      secure.async_handshake(asio::ssl::stream_base::client, std::move(handler));
    });
    // Not what comes and goes: nobody asks again.
    if (code && code.category() == asio::error::get_ssl_category()) {
      return absl::FailedPreconditionError(absl::StrCat(options_.server, ": ", code.message(),
                                                        " (--ca names who may vouch for it)"));
    }
    if (code) return Failed(code.message());
  }
  reached_ = true;
  return connection;
}

namespace {

template <typename Body>
http::request<Body> Request(http::verb verb, const std::string& target, const std::string& host,
                            const std::string& port, const std::string& token) {
  http::request<Body> request(verb, target, 11);
  const bool v6 = host.find(':') != std::string::npos;
  request.set(http::field::host, absl::StrCat(v6 ? "[" : "", host, v6 ? "]" : "", ":", port));
  request.set(http::field::user_agent, "longwave");
  request.keep_alive(false);
  if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  return request;
}

absl::Status ProblemOf(const std::string& server, int status, const std::string& body) {
  error_code code;
  const boost::json::value json = boost::json::parse(body, code);
  const auto* problem = code ? nullptr : json.if_object();
  const auto* detail = problem == nullptr ? nullptr : problem->if_contains("detail");
  return absl::Status(CodeOf(status), detail != nullptr && detail->is_string()
                                          ? std::string(detail->get_string())
                                          : absl::StrCat(server, " answered ", status));
}

}  // namespace

bool HttpClient::Again(const absl::Status& status, int attempt, double failing_seconds) const {
  if (!absl::IsUnavailable(status) || !reached_ || StopSignal() != 0) return false;
  if (failing_seconds > options_.patience_seconds || (!answered_ && attempt >= 3)) return false;
  std::this_thread::sleep_for(std::chrono::milliseconds(50 << std::min(attempt, 5)));
  return StopSignal() == 0;
}

absl::StatusOr<boost::json::value> HttpClient::ReadJson(Connection& connection) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMostJson);
  error_code code = connection.Read(parser);
  if (code) return Failed(code.message());
  answered_ = true;
  const auto& response = parser.get();
  const int status = static_cast<int>(response.result_int());
  if (status >= 300) return ProblemOf(options_.server, status, response.body());
  if (response.body().empty()) return boost::json::value();
  boost::json::value json = boost::json::parse(response.body(), code);
  if (code) return Failed(absl::StrCat("its answer is not JSON: ", code.message()));
  return json;
}

absl::StatusOr<boost::json::value> HttpClient::SendOnce(const std::string& method,
                                                        const std::string& target,
                                                        const std::string& body,
                                                        const std::string& idempotency_key) {
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connect();
  if (!connection.ok()) return connection.status();
  auto request = Request<http::string_body>(http::string_to_verb(method), target, host_, port_,
                                            options_.token);
  if (!idempotency_key.empty()) request.set("Idempotency-Key", idempotency_key);
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = body;
  request.prepare_payload();
  const error_code code = (*connection)->Write(request);
  if (code) return Failed(code.message());
  return ReadJson(**connection);
}

absl::StatusOr<boost::json::value> HttpClient::Send(const std::string& method,
                                                    const std::string& target,
                                                    const std::string& body,
                                                    const std::string& idempotency_key) {
  const Clock::time_point start = Clock::now();
  for (int attempt = 0;; ++attempt) {
    absl::StatusOr<boost::json::value> answer = SendOnce(method, target, body, idempotency_key);
    const bool repeatable = method == "GET" || !idempotency_key.empty();
    if (answer.ok() || !repeatable || !Again(answer.status(), attempt, SecondsSince(start))) {
      return answer;
    }
  }
}

absl::StatusOr<boost::json::value> HttpClient::Upload(const std::string& target,
                                                      const BodyFn& body) {
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connect();
  if (!connection.ok()) return connection.status();
  auto request = Request<http::buffer_body>(http::verb::post, target, host_, port_, options_.token);
  request.set(http::field::content_type, "application/octet-stream");
  request.chunked(true);
  http::request_serializer<http::buffer_body> serializer(request);
  request.body().more = true;
  error_code code = (*connection)->Do([&](auto& stream, auto handler) {
    http::async_write_header(stream, serializer, std::move(handler));
  });
  while (!code && request.body().more) {
    absl::StatusOr<std::string> piece = body();
    if (!piece.ok()) return piece.status();
    request.body().data = piece->empty() ? nullptr : piece->data();
    request.body().size = piece->size();
    request.body().more = !piece->empty();
    code = (*connection)->Do([&](auto& stream, auto handler) {
      http::async_write(stream, serializer, std::move(handler));
    });
    if (code == http::error::need_buffer) code = {};
  }
  // Where the server refused in between, its answer says why.
  absl::StatusOr<boost::json::value> answer = ReadJson(**connection);
  if (code && answer.ok()) return Failed(code.message());
  return answer;
}

// The body of one answer, piece by piece.
class HttpClient::Body {
 public:
  explicit Body(HttpClient& client) : client_(client) {}

  // Errors: as of Send(). `range_from`: 0, or the byte from where on it is wanted.
  absl::Status Open(const std::string& target, int64_t range_from, const std::string& tag,
                    const std::string& last_event, const char* accept) {
    absl::StatusOr<std::unique_ptr<Connection>> connected = client_.Connect();
    if (!connected.ok()) return connected.status();
    connection_ = *std::move(connected);
    auto request = Request<http::empty_body>(http::verb::get, target, client_.host_, client_.port_,
                                             client_.options_.token);
    request.set(http::field::accept, accept);
    if (range_from > 0) request.set(http::field::range, absl::StrCat("bytes=", range_from, "-"));
    if (range_from > 0 && !tag.empty()) request.set(http::field::if_range, tag);
    if (!last_event.empty()) request.set("Last-Event-ID", last_event);
    error_code code = connection_->Write(request);
    parser_.body_limit(boost::none);
    if (!code) code = connection_->ReadHeader(parser_);
    if (code) return client_.Failed(code.message());
    client_.answered_ = true;
    const int status = static_cast<int>(parser_.get().result_int());
    if (status < 300) return absl::OkStatus();
    std::string problem;
    while (problem.size() < kMostProblem) {
      const absl::StatusOr<absl::string_view> piece = Next();
      if (!piece.ok() || piece->empty()) break;
      problem.append(piece->data(), piece->size());
    }
    return ProblemOf(client_.options_.server, status, problem);
  }

  int status() { return static_cast<int>(parser_.get().result_int()); }
  std::string Header(http::field name) { return std::string(parser_.get()[name]); }

  // Valid until the next call; empty: the end.
  absl::StatusOr<absl::string_view> Next() {
    while (!parser_.is_done()) {
      parser_.get().body().data = block_.data();
      parser_.get().body().size = block_.size();
      error_code code = connection_->ReadSome(parser_);
      if (code == http::error::need_buffer) code = {};
      if (code) return client_.Failed(code.message());
      const size_t got = block_.size() - parser_.get().body().size;
      if (got > 0) return absl::string_view(block_.data(), got);
    }
    return absl::string_view();
  }

 private:
  HttpClient& client_;
  std::unique_ptr<Connection> connection_;
  http::response_parser<http::buffer_body> parser_;
  std::string block_ = std::string(kBlock, '\0');
};

absl::Status HttpClient::Download(const std::string& target, const SinkFn& sink) {
  int64_t done = 0;
  std::string tag;
  Clock::time_point last = Clock::now();  // when something arrived
  for (int attempt = 0;; ++attempt) {
    Body body(*this);
    absl::Status status = body.Open(target, done, tag, "", "application/octet-stream");
    if (status.ok()) {
      const std::string its = body.Header(http::field::etag);
      const std::string range = body.Header(http::field::content_range);
      const bool from_there =
          body.status() == 206 && absl::StartsWith(range, absl::StrCat("bytes ", done, "-"));
      if (done > 0 && (!from_there || its != tag)) {
        return absl::AbortedError(
            absl::StrCat(options_.server, target, ": the content changed while it was fetched"));
      }
      tag = its;
    }
    while (status.ok()) {
      const absl::StatusOr<absl::string_view> piece = body.Next();
      status = piece.status();
      if (!status.ok()) break;
      if (piece->empty()) return absl::OkStatus();
      absl::Status kept = sink(*piece);
      if (!kept.ok()) return kept;
      done += static_cast<int64_t>(piece->size());
      last = Clock::now();
      attempt = 0;
    }
    if (!Again(status, attempt, SecondsSince(last))) return status;
  }
}

namespace {

// Takes a stream of server-sent events apart. https://html.spec.whatwg.org/#parsing-an-event-stream
class EventParser {
 public:
  // Events that `text` completes. False: no more are wanted.
  absl::StatusOr<bool> Take(absl::string_view text, const HttpClient::EventFn& sink) {
    for (const char c : text) {
      if (c != '\n') {
        if (c != '\r') line_ += c;
        if (line_.size() + event_.data.size() > kMostEvent) {
          return absl::InvalidArgumentError("an event of more than 1 MiB");
        }
        continue;
      }
      if (line_.empty()) {
        HttpClient::Event event = std::exchange(event_, {});
        event.id = id_;
        if (event.data.empty() && event.type.empty()) continue;
        if (!event.data.empty()) event.data.pop_back();  // the last line's end
        taken_ = event.id;
        const absl::StatusOr<bool> more = sink(event);
        if (!more.ok() || !*more) return more;
        continue;
      }
      const absl::string_view line = line_;
      const size_t colon = std::min(line.find(':'), line.size());
      const absl::string_view name = line.substr(0, colon);
      absl::string_view value = line.substr(std::min(colon + 1, line.size()));
      absl::ConsumePrefix(&value, " ");
      if (name == "id") id_ = std::string(value);
      if (name == "event") event_.type = std::string(value);
      if (name == "data") absl::StrAppend(&event_.data, value, "\n");
      line_.clear();
    }
    return true;
  }
  const std::string& taken() const { return taken_; }  // the id of the last event
  void Restart() {                                     // on another connection
    line_.clear();
    event_ = {};
  }

 private:
  std::string line_, id_, taken_;
  HttpClient::Event event_;
};

}  // namespace

absl::Status HttpClient::Events(const std::string& target, const EventFn& sink) {
  EventParser parser;
  Clock::time_point last = Clock::now();
  for (int attempt = 0;; ++attempt) {
    Body body(*this);
    absl::Status status = body.Open(target, 0, "", parser.taken(), "text/event-stream");
    while (status.ok()) {
      const absl::StatusOr<absl::string_view> piece = body.Next();
      status = piece.status();
      if (!status.ok()) break;
      if (piece->empty()) return absl::OkStatus();
      const absl::StatusOr<bool> more = parser.Take(*piece, sink);
      if (!more.ok() || !*more) return more.status();
      last = Clock::now();
      attempt = 0;
    }
    if (!Again(status, attempt, SecondsSince(last))) return status;
    parser.Restart();
  }
}

}  // namespace longwave

#include "services/cluster/http_client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "boost/json/parse.hpp"
#include "boost/url/parse.hpp"

namespace longwave {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr int64_t kMostJson = 64 << 20;
constexpr int64_t kBlock = 256 << 10;

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 404:
      return absl::StatusCode::kNotFound;
    case 409:
      return absl::StatusCode::kFailedPrecondition;
    case 413:
      return absl::StatusCode::kResourceExhausted;
    case 503:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInvalidArgument;
  }
}

}  // namespace

struct HttpClient::Connection {
  asio::io_context context;
  asio::ip::tcp::socket socket{context};
  boost::beast::flat_buffer buffer;
};

absl::StatusOr<HttpClient> HttpClient::Create(const std::string& server) {
  const auto url = boost::urls::parse_uri(server);
  if (!url.has_value() || url->scheme() != "http" || url->host().empty() ||
      (!url->path().empty() && url->path() != "/") || url->has_query()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--server ", server, ": must be http://HOST:PORT"));
  }
  HttpClient client;
  client.server_ = server;
  client.host_ = std::string(url->host_address());
  client.port_ = url->has_port() ? std::string(url->port()) : "80";
  return client;
}

absl::StatusOr<std::unique_ptr<HttpClient::Connection>> HttpClient::Connect() {
  auto connection = std::make_unique<Connection>();
  error_code code;
  asio::ip::tcp::resolver resolver(connection->context);
  const auto found = resolver.resolve(host_, port_, code);
  if (!code) asio::connect(connection->socket, found, code);
  if (code) return absl::UnavailableError(absl::StrCat(server_, ": ", code.message()));
  return connection;
}

absl::StatusOr<boost::json::value> HttpClient::ReadJson(Connection& connection) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMostJson);
  error_code code;
  http::read(connection.socket, connection.buffer, parser, code);
  if (code) return absl::UnavailableError(absl::StrCat(server_, ": ", code.message()));
  const auto& response = parser.get();
  const int status = static_cast<int>(response.result_int());
  boost::json::value json;
  if (!response.body().empty()) json = boost::json::parse(response.body(), code);
  if (status < 300 && !code) return json;
  const auto* problem = code ? nullptr : json.if_object();
  const auto* detail = problem == nullptr ? nullptr : problem->if_contains("detail");
  if (detail != nullptr && detail->is_string()) {
    return absl::Status(CodeOf(status), std::string(detail->get_string()));
  }
  return absl::Status(CodeOf(status), absl::StrCat(server_, " answered ", status));
}

absl::StatusOr<boost::json::value> HttpClient::Send(const std::string& method,
                                                    const std::string& target,
                                                    const std::string& body,
                                                    const std::string& idempotency_key) {
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connect();
  if (!connection.ok()) return connection.status();
  http::request<http::string_body> request(http::string_to_verb(method), target, 11);
  request.set(http::field::host, host_);
  request.keep_alive(false);
  if (!idempotency_key.empty()) request.set("Idempotency-Key", idempotency_key);
  request.body() = body;
  request.prepare_payload();
  error_code code;
  http::write((*connection)->socket, request, code);
  if (code) return absl::UnavailableError(absl::StrCat(server_, ": ", code.message()));
  return ReadJson(**connection);
}

absl::StatusOr<boost::json::value> HttpClient::Upload(const std::string& target,
                                                      const BodyFn& body) {
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connect();
  if (!connection.ok()) return connection.status();
  http::request<http::buffer_body> request(http::verb::post, target, 11);
  request.set(http::field::host, host_);
  request.keep_alive(false);
  request.chunked(true);
  http::request_serializer<http::buffer_body> serializer(request);
  error_code code;
  request.body().more = true;
  http::write_header((*connection)->socket, serializer, code);
  while (!code && request.body().more) {
    absl::StatusOr<std::string> piece = body();
    if (!piece.ok()) return piece.status();
    request.body().data = piece->empty() ? nullptr : piece->data();
    request.body().size = piece->size();
    request.body().more = !piece->empty();
    http::write((*connection)->socket, serializer, code);
    if (code == http::error::need_buffer) code = {};
  }
  // Where the server refused in between, its answer says why.
  absl::StatusOr<boost::json::value> answer = ReadJson(**connection);
  if (code && answer.ok())
    return absl::UnavailableError(absl::StrCat(server_, ": ", code.message()));
  return answer;
}

absl::Status HttpClient::Download(const std::string& target, const SinkFn& sink) {
  absl::StatusOr<std::unique_ptr<Connection>> connected = Connect();
  if (!connected.ok()) return connected.status();
  Connection& connection = **connected;
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, host_);
  request.keep_alive(false);
  error_code code;
  http::write(connection.socket, request, code);
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  if (!code) http::read_header(connection.socket, connection.buffer, parser, code);
  if (!code && parser.get().result() != http::status::ok) {
    std::string text(kBlock, '\0');
    parser.get().body().data = text.data();
    parser.get().body().size = text.size();
    http::read(connection.socket, connection.buffer, parser, code);
    text.resize(text.size() - parser.get().body().size);
    const boost::json::value problem = boost::json::parse(text, code);
    const bool said = !code && problem.is_object() && problem.as_object().contains("detail");
    const int status = static_cast<int>(parser.get().result_int());
    return absl::Status(CodeOf(status), said ? std::string(problem.at("detail").as_string())
                                             : absl::StrCat(server_, " answered ", status));
  }
  std::string block(kBlock, '\0');
  while (!code && !parser.is_done()) {
    parser.get().body().data = block.data();
    parser.get().body().size = block.size();
    http::read(connection.socket, connection.buffer, parser, code);
    if (code == http::error::need_buffer) code = {};
    if (code) break;
    absl::Status kept = sink({block.data(), block.size() - parser.get().body().size});
    if (!kept.ok()) return kept;
  }
  if (code) return absl::UnavailableError(absl::StrCat(server_, ": ", code.message()));
  return absl::OkStatus();
}

}  // namespace longwave

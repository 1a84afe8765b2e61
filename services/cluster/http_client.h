// What the client's commands need of HTTP and HTTPS: one request, one answer, bodies that may be
// files, streams of events.
//
// A connection serves one request. What may be asked twice is asked again where the connection was
// lost, once a server was there at all: one that is started again is waited for. A signal that
// asks for a stop ends a request that waits.
//
// Thread safety: one caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boost/json/value.hpp"

namespace longwave {

struct HttpClientOptions {
  std::string server;            // "http://HOST:PORT" or "https://HOST:PORT"
  std::string token;             // empty: none
  std::string ca;                // PEM file of who may vouch for the server; empty: the system's
  double patience_seconds = 30;  // of asking again
  double silence_seconds = 60;   // that a server may let a request or an answer wait
};

class HttpClient {
 public:
  // The next piece of a request's body; empty: its end.
  using BodyFn = std::function<absl::StatusOr<std::string>()>;
  // Takes a piece of an answer's body.
  using SinkFn = std::function<absl::Status(absl::string_view)>;
  struct Event {
    std::string id, type, data;
  };
  // False: no more is wanted.
  using EventFn = std::function<absl::StatusOr<bool>(const Event&)>;

  // InvalidArgument for another kind of address, or a file that holds no certificates.
  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(const HttpClientOptions& options);
  ~HttpClient();

  // The answer's JSON; null where it has no body. An answer that is no success is an error with
  // what its problem's `detail` says; Unavailable where the server cannot be reached, or broke off.
  // GET, and what has an idempotency key, is asked again.
  absl::StatusOr<boost::json::value> Send(const std::string& method, const std::string& target,
                                          const std::string& body = "",
                                          const std::string& idempotency_key = "");
  // Not asked again: the caller may, from the body's start.
  absl::StatusOr<boost::json::value> Upload(const std::string& target, const BodyFn& body);
  // All of the content, in order. Where it is cut short the rest is asked for by its range, and is
  // taken if it is of the same content (its ETag).
  absl::Status Download(const std::string& target, const SinkFn& sink);
  // Server-sent events until the stream ends or no more are wanted. Goes on after the last event
  // that was taken where the connection is lost.
  absl::Status Events(const std::string& target, const EventFn& event);

 private:
  struct Connection;
  struct Tls;
  class Body;
  explicit HttpClient(HttpClientOptions options);
  absl::StatusOr<std::unique_ptr<Connection>> Connect();
  absl::StatusOr<boost::json::value> SendOnce(const std::string& method, const std::string& target,
                                              const std::string& body,
                                              const std::string& idempotency_key);
  absl::StatusOr<boost::json::value> ReadJson(Connection& connection);
  // Whether to ask again, after a pause, because of `status`. `since`: when it began to fail.
  bool Again(const absl::Status& status, int attempt, double failing_seconds) const;
  absl::Status Failed(absl::string_view what) const;  // Unavailable

  const HttpClientOptions options_;
  std::string host_, port_;
  bool reached_ = false;   // something listens there
  bool answered_ = false;  // and speaks HTTP
  std::unique_ptr<Tls> tls_;
};

}  // namespace longwave

// What the client's commands need of HTTP: one request, one answer, bodies that may be files.
//
// Thread safety: one caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boost/json/value.hpp"

namespace longwave {

class HttpClient {
 public:
  // The next piece of a request's body; empty: its end.
  using BodyFn = std::function<absl::StatusOr<std::string>()>;
  // Takes a piece of an answer's body.
  using SinkFn = std::function<absl::Status(absl::string_view)>;

  // "http://HOST:PORT". InvalidArgument for anything else.
  static absl::StatusOr<HttpClient> Create(const std::string& server);

  // The answer's JSON; null where it has no body. An answer that is no success is an error with
  // what its problem's `detail` says; Unavailable where the server cannot be reached, or broke off.
  absl::StatusOr<boost::json::value> Send(const std::string& method, const std::string& target,
                                          const std::string& body = "",
                                          const std::string& idempotency_key = "");
  absl::StatusOr<boost::json::value> Upload(const std::string& target, const BodyFn& body);
  absl::Status Download(const std::string& target, const SinkFn& sink);

 private:
  struct Connection;
  absl::StatusOr<std::unique_ptr<Connection>> Connect();
  absl::StatusOr<boost::json::value> ReadJson(Connection& connection);

  std::string server_, host_, port_;
};

}  // namespace longwave

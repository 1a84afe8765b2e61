// Requests and responses of the HTTP API as plain data: what stands between the sockets
// (http_server.h) and the answers (api.h).
//
// Thread safety: plain data. `later` and `stream` are called by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boost/json/object.hpp"

namespace longwave {

struct ApiRequest {
  std::string method;  // "GET"
  std::string target;  // as it came: path and query, percent encoded
  std::string body;
  // The headers of these names; empty: none.
  std::string authorization, idempotency_key, range, if_range, if_none_match, last_event_id;
};

// Part of a response's body that is read from the object store while it is sent.
struct BodyPart {
  std::string object;
  int64_t offset = 0, bytes = 0;
  std::string sha256;  // where the part is the whole object: compared before its last bytes go
};

struct ApiResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;             // then
  std::vector<BodyPart> parts;  // these

  // Instead of all of the above: not answered yet. Asked again, every so often, until it is.
  std::function<std::optional<ApiResponse>()> later;
  // Instead of a body: one of unknown length. Each call returns what there is to send by now,
  // nothing where there is nothing new. An error ends the body.
  std::function<absl::StatusOr<std::string>()> stream;

  int64_t body_bytes() const;
};

// The one table of status codes.
int HttpStatus(const absl::Status& status);
// An error of the object store, as the API tells it: a full store is 507 and no quota, and one that
// refuses this server is 503 and not the client's 403. What the store said has paths, and goes to
// the log.
absl::Status OfObjects(const absl::Status& status);
ApiResponse JsonResponse(int status, const boost::json::object& object);
// The answer that says what went wrong, in one line: application/problem+json. What a database said
// goes to the log.
ApiResponse Problem(const absl::Status& status);
ApiResponse Problem(int http_status, absl::string_view detail);

// InvalidArgument: "WHAT VALUE: must be EXPECTED". A long value is cut.
absl::Status Bad(absl::string_view what, absl::string_view value, absl::string_view expected);
std::string Quoted(absl::string_view text);

}  // namespace longwave

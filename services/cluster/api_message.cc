#include "services/cluster/api_message.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "boost/json/serialize.hpp"
#include "observability/log.h"
#include "scheduler/sql_database.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr size_t kMostSaid = 200;    // bytes of an offending value
constexpr char kRetryAfter[] = "5";  // seconds

// The payload of a status whose object store is full.
constexpr char kFull[] = "longwave/object-store-full";

const char* Title(int status) {
  switch (status) {
    case 400:
      return "Bad request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not found";
    case 405:
      return "Method not allowed";
    case 408:
      return "Too slow";
    case 409:
      return "Conflict";
    case 413:
      return "Too large";
    case 416:
      return "Range not satisfiable";
    case 429:
      return "Quota used up";
    case 431:
      return "Header too large";
    case 501:
      return "Not implemented";
    case 503:
      return "Not available";
    case 504:
      return "Not in time";
    case 507:
      return "Storage full";
    default:
      return "Internal error";
  }
}

}  // namespace

int HttpStatus(const absl::Status& status) {
  if (status.GetPayload(kFull).has_value()) return 507;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kOutOfRange:
      return 416;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

absl::Status OfObjects(const absl::Status& status) {
  if (status.ok()) return status;
  log::Error("the object store failed", {{"error", status.message()}});
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted: {
      absl::Status full = absl::ResourceExhaustedError("the object store is full");
      full.SetPayload(kFull, absl::Cord());
      return full;
    }
    case absl::StatusCode::kPermissionDenied:
      return absl::UnavailableError("the object store refuses this server");
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kUnknown:
      return absl::UnavailableError("the object store does not answer");
    case absl::StatusCode::kDataLoss:  // names the object
      return status;
    default:
      return absl::InternalError("the object store failed");
  }
}

int64_t ApiResponse::body_bytes() const {
  int64_t bytes = static_cast<int64_t>(body.size());
  for (const BodyPart& part : parts) bytes += part.bytes;
  return bytes;
}

ApiResponse JsonResponse(int status, const boost::json::object& object) {
  ApiResponse response;
  response.status = status;
  response.body = boost::json::serialize(object) + "\n";
  return response;
}

ApiResponse Problem(int http_status, absl::string_view detail) {
  std::string line = ToUtf8(detail);  // what a client sent may be said in it
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return absl::ascii_iscntrl(c); }, '?');
  ApiResponse response = JsonResponse(http_status, {{"type", "about:blank"},
                                                    {"title", Title(http_status)},
                                                    {"status", http_status},
                                                    {"detail", line}});
  response.content_type = "application/problem+json";
  if (http_status == 401) {
    response.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"longwave\"");
  }
  if (http_status == 503) response.headers.emplace_back("Retry-After", kRetryAfter);
  return response;
}

ApiResponse Problem(const absl::Status& status) {
  const std::optional<std::string> plain = PlainSqlError(status);
  if (plain.has_value()) log::Error("the database failed", {{"error", status.message()}});
  return Problem(HttpStatus(status), plain.has_value() ? *plain : status.message());
}

absl::Status Bad(absl::string_view what, absl::string_view value, absl::string_view expected) {
  const bool cut = value.size() > kMostSaid;
  return absl::InvalidArgumentError(absl::StrCat(what, " ", ToUtf8(value.substr(0, kMostSaid)),
                                                 cut ? "...: must be " : ": must be ", expected));
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", ToUtf8(text.substr(0, kMostSaid)),
                      text.size() > kMostSaid ? "...\"" : "\"");
}

}  // namespace longwave

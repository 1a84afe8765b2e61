// Reads what a client sends: targets, JSON bodies, ranges, cursors, names. Every refusal names the
// field and its value.
//
// Thread safety: plain functions; a Fields belongs to one caller.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "boost/json/object.hpp"

namespace longwave {

using Query = std::map<std::string, std::string>;

struct Target {
  std::vector<std::string> path;  // decoded segments: "/v1/jobs" -> v1, jobs
  Query query;                    // decoded
};
absl::StatusOr<Target> ParseTarget(const std::string& text);

// The value of a parameter; `otherwise` where it is not given.
std::string QueryText(const Query& query, const std::string& name);  // empty: not given
absl::StatusOr<int64_t> QueryNumber(const Query& query, const std::string& name, int64_t least,
                                    int64_t most, int64_t otherwise);

// A page's place in a list, opaque to clients: "jobs" and the number to go on from.
std::string MakeCursor(absl::string_view list, int64_t number);
// INT64_MAX where the query has none.
absl::StatusOr<int64_t> ParseCursor(const Query& query, absl::string_view list);

// Whether a range is not one of bytes: then it is as if there were none.
bool IsOfOtherUnit(absl::string_view range);
// [first, first + count) of `size` bytes; nullopt: no range was asked for. One range of bytes.
// OutOfRange where it begins behind the end.
absl::StatusOr<std::optional<std::pair<int64_t, int64_t>>> ParseRange(const std::string& header,
                                                                      int64_t size);

// 1 to 63 of [A-Za-z0-9._-], beginning with a letter or digit: names of tenants and sessions.
bool IsName(absl::string_view text);
// Whether there could be anything of this id: 1 to 64 of [A-Za-z0-9._-].
bool CouldBeId(absl::string_view text);
// UTF-8 without control characters.
bool IsPlainText(absl::string_view text);

// The fields of a JSON object: each is asked for by name, then Done() says what was wrong first.
// A field that is not there leaves the value as it was.
class Fields {
 public:
  static constexpr size_t kMostDepth = 8;
  static constexpr size_t kMostText = 4096;  // bytes of a string, unless said

  static absl::StatusOr<Fields> Parse(const std::string& body);

  Fields& Text(const char* name, std::string& value, size_t most_bytes = kMostText);
  Fields& AnyText(const char* name, std::string& value, size_t most_bytes);  // any characters
  Fields& Number(const char* name, int64_t& value, int64_t least, int64_t most);
  Fields& Number(const char* name, uint64_t& value);
  Fields& Real(const char* name, double& value);
  Fields& Flag(const char* name, bool& value);
  // Whole numbers of int32.
  Fields& Numbers(const char* name, std::optional<std::vector<int32_t>>& value, size_t most);
  bool Has(const char* name) const { return object_.contains(name); }
  std::string ValueOf(const char* name) const;  // as JSON. REQUIRES: Has(name)
  // Fields that nobody asked for are refused.
  absl::Status Done();

 private:
  const boost::json::value* Take(const char* name);
  void Refuse(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  boost::json::object object_;
  std::vector<std::string> known_;
  absl::Status status_;
};

}  // namespace longwave

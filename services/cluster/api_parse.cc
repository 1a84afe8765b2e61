#include "services/cluster/api_parse.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "boost/json/parse.hpp"
#include "boost/json/serialize.hpp"
#include "boost/url/parse.hpp"
#include "services/cluster/api_message.h"
#include "services/text.h"

namespace longwave {
namespace {

bool IsIdLetter(char letter) {
  return absl::ascii_isalnum(static_cast<unsigned char>(letter)) || letter == '.' ||
         letter == '_' || letter == '-';
}

}  // namespace

absl::StatusOr<Target> ParseTarget(const std::string& text) {
  const auto url = boost::urls::parse_origin_form(text);
  if (!url.has_value()) return Bad("target", Quoted(text), "a path");
  Target target;
  for (const auto segment : url->segments()) target.path.push_back(std::string(segment));
  for (const auto parameter : url->params()) {
    const std::string key(parameter.key);
    if (!target.query.emplace(key, std::string(parameter.value)).second) {
      return Bad("query", Quoted(key), "given once");
    }
  }
  return target;
}

std::string QueryText(const Query& query, const std::string& name) {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

absl::StatusOr<int64_t> QueryNumber(const Query& query, const std::string& name, int64_t least,
                                    int64_t most, int64_t otherwise) {
  const auto found = query.find(name);
  if (found == query.end()) return otherwise;
  int64_t number = 0;
  if (absl::SimpleAtoi(found->second, &number) && number >= least && number <= most) return number;
  return Bad(name, Quoted(found->second), absl::StrCat("a whole number, ", least, " to ", most));
}

std::string MakeCursor(absl::string_view list, int64_t number) {
  return absl::WebSafeBase64Escape(absl::StrCat(list, " ", number));
}

absl::StatusOr<int64_t> ParseCursor(const Query& query, absl::string_view list) {
  const auto found = query.find("cursor");
  if (found == query.end()) return std::numeric_limits<int64_t>::max();
  std::string text;
  absl::string_view number;
  int64_t value = 0;
  if (absl::WebSafeBase64Unescape(found->second, &text)) {
    number = text;
    if (absl::ConsumePrefix(&number, absl::StrCat(list, " ")) && absl::SimpleAtoi(number, &value) &&
        MakeCursor(list, value) == found->second) {
      return value;
    }
  }
  return Bad("cursor", Quoted(found->second), "next_cursor of this list's page before");
}

bool IsOfOtherUnit(absl::string_view range) {
  const size_t end = range.find('=');
  return end != absl::string_view::npos && !absl::EqualsIgnoreCase(range.substr(0, end), "bytes");
}

absl::StatusOr<std::optional<std::pair<int64_t, int64_t>>> ParseRange(const std::string& header,
                                                                      int64_t size) {
  if (header.empty()) return std::nullopt;
  const std::pair<absl::string_view, absl::string_view> unit =
      absl::StrSplit(header, absl::MaxSplits('=', 1));
  const absl::string_view text = unit.second;
  const bool of_bytes = absl::EqualsIgnoreCase(unit.first, "bytes");
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '-');
  const auto parse = [](absl::string_view digits, int64_t& number) {
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit)) {
      return false;
    }
    if (!absl::SimpleAtoi(digits, &number)) number = std::numeric_limits<int64_t>::max();
    return true;
  };
  int64_t first = 0, last = size - 1;
  bool good = of_bytes && parts.size() == 2;
  if (good && parts[0].empty()) {  // the last so many
    good = parse(parts[1], last);
    first = std::max<int64_t>(0, size - last);
    last = last == 0 ? -1 : size - 1;
  } else if (good) {
    good = parse(parts[0], first) && (parts[1].empty() || (parse(parts[1], last) && last >= first));
  }
  if (!good) return Bad("Range", Quoted(header), "bytes=FIRST-LAST");
  last = std::min(last, size - 1);
  if (first > last) {
    return absl::OutOfRangeError(absl::StrCat("Range ", Quoted(header), " of ", size, " bytes"));
  }
  return std::pair(first, last - first + 1);
}

bool CouldBeId(absl::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), IsIdLetter);
}

bool IsName(absl::string_view text) {
  return CouldBeId(text) && text.size() <= 63 &&
         absl::ascii_isalnum(static_cast<unsigned char>(text[0]));
}

bool IsPlainText(absl::string_view text) {
  return ToUtf8(text) == text && std::none_of(text.begin(), text.end(), [](char letter) {
           return absl::ascii_iscntrl(static_cast<unsigned char>(letter));
         });
}

absl::StatusOr<Fields> Fields::Parse(const std::string& body) {
  boost::system::error_code code;
  boost::json::parse_options options;
  options.max_depth = kMostDepth;
  const boost::json::value value = boost::json::parse(body, code, {}, options);
  if (code) {
    return absl::InvalidArgumentError(absl::StrCat("body: not JSON (", code.message(), ")"));
  }
  if (!value.is_object()) return Bad("body", boost::json::serialize(value), "a JSON object");
  Fields fields;
  fields.object_ = value.get_object();
  return fields;
}

const boost::json::value* Fields::Take(const char* name) {
  known_.push_back(name);
  return object_.if_contains(name);
}

Fields& Fields::AnyText(const char* name, std::string& value, size_t most_bytes) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (!field->is_string()) {
    Refuse(Bad(name, boost::json::serialize(*field), "a string"));
  } else if (field->get_string().size() > most_bytes) {
    Refuse(Bad(name, boost::json::serialize(*field),
               absl::StrCat("of at most ", most_bytes, " bytes")));
  } else {
    value = std::string(field->get_string());
  }
  return *this;
}

Fields& Fields::Text(const char* name, std::string& value, size_t most_bytes) {
  AnyText(name, value, most_bytes);
  if (!IsPlainText(value)) Refuse(Bad(name, Quoted(value), "without control characters"));
  return *this;
}

Fields& Fields::Number(const char* name, int64_t& value, int64_t least, int64_t most) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (field->is_int64() && field->get_int64() >= least && field->get_int64() <= most) {
    value = field->get_int64();
  } else {
    Refuse(Bad(name, boost::json::serialize(*field),
               absl::StrCat("a whole number, ", least, " to ", most)));
  }
  return *this;
}

Fields& Fields::Number(const char* name, uint64_t& value) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (field->is_uint64()) {
    value = field->get_uint64();
  } else if (field->is_int64() && field->get_int64() >= 0) {
    value = static_cast<uint64_t>(field->get_int64());
  } else {
    Refuse(Bad(name, boost::json::serialize(*field), "a whole number, 0 to 2^64 - 1"));
  }
  return *this;
}

Fields& Fields::Real(const char* name, double& value) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (field->is_number()) {
    value = field->to_number<double>();
  } else {
    Refuse(Bad(name, boost::json::serialize(*field), "a number"));
  }
  return *this;
}

std::string Fields::ValueOf(const char* name) const {
  return boost::json::serialize(object_.at(name));
}

Fields& Fields::Flag(const char* name, bool& value) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (field->is_bool()) {
    value = field->get_bool();
  } else {
    Refuse(Bad(name, boost::json::serialize(*field), "true or false"));
  }
  return *this;
}

Fields& Fields::Numbers(const char* name, std::optional<std::vector<int32_t>>& value, size_t most) {
  const boost::json::value* field = Take(name);
  if (field == nullptr) return *this;
  if (!field->is_array() || field->get_array().size() > most) {
    Refuse(Bad(name, boost::json::serialize(*field),
               absl::StrCat("a list of at most ", most, " whole numbers")));
    return *this;
  }
  value.emplace();
  for (const boost::json::value& number : field->get_array()) {
    if (!number.is_int64() || number.get_int64() < 0 ||
        number.get_int64() > std::numeric_limits<int32_t>::max()) {
      Refuse(Bad(absl::StrCat(name, "[", value->size(), "]"), boost::json::serialize(number),
                 "a whole number, 0 to 2147483647"));
      return *this;
    }
    value->push_back(static_cast<int32_t>(number.get_int64()));
  }
  return *this;
}

absl::Status Fields::Done() {
  for (const auto& entry : object_) {
    const std::string name(entry.key());
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      Refuse(Bad("field", Quoted(name), absl::StrCat("one of ", absl::StrJoin(known_, ", "))));
    }
  }
  return status_;
}

}  // namespace longwave

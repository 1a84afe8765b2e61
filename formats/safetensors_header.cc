// A handler for Boost.JSON's event parser, since its document form keeps the last of two equal keys
// without a word. Where the parser stands is `place_`:
//   kTop -> "{" -> kNames -> "name": "{" -> kFields -> "shape": "[" -> kShape ...
#include "formats/safetensors_header.h"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

using ErrorCode = boost::system::error_code;
using Text = boost::json::string_view;

constexpr size_t kMaxDimensions = 32;
constexpr size_t kMaxDepth = 8;
constexpr size_t kShownName = 200;

std::optional<DType> ParseDType(const std::string& name) {
  for (DType type : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                     DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    if (name == Name(type)) return type;
  }
  return std::nullopt;
}

class Handler {
 public:
  static constexpr size_t max_object_size = -1;
  static constexpr size_t max_array_size = -1;
  static constexpr size_t max_key_size = -1;
  static constexpr size_t max_string_size = -1;

  absl::Status status;
  std::vector<SafetensorsEntry> entries;

  bool on_document_begin(ErrorCode&) { return true; }
  bool on_document_end(ErrorCode&) { return true; }

  bool on_object_begin(ErrorCode& ec) {
    if (place_ == kTop) return Enter(kNames);
    if (place_ == kNames) {
      if (key_ == "__metadata__") return Enter(kMetadata);
      entries.emplace_back();
      entries.back().name = key_;
      has_dtype_ = has_shape_ = has_offsets_ = false;
      return Enter(kFields);
    }
    return Unexpected("an object", ec);
  }

  bool on_object_end(size_t, ErrorCode& ec) {
    if (place_ == kNames) return Enter(kTop);
    if (place_ == kFields) {
      const char* missing = !has_dtype_     ? "dtype"
                            : !has_shape_   ? "shape"
                            : !has_offsets_ ? "data_offsets"
                                            : nullptr;
      if (missing) return Fail(absl::StrCat(Tensor(), " has no ", missing), ec);
    }
    return Enter(kNames);
  }

  bool on_array_begin(ErrorCode& ec) {
    if (place_ == kFields && key_ == "shape") return Enter(kShape);
    if (place_ == kFields && key_ == "data_offsets") return Enter(kOffsets);
    return Unexpected("an array", ec);
  }

  bool on_array_end(size_t n, ErrorCode& ec) {
    if (place_ == kOffsets && n != 2) {
      return Fail(absl::StrCat(Tensor(), ": data_offsets holds ", n, " numbers, not 2"), ec);
    }
    return Enter(kFields);
  }

  bool on_key_part(Text part, size_t, ErrorCode&) { return Gather(part); }
  bool on_key(Text part, size_t, ErrorCode& ec) {
    Gather(part);
    key_ = std::exchange(text_, {});
    if (place_ == kNames && !names_.insert(key_).second) {
      return Fail(absl::StrCat(QuotedName(key_), " appears twice"), ec);
    }
    if (place_ != kFields) return true;
    bool* has = key_ == "dtype"          ? &has_dtype_
                : key_ == "shape"        ? &has_shape_
                : key_ == "data_offsets" ? &has_offsets_
                                         : nullptr;
    if (!has) return Fail(absl::StrCat(Tensor(), ": unknown key ", QuotedName(key_)), ec);
    if (*has) return Fail(absl::StrCat(Tensor(), ": ", key_, " appears twice"), ec);
    return *has = true;
  }

  bool on_string_part(Text part, size_t, ErrorCode&) { return Gather(part); }
  bool on_string(Text part, size_t, ErrorCode& ec) {
    Gather(part);
    const std::string value = std::exchange(text_, {});
    if (place_ == kMetadata) return true;
    if (place_ != kFields || key_ != "dtype") return Unexpected(QuotedName(value), ec);
    const std::optional<DType> dtype = ParseDType(value);
    if (!dtype) {
      return Fail(absl::StrCat(Tensor(), ": dtype ", QuotedName(value), " is not supported"), ec);
    }
    entries.back().dtype = *dtype;
    return true;
  }

  bool on_number_part(Text, ErrorCode&) { return true; }
  bool on_int64(int64_t value, Text, ErrorCode& ec) {
    if (place_ != kShape && place_ != kOffsets) return Unexpected(absl::StrCat(value), ec);
    if (value < 0) return Unexpected(absl::StrCat("the negative number ", value), ec);
    SafetensorsEntry& entry = entries.back();
    if (place_ == kShape) {
      if (entry.shape.size() == kMaxDimensions) {
        return Fail(absl::StrCat(Tensor(), ": shape has over ", kMaxDimensions, " dimensions"), ec);
      }
      entry.shape.push_back(value);
    } else {
      entry.begin = entry.end;  // of two numbers the first moves here; on_array_end counts them
      entry.end = value;
    }
    return true;
  }
  bool on_uint64(uint64_t value, Text, ErrorCode& ec) {
    return Unexpected(absl::StrCat(value, ", which is beyond int64,"), ec);
  }
  bool on_double(double value, Text, ErrorCode& ec) {
    return Unexpected(absl::StrCat("the number ", value, ", not an integer within int64,"), ec);
  }
  bool on_bool(bool value, ErrorCode& ec) { return Unexpected(value ? "true" : "false", ec); }
  bool on_null(ErrorCode& ec) { return Unexpected("null", ec); }
  bool on_comment_part(Text, ErrorCode&) { return true; }
  bool on_comment(Text, ErrorCode&) { return true; }

 private:
  enum Place { kTop, kNames, kMetadata, kFields, kShape, kOffsets };

  bool Enter(Place place) {
    place_ = place;
    return true;
  }

  bool Gather(Text part) {
    text_.append(part.data(), part.size());
    return true;
  }

  bool Fail(const std::string& what, ErrorCode& ec) {
    status = absl::InvalidArgumentError(what);
    ec = boost::json::error::syntax;  // stops the parser; `status` is what is reported
    return false;
  }

  bool Unexpected(const std::string& what, ErrorCode& ec) {
    switch (place_) {
      case kTop:
        return Fail(absl::StrCat("the header is ", what, ", not an object"), ec);
      case kNames:
        return Fail(absl::StrCat(QuotedName(key_), " is ", what, ", not an object"), ec);
      case kMetadata:
        return Fail(absl::StrCat("__metadata__ ", QuotedName(key_), " is ", what, ", not a string"),
                    ec);
      default:
        return Fail(absl::StrCat(Tensor(), ": ", key_, " is or holds ", what, " where ",
                                 key_ == "dtype" ? "a string" : "sizes (integers >= 0)", " belong"),
                    ec);
    }
  }

  std::string Tensor() const { return absl::StrCat("tensor ", QuotedName(entries.back().name)); }

  Place place_ = kTop;
  std::string text_, key_;
  std::unordered_set<std::string> names_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

}  // namespace

std::string QuotedName(const std::string& name) {
  if (name.size() <= kShownName) return absl::StrCat("'", absl::CHexEscape(name), "'");
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, kShownName)), "'...");
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view json) {
  boost::json::parse_options options;
  options.max_depth = kMaxDepth;
  boost::json::basic_parser<Handler> parser(options);
  ErrorCode ec;
  const size_t used = parser.write_some(false, json.data(), json.size(), ec);
  Handler& handler = parser.handler();
  if (!handler.status.ok()) return handler.status;
  if (!ec && used < json.size()) ec = boost::json::error::extra_data;
  if (ec) {
    return absl::InvalidArgumentError(
        absl::StrCat("the JSON header is malformed at byte ", used, ": ", ec.message()));
  }
  return std::move(handler.entries);
}

}  // namespace longwave

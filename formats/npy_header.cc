// The header of a .npy file: a Python dictionary literal of three known keys.
//   header = "\x93NUMPY" major minor length dict padding
//   dict   = "{" [key ":" value ("," key ":" value)* [","]] "}"
//   value  = string | "True" | "False" | "(" [int ("," int)* [","]] ")"
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "formats/npy.h"
#include "formats/shape.h"

namespace longwave {
namespace {

constexpr uint8_t kMagic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
constexpr size_t kVersionEnd = sizeof(kMagic) + 2;
constexpr int64_t kMaxElements =
    std::numeric_limits<int64_t>::max() / 8;  // of 8 bytes, the largest
constexpr size_t kMaxDimensions = 64;         // NumPy's own

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("npy header: ", what));
}

// A cursor over the dictionary's text. Each Read... skips spaces first.
class Literal {
 public:
  explicit Literal(const std::string& text) : text_(text) {}

  bool Eat(char c) {
    SkipSpaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool EatWord(const char* word) {
    SkipSpaces();
    const size_t size = std::strlen(word);
    if (text_.compare(at_, size, word) != 0) return false;
    at_ += size;
    return true;
  }

  std::optional<std::string> ReadString() {
    SkipSpaces();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return std::nullopt;
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string::npos) return std::nullopt;
    std::string value = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return value;
  }

  std::optional<int64_t> ReadSize() {
    SkipSpaces();
    const size_t start = at_;
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const int digit = text_[at_] - '0';
      if (value > (std::numeric_limits<int64_t>::max() - digit) / 10) return std::nullopt;
      value = value * 10 + digit;
    }
    if (at_ == start) return std::nullopt;
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2's long
    return value;
  }

  bool AtEnd() {
    SkipSpaces();
    return at_ == text_.size();
  }

  std::string Rest() const {
    return absl::StrCat("'", absl::CHexEscape(text_.substr(at_, 40)), "'");
  }

 private:
  void SkipSpaces() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) && text_[at_] != 0) ++at_;
  }

  const std::string& text_;
  size_t at_ = 0;
};

absl::StatusOr<NpyType> ParseType(const std::string& descr) {
  if (descr == "<f4") return NpyType::kFloat32;
  if (descr == "<i4") return NpyType::kInt32;
  if (descr == "<i8") return NpyType::kInt64;
  const std::string shown = absl::CHexEscape(descr.substr(0, 40));
  if (!descr.empty() && descr[0] == '>') {
    return Bad(absl::StrCat("dtype '", shown, "' is big-endian; little-endian is read"));
  }
  return Bad(absl::StrCat("dtype '", shown, "' is not one of <f4, <i4, <i8"));
}

absl::StatusOr<std::vector<int64_t>> ParseShape(Literal& in) {
  if (!in.Eat('(')) return Bad(absl::StrCat("shape is not a tuple at ", in.Rest()));
  std::vector<int64_t> shape;
  while (!in.Eat(')')) {
    const std::string rest = in.Rest();
    const std::optional<int64_t> size = in.ReadSize();
    if (!size) return Bad(absl::StrCat("shape holds no size within int64 at ", rest));
    shape.push_back(*size);
    if (shape.size() > kMaxDimensions) return Bad("shape has over 64 dimensions");
    if (in.Eat(',')) continue;
    if (!in.Eat(')')) return Bad(absl::StrCat("shape has no end at ", in.Rest()));
    if (shape.size() == 1) return Bad("shape is a number, not a tuple");
    break;
  }
  return shape;
}

absl::Status CheckElements(const std::vector<int64_t>& shape) {
  for (int64_t size : shape) {
    if (size == 0) return absl::OkStatus();
  }
  int64_t product = 1;
  for (int64_t size : shape) {
    if (size > kMaxElements / product) {
      return Bad(absl::StrCat("shape ", ShapeString(shape), " overflows int64"));
    }
    product *= size;
  }
  return absl::OkStatus();
}

absl::StatusOr<NpyHeader> ParseDictionary(const std::string& text, int64_t data_offset) {
  std::optional<NpyType> type;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;
  Literal in(text);
  if (!in.Eat('{')) return Bad(absl::StrCat("no dictionary at ", in.Rest()));
  while (!in.Eat('}')) {
    const std::optional<std::string> key = in.ReadString();
    if (!key || !in.Eat(':')) return Bad(absl::StrCat("no 'key': value at ", in.Rest()));
    if (*key == "descr" && !type) {
      const std::optional<std::string> descr = in.ReadString();
      if (!descr) return Bad(absl::StrCat("descr is not a plain dtype at ", in.Rest()));
      absl::StatusOr<NpyType> parsed = ParseType(*descr);
      if (!parsed.ok()) return parsed.status();
      type = *parsed;
    } else if (*key == "fortran_order" && !fortran_order) {
      fortran_order = in.EatWord("True");
      if (!*fortran_order && !in.EatWord("False")) {
        return Bad(absl::StrCat("fortran_order is neither True nor False at ", in.Rest()));
      }
    } else if (*key == "shape" && !shape) {
      absl::StatusOr<std::vector<int64_t>> parsed = ParseShape(in);
      if (!parsed.ok()) return parsed.status();
      shape = *std::move(parsed);
    } else {
      return Bad(
          absl::StrCat("unknown or second key '", absl::CHexEscape(key->substr(0, 40)), "'"));
    }
    if (in.Eat(',')) continue;
    if (!in.Eat('}')) return Bad(absl::StrCat("the dictionary has no end at ", in.Rest()));
    break;
  }
  if (!in.AtEnd()) return Bad(absl::StrCat("text after the dictionary at ", in.Rest()));
  if (!type || !fortran_order || !shape) {
    return Bad(absl::StrCat("key '",
                            !type    ? "descr"
                            : !shape ? "shape"
                                     : "fortran_order",
                            "' is missing"));
  }
  absl::Status fits = CheckElements(*shape);
  if (!fits.ok()) return fits;
  if (*fortran_order && shape->size() > 1) {
    return Bad(absl::StrCat("Fortran order, shape ", ShapeString(*shape), "; C order is read"));
  }
  return NpyHeader{*type, *std::move(shape), data_offset};
}

}  // namespace

int64_t NpyHeader::elements() const {
  int64_t product = 1;
  for (int64_t size : shape) {
    if (size == 0) return 0;
  }
  for (int64_t size : shape) product *= size;
  return product;
}

bool StartsWithNpyMagic(absl::Span<const uint8_t> bytes) {
  return bytes.size() >= sizeof(kMagic) && std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) == 0;
}

absl::StatusOr<NpyHeader> ParseNpyHeader(absl::Span<const uint8_t> bytes) {
  const size_t compared = std::min(bytes.size(), sizeof(kMagic));
  if (compared > 0 && std::memcmp(bytes.data(), kMagic, compared) != 0) {
    return Bad("the file does not start with \\x93NUMPY");
  }
  if (bytes.size() < kVersionEnd) return absl::OutOfRangeError("npy header: no version");
  const int major = bytes[6], minor = bytes[7];
  if (major < 1 || major > 3 || minor != 0) {
    return Bad(absl::StrCat("version ", major, ".", minor, " is not 1.0, 2.0 or 3.0"));
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  const int64_t start = static_cast<int64_t>(kVersionEnd + length_bytes);
  if (static_cast<int64_t>(bytes.size()) < start) {
    return absl::OutOfRangeError("npy header: no length");
  }
  int64_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) {
    length |= static_cast<int64_t>(bytes[kVersionEnd + i]) << (8 * i);
  }
  if (start + length > kMaxNpyHeader) {
    return Bad(absl::StrCat("length ", length, " is beyond ", kMaxNpyHeader - start));
  }
  if (static_cast<int64_t>(bytes.size()) < start + length) {
    return absl::OutOfRangeError(absl::StrCat("npy header: length ", length, ", and ",
                                              bytes.size() - start, " bytes follow"));
  }
  const std::string text(reinterpret_cast<const char*>(bytes.data()) + start, length);
  return ParseDictionary(text, start + length);
}

absl::StatusOr<std::string> FormatNpyHeader(NpyType type, absl::Span<const int64_t> shape,
                                            int64_t size) {
  const char* descr = type == NpyType::kFloat32 ? "<f4" : type == NpyType::kInt32 ? "<i4" : "<i8";
  const int64_t length = size - static_cast<int64_t>(kVersionEnd) - 2;
  std::string text = absl::StrCat(
      "{'descr': '", descr, "', 'fortran_order': False, 'shape': ", ShapeString(shape), ", }");
  if (static_cast<int64_t>(text.size()) >= length || length > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape ", ShapeString(shape), " needs over ", size, " bytes of npy header"));
  }
  text.resize(length - 1, ' ');
  std::string header(reinterpret_cast<const char*>(kMagic), sizeof(kMagic));
  header += {'\x01', '\x00', static_cast<char>(length & 255), static_cast<char>(length >> 8)};
  return header + text + '\n';
}

}  // namespace longwave

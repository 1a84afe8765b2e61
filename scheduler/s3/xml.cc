#include "scheduler/s3/xml.h"

#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace longwave {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool IsNameByte(char c) {
  return absl::ascii_isalnum(c) || c == ':' || c == '_' || c == '-' || c == '.' ||
         static_cast<unsigned char>(c) >= 0x80;
}

void AppendUtf8(uint32_t code, std::string& text) {
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint8_t kFirst[] = {0, 0xc0, 0xe0, 0xf0};
  text.push_back(static_cast<char>(kFirst[more] | code >> (6 * more)));
  for (int i = more - 1; i >= 0; --i) {
    text.push_back(static_cast<char>(0x80 | (code >> (6 * i) & 0x3f)));
  }
}

bool IsCharacter(uint32_t code) {
  return code == '\t' || code == '\n' || code == '\r' || (code >= 0x20 && code < 0xd800) ||
         (code >= 0xe000 && code < 0xfffe) || (code >= 0x10000 && code < 0x110000);
}

class Parser {
 public:
  explicit Parser(absl::string_view document) : all_(document), rest_(document) {}

  absl::StatusOr<XmlElement> Document() {
    absl::ConsumePrefix(&rest_, "\xef\xbb\xbf");
    XmlElement root;
    if (!SkipAround() || !absl::ConsumePrefix(&rest_, "<") || !Element(root, 1)) return Wrong();
    if (!SkipAround() || !rest_.empty()) return Wrong();
    return root;
  }

 private:
  absl::Status Wrong() const {
    return absl::InvalidArgumentError(
        absl::StrCat("XML of ", all_.size(), " bytes: wrong at byte ", all_.size() - rest_.size()));
  }

  void SkipSpace() {
    while (!rest_.empty() && IsSpace(rest_.front())) rest_.remove_prefix(1);
  }

  bool SkipPast(absl::string_view end) {
    const size_t found = rest_.find(end);
    if (found == absl::string_view::npos) return false;
    rest_.remove_prefix(found + end.size());
    return true;
  }

  // Blanks, comments and processing instructions.
  bool SkipAround() {
    while (true) {
      SkipSpace();
      if (absl::ConsumePrefix(&rest_, "<!--")) {
        if (!SkipPast("-->")) return false;
      } else if (absl::ConsumePrefix(&rest_, "<?")) {
        if (!SkipPast("?>")) return false;
      } else {
        return true;
      }
    }
  }

  // The name without its namespace.
  bool Name(absl::string_view& whole) {
    size_t size = 0;
    while (size < rest_.size() && IsNameByte(rest_[size])) ++size;
    whole = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return size > 0 && whole.back() != ':';
  }

  bool SkipAttribute() {
    absl::string_view name;
    if (!Name(name)) return false;
    SkipSpace();
    if (!absl::ConsumePrefix(&rest_, "=")) return false;
    SkipSpace();
    if (rest_.empty() || (rest_.front() != '"' && rest_.front() != '\'')) return false;
    const char quote = rest_.front();
    rest_.remove_prefix(1);
    return SkipPast(absl::string_view(&quote, 1));
  }

  // "&...;", its "&" read.
  bool Entity(std::string& text) {
    const size_t end = rest_.substr(0, 12).find(';');
    if (end == absl::string_view::npos) return false;
    absl::string_view name = rest_.substr(0, end);
    uint32_t code = 0;
    if (name == "lt") {
      code = '<';
    } else if (name == "gt") {
      code = '>';
    } else if (name == "amp") {
      code = '&';
    } else if (name == "quot") {
      code = '"';
    } else if (name == "apos") {
      code = '\'';
    } else if (absl::ConsumePrefix(&name, "#")) {
      const bool hex = absl::ConsumePrefix(&name, "x");
      if (name.empty() || !absl::ascii_isxdigit(name.front())) return false;
      if (hex ? !absl::SimpleHexAtoi(name, &code) : !absl::SimpleAtoi(name, &code)) return false;
    }
    if (!IsCharacter(code)) return false;
    AppendUtf8(code, text);
    rest_.remove_prefix(end + 1);
    return true;
  }

  // All of an element but its "<", which is read.
  bool Element(XmlElement& element, int depth) {
    absl::string_view name;
    if (depth > kMostXmlDepth || !Name(name)) return false;
    element.name = std::string(name.substr(name.rfind(':') + 1));
    while (true) {
      const bool space = !rest_.empty() && IsSpace(rest_.front());
      SkipSpace();
      if (absl::ConsumePrefix(&rest_, "/>")) return true;
      if (absl::ConsumePrefix(&rest_, ">")) break;
      if (!space || !SkipAttribute()) return false;
    }
    while (!rest_.empty()) {
      if (absl::ConsumePrefix(&rest_, "</")) {
        if (!absl::ConsumePrefix(&rest_, name)) return false;
        SkipSpace();
        return absl::ConsumePrefix(&rest_, ">");
      }
      if (absl::ConsumePrefix(&rest_, "<!--")) {
        if (!SkipPast("-->")) return false;
      } else if (absl::ConsumePrefix(&rest_, "<![CDATA[")) {
        const absl::string_view start = rest_;
        if (!SkipPast("]]>")) return false;
        element.text.append(start.data(), start.size() - rest_.size() - 3);
      } else if (absl::ConsumePrefix(&rest_, "<?")) {
        if (!SkipPast("?>")) return false;
      } else if (absl::ConsumePrefix(&rest_, "<")) {
        if (!Element(element.children.emplace_back(), depth + 1)) return false;
      } else if (absl::ConsumePrefix(&rest_, "&")) {
        if (!Entity(element.text)) return false;
      } else {
        const size_t size = std::min(rest_.find_first_of("<&"), rest_.size());
        element.text.append(rest_.data(), size);
        rest_.remove_prefix(size);
      }
    }
    return false;
  }

  const absl::string_view all_;
  absl::string_view rest_;
};

}  // namespace

const XmlElement* XmlElement::Child(absl::string_view name) const {
  for (const XmlElement& child : children) {
    if (child.name == name) return &child;
  }
  return nullptr;
}

std::string XmlElement::ChildText(absl::string_view name) const {
  const XmlElement* child = Child(name);
  return child == nullptr ? "" : child->text;
}

absl::StatusOr<XmlElement> ParseXml(absl::string_view document) {
  return Parser(document).Document();
}

std::string EscapeXml(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

}  // namespace longwave

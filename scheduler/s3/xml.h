// XML as S3 answers it: elements and text. A document type is refused (it could define entities),
// attributes are passed over, and a namespace's prefix is dropped from names.
//
// Thread safety: plain data and a pure function.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

struct XmlElement {
  std::string name;
  std::string text;  // its own, entities replaced; what stands around children is in it too
  std::vector<XmlElement> children;

  // The first child of that name; null where there is none.
  const XmlElement* Child(absl::string_view name) const;
  // Its text; empty where there is none.
  std::string ChildText(absl::string_view name) const;
};

inline constexpr int kMostXmlDepth = 16;

// The root. InvalidArgument says at which byte the document is wrong.
absl::StatusOr<XmlElement> ParseXml(absl::string_view document);
// `text` as content of an element.
std::string EscapeXml(absl::string_view text);

}  // namespace longwave

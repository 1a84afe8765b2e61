// Any bytes as an answer of S3: refused in one line, or a tree of limited depth whose text holds
// when it is written and read again.
#include <string>

#include "absl/strings/str_cat.h"
#include "scheduler/s3/xml.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

std::string Written(const XmlElement& element, int depth) {
  FUZZ_CHECK(depth <= kMostXmlDepth);
  FUZZ_CHECK(!element.name.empty());
  std::string text = absl::StrCat("<", element.name, ">", EscapeXml(element.text));
  for (const XmlElement& child : element.children) text += Written(child, depth + 1);
  return absl::StrCat(text, "</", element.name, ">");
}

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const auto root = ParseXml({reinterpret_cast<const char*>(data), size});
  if (!root.ok()) {
    FUZZ_CHECK(root.status().message().size() < 200);
    return 0;
  }
  const std::string written = Written(*root, 1);
  const auto again = ParseXml(written);
  FUZZ_CHECK(again.ok() && Written(*again, 1) == written);
  return 0;
}

// Any bytes as OUT.resume, as they are and with the checksum that they should have: what is read is
// written again as so many bytes.
#include <string>

#include "formats/resume_point.h"
#include "formats/sha256.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

void CheckBytes(const std::string& bytes) {
  const auto point = ParseResumePoint(bytes);
  if (!point.ok()) {
    FUZZ_CHECK(point.status().message().size() < 4000);
    return;
  }
  const auto again = FormatResumePoint(*point);
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(again->size() == bytes.size());
}

std::string WithChecksum(const std::string& bytes) {
  Sha256 hash;
  hash.Add(bytes);
  return bytes + hash.Digest();
}

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  CheckBytes(bytes);
  CheckBytes(WithChecksum(bytes));
  CheckBytes(WithChecksum(WithChecksum(bytes)));  // the boundary's, then the point's
  return 0;
}

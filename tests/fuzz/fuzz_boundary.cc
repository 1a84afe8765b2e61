// Any bytes as a boundary, as they are and with the checksum that they should have: what is read is
// written again as the same bytes.
#include <string>

#include "formats/boundary.h"
#include "formats/sha256.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

void CheckBytes(const std::string& bytes) {
  const auto boundary = ParseBoundary(bytes);
  if (!boundary.ok()) {
    FUZZ_CHECK(boundary.status().message().size() < 4000);
    return;
  }
  const auto again = FormatBoundary(*boundary);
  FUZZ_CHECK(again.ok() && *again == bytes);
}

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  CheckBytes(bytes);
  Sha256 hash;
  hash.Add(bytes);
  CheckBytes(bytes + hash.Digest());
  return 0;
}

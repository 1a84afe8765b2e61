// Any bytes as a chunk's trace: what is read is the same again when written and read, and the
// timeline made of it is JSON.
#include <string>

#include "boost/json/parse.hpp"
#include "observability/trace.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto trace = ParseTrace(bytes);
  if (!trace.ok()) {
    FUZZ_CHECK(trace.status().message().size() < 1000);
    return 0;
  }
  const auto again = ParseTrace(FormatTrace(*trace));
  FUZZ_CHECK(again.ok() && *again == *trace);
  boost::system::error_code code;
  boost::json::parse(ChromeTrace("job", {*trace}, 0), code);
  FUZZ_CHECK(!code);
  return 0;
}

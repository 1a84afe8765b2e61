// Any bytes as a message: what is read is written again as the same bytes.
#include "scheduler/protocol/messages.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto message = Decode(bytes);
  if (message.ok()) {
    FUZZ_CHECK(Encode(*message) == bytes);
  } else {
    FUZZ_CHECK(message.status().message().size() < 4000);
  }
  return 0;
}

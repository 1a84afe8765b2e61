// Any bytes as a link's message: what is read is written again as the same bytes.
#include "tests/fuzz/fuzz_check.h"
#include "worker/links/link_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto message = DecodeLink(bytes);
  if (message.ok()) {
    FUZZ_CHECK(EncodeLink(*message) == bytes);
    FUZZ_CHECK(message->index >= 0 && message->index < kMostStreamTensors);
    FUZZ_CHECK(message->bytes >= 0 && message->bytes <= kMostTensorBytes);
  } else {
    FUZZ_CHECK(message.status().message().size() < 4000);
  }
  return 0;
}

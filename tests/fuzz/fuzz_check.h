// An assertion that every build type keeps, and what the targets over streams share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "absl/types/span.h"
#include "formats/byte_source.h"

#define FUZZ_CHECK(condition)                                                          \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::fprintf(stderr, "%s:%d: FUZZ_CHECK(%s)\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                    \
    }                                                                                  \
  } while (false)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace longwave {

// A source over the fuzzer's bytes, through gzip where they start like it; null where that fails.
inline std::unique_ptr<ByteSource> FuzzSource(absl::Span<const uint8_t> bytes) {
  auto source = ByteSource::Unpacked(ByteSource::FromMemory(bytes, "fuzz"));
  return source.ok() ? *std::move(source) : nullptr;
}

// Gzip unpacks a thousandfold; reading stops here so that an input stays quick.
inline constexpr int64_t kFuzzElements = 1 << 20;

}  // namespace longwave

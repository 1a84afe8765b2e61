// Numbers and text as people read them, and standard output with its errors.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/utf8.h"  // IWYU pragma: export

namespace longwave {

std::string WithCommas(int64_t n);      // "4,938,920"
std::string HumanBytes(int64_t bytes);  // "512 bytes", "3.4 MiB"
// "1000", "64K", "512MB", "8GiB": units of 1024. Anything else is refused.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);
std::string HumanSeconds(double seconds);       // "0.42 s", "12.3 s", "1:02:03"
std::string BaseName(const std::string& path);  // of "-": "standard input"
// To standard output, at once.
absl::Status PrintOut(absl::string_view text);

}  // namespace longwave

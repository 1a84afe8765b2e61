// Checks of what is typed after options.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/text.h"

namespace longwave {

// CLI11 would read a number beyond the type's as the largest there is, and "-1" as an unsigned one.
template <typename Int = int64_t>
CLI::Validator WholeNumber(const char* what = "a whole number") {
  return CLI::Validator(
      [what](std::string& text) {
        Int value;
        return absl::SimpleAtoi(text, &value) ? "" : absl::StrCat(text, " is not ", what);
      },
      "");
}

// "512MB" becomes the number of bytes.
inline CLI::Validator ByteCount() {
  return CLI::Validator(
      [](std::string& text) {
        absl::StatusOr<int64_t> bytes = ParseBytes(text);
        if (!bytes.ok()) return std::string(bytes.status().message());
        text = absl::StrCat(*bytes);
        return std::string();
      },
      "");
}

}  // namespace longwave

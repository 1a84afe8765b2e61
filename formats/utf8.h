// Text that is known to be UTF-8.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace longwave {

// Bytes that are not UTF-8 become U+FFFD: what JSON may hold.
std::string ToUtf8(absl::string_view bytes);

}  // namespace longwave

// Shapes of arrays, in messages.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace longwave {

std::string ShapeString(absl::Span<const int64_t> shape);  // as Python: "(64, 32, 2)", "(3,)", "()"

}  // namespace longwave

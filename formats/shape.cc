#include "formats/shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace longwave {

std::string ShapeString(absl::Span<const int64_t> shape) {
  return absl::StrCat("(", absl::StrJoin(shape, ", "), shape.size() == 1 ? ",)" : ")");
}

}  // namespace longwave

// What a model is, as one hash: server and workers compare it, boundaries carry it.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace longwave {

// Of a model folder: see docs/formats.md, "Boundaries". Reads both files to their ends.
absl::StatusOr<std::string> ModelHash(const std::string& folder);

}  // namespace longwave

// The JSON header of a safetensors file, parsed into flat entries and nothing more: what the
// offsets must satisfy against the data is safetensors.cc's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/safetensors.h"

namespace longwave {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // each >= 0
  int64_t begin = 0, end = 0;  // data_offsets, each >= 0
};

// In the order of the text. Checks JSON and UTF-8, types, that all three keys are there once, and
// that no name appears twice; "__metadata__" must map strings to strings and is dropped. Messages
// do not name the file.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view json);

// A tensor's name for a message: escaped, quoted and cut where long.
std::string QuotedName(const std::string& name);

}  // namespace longwave

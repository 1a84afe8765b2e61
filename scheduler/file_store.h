// Objects as files of a folder: a file is written under a temporary name (PATH.PID.partial),
// flushed to the disk and renamed, and its folders are flushed too.
//
// Thread safety and errors: see ObjectStore. A full disk or quota is ResourceExhausted.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/object_store.h"

namespace longwave {

inline constexpr absl::string_view kPartialEnding = ".partial";  // as formats/atomic_file.h writes

// REQUIRES: `uri` begins with "file:///".
absl::StatusOr<std::unique_ptr<ObjectStore>> OpenFileStore(const std::string& uri);

}  // namespace longwave

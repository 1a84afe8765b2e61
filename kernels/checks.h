// Checks that descriptors share: each says which field of which operator is wrong, and its value.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/dtype.h"

namespace longwave {

inline absl::Status CheckRange(const char* op, const char* field, int64_t value, int64_t least,
                               int64_t most = int64_t{1} << 48) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(op, ": ", field, " = ", value, " is not in [", least, ", ", most, "]"));
}

// The CPU backend computes in float32 only.
inline absl::Status CheckFloat32(const char* op, const char* field, Dtype dtype) {
  if (dtype == Dtype::kFloat32) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(op, ": ", field, " is ", Name(dtype), ", and the CPU computes in float32 only"));
}

}  // namespace longwave

#define LONGWAVE_RETURN_IF_ERROR(expr)              \
  do {                                              \
    if (absl::Status s = (expr); !s.ok()) return s; \
  } while (false)

#include "scheduler/chunk_plan.h"

#include "absl/strings/str_cat.h"

namespace longwave {

absl::Status ChunkPlan::Validate() const {
  if (chunk < 1) {
    return absl::InvalidArgumentError(absl::StrCat("chunk ", chunk, ": must be at least 1 token"));
  }
  if (length < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence length ", length, ": must be at least 1 token"));
  }
  return absl::OkStatus();
}

std::string ChunkPlan::ToString() const {
  return absl::StrCat(length, " tokens in ", count(), " chunks of ", chunk, ", the last of ",
                      last_tokens());
}

ChunkRange ChunkPlan::Range(int64_t k) const {
  const int64_t begin = k * chunk;
  // Not min(begin + chunk, length): that sum may pass the end of int64.
  return {begin, length - begin < chunk ? length : begin + chunk};
}

}  // namespace longwave

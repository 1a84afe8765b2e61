#include "services/watched_input.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "formats/sha256.h"

namespace longwave {

absl::StatusOr<bool> WatchedInput::NextSequence() {
  absl::StatusOr<bool> more = input_->NextSequence();
  ahead_.reset();
  if (more.ok() && *more) digest_ = HexSha256(absl::StrCat(digest_, ">", input_->sequence().name));
  return more;
}

absl::StatusOr<int64_t> WatchedInput::Read(absl::Span<int32_t> out) {
  int64_t given = 0;
  if (ahead_.has_value() && !out.empty()) {
    out[0] = *ahead_;
    ahead_.reset();
    given = 1;
  }
  const absl::Span<int32_t> rest = out.subspan(given);
  const absl::StatusOr<int64_t> got = input_->Read(rest);
  if (!got.ok()) return got.status();
  if (*got > 0) {
    Sha256 hash;
    hash.Add(digest_);
    hash.Add({reinterpret_cast<const char*>(rest.data()), *got * sizeof(int32_t)});
    digest_ = hash.HexDigest();
  }
  return given + *got;
}

absl::StatusOr<int64_t> WatchedInput::Skip(int64_t tokens, int64_t chunk) {
  std::vector<int32_t> buffer(chunk + 1);
  int64_t total = 0;
  while (total <= tokens) {
    const int64_t wanted = total == 0 ? chunk + 1 : chunk;
    const absl::StatusOr<int64_t> got = Read(absl::MakeSpan(buffer).first(wanted));
    if (!got.ok()) return got.status();
    total += *got;
    if (*got < wanted) break;
    if (total > tokens) ahead_ = buffer[wanted - 1];
  }
  return std::min(total, tokens);
}

}  // namespace longwave

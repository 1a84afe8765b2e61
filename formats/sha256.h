// SHA-256: what objects, boundaries and models are checked against.
//
// Thread safety: one caller at a time. Errors: none but a lack of memory, which ends the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct evp_md_ctx_st;

namespace longwave {

class Sha256 {
 public:
  static constexpr int64_t kBytes = 32;
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Add(absl::string_view bytes);
  // The digest of all that was added, kBytes raw bytes. The last call.
  std::string Digest();
  std::string HexDigest();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string HexSha256(absl::string_view bytes);
// Of a file's content. Errors name the path.
absl::StatusOr<std::string> HexSha256OfFile(const std::string& path);

}  // namespace longwave

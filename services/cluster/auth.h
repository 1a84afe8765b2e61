// Who asks: bearer tokens of tenants, with roles. A token is 256 random bits; what is kept and
// compared is its SHA-256, so neither a copy of the database nor the time that a comparison takes
// tells a token.
//
// Thread safety: safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/job_store.h"
#include "scheduler/token_store.h"

namespace longwave {

struct Identity {
  std::string tenant = kDefaultTenant;
  Role role = Role::kAdmin;
  std::string name;  // of the token, for people

  // An admin is of all tenants.
  bool MaySee(absl::string_view of_tenant) const {
    return role == Role::kAdmin || of_tenant == tenant;
  }
};

// "lw_" and 43 letters.
std::string NewToken();

class Authenticator {
 public:
  struct Options {
    bool tokens = false;      // false: everybody is an admin
    std::string admin_token;  // one that is not in the store; empty: none
  };
  static constexpr size_t kLeastToken = 20, kMostToken = 512;  // bytes

  Authenticator(TokenStore& tokens, const Options& options);
  // Of an Authorization header. Unauthenticated: what is wrong with it.
  absl::StatusOr<Identity> Identify(const std::string& authorization, int64_t now_ms);

 private:
  TokenStore& tokens_;
  const bool on_;
  const std::string admin_hash_;
};

// A file's first line, for secrets; InvalidArgument unless it could be a token.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);
absl::Status CheckToken(absl::string_view what, absl::string_view token);

}  // namespace longwave

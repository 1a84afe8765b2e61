// Bearer tokens of the API. The secret itself is never stored, only its SHA-256.
//
// Thread safety: safe. Time: milliseconds, given by the caller.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/sql_database.h"

namespace longwave {

enum class Role { kReader, kUser, kAdmin };  // each may what those before it may
const char* Name(Role role);                 // "reader"
absl::StatusOr<Role> ParseRole(absl::string_view name);

struct Token {
  std::string id, sha256;  // of the secret, in hex
  std::string tenant, name;
  Role role = Role::kUser;
  int64_t created_ms = 0;
  int64_t expires_ms = 0;    // 0: never
  int64_t last_used_ms = 0;  // 0: not yet; to the minute

  bool ExpiredAt(int64_t now_ms) const { return expires_ms > 0 && expires_ms <= now_ms; }
};

class TokenStore {
 public:
  // `database` has the tables (JobStore::Open makes them), and outlives this.
  explicit TokenStore(SqlDatabase& database) : database_(database) {}

  // AlreadyExists: the id or the secret is another token's.
  absl::Status Create(const Token& token);
  // By creation; an empty tenant: all of them.
  absl::StatusOr<std::vector<Token>> List(const std::string& tenant);
  absl::Status Revoke(const std::string& id);  // NotFound
  // The token of this hash, which is noted as used. NotFound: there is none, or it has expired.
  absl::StatusOr<Token> Find(const std::string& sha256, int64_t now_ms);
  // The next expiry of each tenant that has tokens which expire: tenant, milliseconds since 1970.
  // The soonest first.
  absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> NextExpiries(int64_t now_ms,
                                                                            int64_t limit);
  // Whether there is any token at all.
  absl::StatusOr<bool> Any();

 private:
  SqlDatabase& database_;
};

}  // namespace longwave

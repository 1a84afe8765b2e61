#include "scheduler/token_store.h"

#include <iterator>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr const char* kRoleNames[] = {"reader", "user", "admin"};
constexpr int64_t kUsedMs = 60000;  // a use is written down at most so often

std::string Select(const char* where) {
  return absl::StrCat(
      "SELECT id, sha256, tenant, name, role, created_ms, expires_ms, last_used_ms FROM tokens "
      "WHERE ",
      where);
}

absl::StatusOr<std::vector<Token>> TokensOf(const absl::StatusOr<SqlResult>& result) {
  if (!result.ok()) return result.status();
  std::vector<Token> tokens;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    Token& token = tokens.emplace_back();
    for (std::string* field : {&token.id, &token.sha256, &token.tenant, &token.name}) {
      *field = row.Text();
    }
    const absl::StatusOr<Role> role = ParseRole(row.Text());
    if (!role.ok()) return role.status();
    token.role = *role;
    for (int64_t* field : {&token.created_ms, &token.expires_ms, &token.last_used_ms}) {
      *field = row.Number();
    }
  }
  return tokens;
}

}  // namespace

const char* Name(Role role) { return kRoleNames[static_cast<int>(role)]; }

absl::StatusOr<Role> ParseRole(absl::string_view name) {
  for (size_t i = 0; i < std::size(kRoleNames); ++i) {
    if (name == kRoleNames[i]) return static_cast<Role>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("role \"", name, "\": must be one of admin, user, reader"));
}

absl::Status TokenStore::Create(const Token& token) {
  return database_.Write([&](SqlConnection& connection) {
    return connection
        .Run(
            "INSERT INTO tokens (id, sha256, tenant, name, role, created_ms, expires_ms, "
            "last_used_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, 0)",
            {token.id, token.sha256, token.tenant, token.name, std::string(Name(token.role)),
             token.created_ms, token.expires_ms})
        .status();
  });
}

absl::StatusOr<std::vector<Token>> TokenStore::List(const std::string& tenant) {
  if (tenant.empty()) {
    return TokensOf(database_.Read(Select("1 = 1 ORDER BY created_ms, id").c_str(), {}));
  }
  return TokensOf(database_.Read(Select("tenant = $1 ORDER BY created_ms, id").c_str(), {tenant}));
}

absl::Status TokenStore::Revoke(const std::string& id) {
  return database_.Write([&](SqlConnection& connection) {
    const absl::StatusOr<SqlResult> gone = connection.Run("DELETE FROM tokens WHERE id = $1", {id});
    if (gone.ok() && gone->changed == 0) {
      return absl::NotFoundError(absl::StrCat("there is no token \"", id, "\""));
    }
    return gone.status();
  });
}

absl::StatusOr<Token> TokenStore::Find(const std::string& sha256, int64_t now_ms) {
  const absl::StatusOr<std::vector<Token>> found =
      TokensOf(database_.Read(Select("sha256 = $1").c_str(), {sha256}));
  if (!found.ok()) return found.status();
  if (found->empty()) return absl::NotFoundError("there is no such token");
  Token token = found->front();
  if (token.ExpiredAt(now_ms)) {
    return absl::NotFoundError(
        absl::StrCat("token ", token.id, " expired at ", token.expires_ms, " ms"));
  }
  if (now_ms - token.last_used_ms < kUsedMs) return token;
  token.last_used_ms = now_ms;
  // Worth no error: who only reads goes on while nothing can be written.
  database_
      .Write([&](SqlConnection& connection) {
        return connection
            .Run("UPDATE tokens SET last_used_ms = $1 WHERE id = $2", {now_ms, token.id})
            .status();
      })
      .IgnoreError();
  return token;
}

absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> TokenStore::NextExpiries(
    int64_t now_ms, int64_t limit) {
  const absl::StatusOr<SqlResult> result = database_.Read(
      "SELECT tenant, MIN(expires_ms) FROM tokens WHERE expires_ms > $1 GROUP BY tenant "
      "ORDER BY 2, 1 LIMIT $2",
      {now_ms, limit});
  if (!result.ok()) return result.status();
  std::vector<std::pair<std::string, int64_t>> expiries;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    std::string tenant = row.Text();
    expiries.emplace_back(std::move(tenant), row.Number());
  }
  return expiries;
}

absl::StatusOr<bool> TokenStore::Any() {
  const absl::StatusOr<SqlResult> any = database_.Read("SELECT id FROM tokens LIMIT 1", {});
  if (!any.ok()) return any.status();
  return !any->rows.empty();
}

}  // namespace longwave

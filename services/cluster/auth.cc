#include "services/cluster/auth.h"

#include <openssl/rand.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "services/text.h"

namespace longwave {

std::string NewToken() {
  std::string secret(32, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(secret.data()),
                 static_cast<int>(secret.size())) != 1) {
    std::fprintf(stderr, "longwave: the system gives no random numbers\n");
    std::abort();
  }
  return "lw_" + absl::WebSafeBase64Escape(secret);
}

absl::Status CheckToken(absl::string_view what, absl::string_view token) {
  if (token.size() < Authenticator::kLeastToken || token.size() > Authenticator::kMostToken) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " of ", token.size(), " bytes: must be of ", Authenticator::kLeastToken,
                     " to ", Authenticator::kMostToken));
  }
  if (!std::all_of(token.begin(), token.end(),
                   [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": has other bytes than printable ASCII without spaces"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) {
    return absl::InvalidArgumentError(absl::StrCat("token file ", path, ": cannot be read"));
  }
  line = std::string(absl::StripAsciiWhitespace(line));
  absl::Status good = CheckToken(absl::StrCat("token file ", path, ": a token"), line);
  if (!good.ok()) return good;
  return line;
}

Authenticator::Authenticator(TokenStore& tokens, const Options& options)
    : tokens_(tokens),
      on_(options.tokens),
      admin_hash_(options.admin_token.empty() ? "" : HexSha256(options.admin_token)) {}

absl::StatusOr<Identity> Authenticator::Identify(const std::string& authorization, int64_t now_ms) {
  if (!on_) return Identity{};
  if (authorization.empty()) {
    return absl::UnauthenticatedError("token: none was given (Authorization: Bearer TOKEN)");
  }
  if (!absl::StartsWithIgnoreCase(authorization, "Bearer ")) {
    // What stands there may be a password: it is not said again.
    return absl::UnauthenticatedError("header Authorization: must be \"Bearer TOKEN\"");
  }
  const absl::string_view secret =
      absl::StripAsciiWhitespace(absl::string_view(authorization).substr(7));
  if (!CheckToken("token", secret).ok()) {
    return absl::UnauthenticatedError(
        absl::StrCat("token: of ", secret.size(), " bytes, which no token looks like"));
  }
  const std::string hash = HexSha256(secret);
  if (hash == admin_hash_) return Identity{kDefaultTenant, Role::kAdmin, "admin"};
  const absl::StatusOr<Token> token = tokens_.Find(hash, now_ms);
  if (absl::IsNotFound(token.status())) {
    return absl::UnauthenticatedError("token: is not known, was revoked or has expired");
  }
  if (!token.ok()) return token.status();
  return Identity{token->tenant, token->role, token->name};
}

}  // namespace longwave

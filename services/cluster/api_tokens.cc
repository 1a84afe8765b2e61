// Tokens and tenants, for admins.
#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "formats/sha256.h"
#include "services/cluster/api.h"

namespace longwave {
namespace {

constexpr size_t kMostName = 100;
constexpr int64_t kMostDays = 3660;
constexpr int64_t kMostQuota = int64_t{1} << 50;

boost::json::object ToJson(const Token& token) {
  boost::json::object object = {{"id", token.id},
                                {"name", token.name},
                                {"tenant", token.tenant},
                                {"role", Name(token.role)},
                                {"created_ms", token.created_ms}};
  if (token.expires_ms > 0) object["expires_ms"] = token.expires_ms;
  if (token.last_used_ms > 0) object["last_used_ms"] = token.last_used_ms;
  return object;
}

boost::json::object ToJson(const Tenant& tenant) {
  boost::json::object object = {{"name", tenant.name}, {"weight", tenant.weight}};
  if (tenant.most_queued_jobs > 0) object["most_queued_jobs"] = tenant.most_queued_jobs;
  if (tenant.most_leases > 0) object["most_leases"] = tenant.most_leases;
  if (tenant.most_bytes > 0) object["most_bytes"] = tenant.most_bytes;
  return object;
}

absl::Status CheckTenantName(const std::string& name) {
  if (IsName(name)) return absl::OkStatus();
  return Bad("tenant", Quoted(name), "1 to 63 of [A-Za-z0-9._-], a letter or digit first");
}

}  // namespace

Api::Answer Api::CreateToken(const Call& call) {
  absl::StatusOr<Fields> fields = Fields::Parse(call.request.body);
  if (!fields.ok()) return fields.status();
  Token token;
  token.tenant = kDefaultTenant;
  std::string role = Name(Role::kUser);
  int64_t days = 0;
  absl::Status status = fields->Text("name", token.name, kMostName)
                            .Text("tenant", token.tenant)
                            .Text("role", role)
                            .Number("days", days, 1, kMostDays)
                            .Done();
  if (status.ok()) status = CheckTenantName(token.tenant);
  if (status.ok() && token.name.empty()) status = Bad("name", "(none)", "given: who has the token");
  if (!status.ok()) return status;
  const absl::StatusOr<Role> parsed = ParseRole(role);
  if (!parsed.ok()) return parsed.status();
  token.role = *parsed;
  const std::string secret = NewToken();
  token.id = NewId();
  token.sha256 = HexSha256(secret);
  token.created_ms = call.now_ms;
  if (days > 0) token.expires_ms = call.now_ms + days * 86400 * 1000;
  status = tokens_.Create(token);
  if (!status.ok()) return status;
  boost::json::object object = ToJson(token);
  object["token"] = secret;  // said once: it is kept nowhere
  ApiResponse response = JsonResponse(201, object);
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

Api::Answer Api::ListTokens(const Call& call) {
  const absl::StatusOr<std::vector<Token>> tokens = tokens_.List(QueryText(call.query, "tenant"));
  if (!tokens.ok()) return tokens.status();
  boost::json::array list;
  for (const Token& token : *tokens) list.push_back(ToJson(token));
  return JsonResponse(200, {{"tokens", std::move(list)}});
}

Api::Answer Api::RevokeToken(const Call& call) {
  if (!CouldBeId(call.ids[0])) {
    return absl::NotFoundError(absl::StrCat("there is no token ", Quoted(call.ids[0])));
  }
  const absl::Status revoked = tokens_.Revoke(call.ids[0]);
  if (!revoked.ok()) return revoked;
  ApiResponse response;
  response.status = 204;
  return response;
}

Api::Answer Api::PutTenant(const Call& call) {
  absl::StatusOr<Fields> fields = Fields::Parse(call.request.body);
  if (!fields.ok()) return fields.status();
  Tenant tenant;
  tenant.name = call.ids[0];
  absl::Status status = CheckTenantName(tenant.name);
  if (!status.ok()) return status;
  status = fields->Number("weight", tenant.weight, 1, 1000)
               .Number("most_queued_jobs", tenant.most_queued_jobs, 0, kMostQuota)
               .Number("most_leases", tenant.most_leases, 0, kMostQuota)
               .Number("most_bytes", tenant.most_bytes, 0, kMostQuota)
               .Done();
  if (status.ok()) status = jobs_.PutTenant(tenant);
  if (!status.ok()) return status;
  return JsonResponse(200, ToJson(tenant));
}

Api::Answer Api::ListTenants(const Call& call) {
  const absl::StatusOr<std::vector<Tenant>> tenants = jobs_.ListTenants();
  if (!tenants.ok()) return tenants.status();
  boost::json::array list;
  for (const Tenant& tenant : *tenants) list.push_back(ToJson(tenant));
  return JsonResponse(200, {{"tenants", std::move(list)}});
}

}  // namespace longwave

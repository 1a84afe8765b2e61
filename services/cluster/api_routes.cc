// Which handler answers what, and who may ask.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/cluster/api.h"

namespace longwave {
namespace {

// What stands in the pattern's braces; false where the path is another.
bool Fits(absl::string_view pattern, const std::vector<std::string>& path,
          std::vector<std::string>& ids) {
  const std::vector<absl::string_view> parts = absl::StrSplit(pattern.substr(1), '/');
  if (parts.size() != path.size()) return false;
  ids.clear();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i][0] == '{') {
      ids.push_back(path[i]);
    } else if (parts[i] != path[i]) {
      return false;
    }
  }
  return true;
}

absl::Status OnlyQuery(const Query& query, const std::vector<const char*>& known) {
  for (const auto& [key, value] : query) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return Bad("query", Quoted(key),
                 known.empty() ? "left out" : absl::StrCat("one of ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

std::string PathOf(const std::string& target) { return target.substr(0, target.find('?')); }

}  // namespace

const std::vector<Api::Route>& Api::Routes() {
  constexpr auto kReader = Role::kReader, kUser = Role::kUser, kAdmin = Role::kAdmin;
  static const auto* routes = new std::vector<Route>{
      {"GET", "/healthz", {}, {}, &Api::Health},
      {"GET", "/readyz", {}, {}, &Api::Ready},
      {"GET", "/metrics", {}, {}, &Api::Metrics},
      {"GET", "/openapi.json", {}, {}, &Api::OpenApi},
      {"POST", "/v1/files", kUser, {"name"}, &Api::NoUpload, true},
      {"GET", "/v1/files", kReader, {"tenant", "cursor", "limit"}, &Api::ListFiles},
      {"GET", "/v1/files/{file}", kReader, {}, &Api::GetFile},
      {"DELETE", "/v1/files/{file}", kUser, {}, &Api::DeleteFile, true},
      {"POST", "/v1/jobs", kUser, {}, &Api::CreateJob},
      {"GET",
       "/v1/jobs",
       kReader,
       {"state", "model", "task", "tenant", "cursor", "limit"},
       &Api::ListJobs},
      {"GET", "/v1/jobs/{job}", kReader, {}, &Api::GetJob},
      {"DELETE", "/v1/jobs/{job}", kUser, {}, &Api::DeleteJob, true},
      {"POST", "/v1/jobs/{job}/cancel", kUser, {}, &Api::CancelJob, true},
      {"GET", "/v1/jobs/{job}/sequences", kReader, {"from", "limit"}, &Api::ListSequences},
      {"GET", "/v1/jobs/{job}/output", kReader, {"sequence"}, &Api::GetOutput},
      {"GET", "/v1/jobs/{job}/trace", kReader, {}, &Api::GetTrace, true},
      {"GET", "/v1/jobs/{job}/events", kReader, {"after", "follow"}, &Api::JobEvents},
      {"GET", "/v1/events", kReader, {"after", "follow", "tenant"}, &Api::AllEvents},
      {"GET", "/v1/models", kReader, {}, &Api::ListModels},
      {"GET", "/v1/models/{model}", kReader, {}, &Api::GetModel},
      {"GET", "/v1/workers", kReader, {}, &Api::ListWorkers},
      {"POST", "/v1/sessions", kUser, {}, &Api::CreateSession},
      {"GET", "/v1/sessions", kReader, {"tenant", "cursor", "limit"}, &Api::ListSessions},
      {"GET", "/v1/sessions/{session}", kReader, {}, &Api::GetSession},
      {"DELETE", "/v1/sessions/{session}", kUser, {}, &Api::DeleteSession, true},
      {"POST", "/v1/sessions/{session}/append", kUser, {}, &Api::AppendToSession, true},
      {"POST", "/v1/tokens", kAdmin, {}, &Api::CreateToken},
      {"GET", "/v1/tokens", kAdmin, {"tenant"}, &Api::ListTokens},
      {"DELETE", "/v1/tokens/{token}", kAdmin, {}, &Api::RevokeToken},
      {"GET", "/v1/tenants", kAdmin, {}, &Api::ListTenants},
      {"PUT", "/v1/tenants/{tenant}", kAdmin, {}, &Api::PutTenant},
  };
  return *routes;
}

Api::Match Api::FindRoute(const ApiRequest& request) {
  Match match;
  absl::StatusOr<Target> target = ParseTarget(request.target);
  if (!target.ok()) {
    match.refusal = Problem(target.status());
    return match;
  }
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  std::vector<std::string> allowed;
  for (const Route& route : Routes()) {
    std::vector<std::string> ids;
    if (!Fits(route.path, target->path, ids)) continue;
    allowed.push_back(route.method);
    if (method != route.method) continue;
    match.route = &route;
    match.ids = std::move(ids);
    match.query = std::move(target->query);
    return match;
  }
  if (allowed.empty()) {
    match.refusal = Problem(404, absl::StrCat("there is nothing at ", Quoted(request.target)));
    return match;
  }
  std::sort(allowed.begin(), allowed.end());
  const std::string allow = absl::StrJoin(allowed, ", ");
  match.refusal =
      Problem(405, absl::StrCat("method ", Quoted(request.method), ": must be one of ", allow));
  match.refusal.headers.emplace_back("Allow", allow);
  return match;
}

absl::StatusOr<Api::Call> Api::Admit(const ApiRequest& request, Match match) {
  const Route& route = *match.route;
  const int64_t now = WallClockMs();
  Identity who;
  if (route.least.has_value()) {
    absl::StatusOr<Identity> known = auth_.Identify(request.authorization, now);
    if (!known.ok()) return known.status();
    who = *std::move(known);
    if (who.role < *route.least) {
      return absl::PermissionDeniedError(
          absl::StrCat("role ", Name(who.role), " of token ", Quoted(who.name), ": ", route.method,
                       " ", route.path, " needs role ", Name(*route.least)));
    }
  }
  absl::Status query = OnlyQuery(match.query, route.query);
  if (!query.ok()) return query;
  return Call{request, std::move(match.ids), std::move(match.query), std::move(who), now};
}

bool Api::IsImmediate(const ApiRequest& request) { return request.target == "/healthz"; }

bool Api::NeedsObjects(const ApiRequest& request) {
  const Match match = FindRoute(request);
  return match.route != nullptr && match.route->objects;
}

bool Api::IsUpload(const ApiRequest& request) {
  return request.method == "POST" && PathOf(request.target) == "/v1/files";
}

}  // namespace longwave

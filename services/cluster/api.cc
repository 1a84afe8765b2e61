#include "services/cluster/api.h"

#include <chrono>
#include <random>

#include "absl/strings/str_cat.h"
#include "observability/log.h"

namespace longwave {

int64_t WallClockMs() {
  using std::chrono::steady_clock, std::chrono::system_clock;
  static const system_clock::time_point kDay = system_clock::now();
  static const steady_clock::time_point kStart = steady_clock::now();
  return std::chrono::duration_cast<std::chrono::milliseconds>(kDay.time_since_epoch() +
                                                               (steady_clock::now() - kStart))
      .count();
}

std::string NewId() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

Api::Api(const Stores& stores, Authenticator::Options auth, ApiHooks hooks)
    : jobs_(stores.jobs),
      tokens_(stores.tokens),
      sessions_(stores.sessions),
      objects_(stores.objects),
      models_(stores.models),
      auth_(stores.tokens, auth),
      hooks_(std::move(hooks)) {}

void Api::SetReady(absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ready_ = std::move(status);
}

ApiResponse Api::Timed(const Match& match, const std::function<ApiResponse()>& answer) {
  const auto start = std::chrono::steady_clock::now();
  ApiResponse response = match.route == nullptr ? match.refusal : answer();
  if (hooks_.observe) {
    const std::string route =
        match.route == nullptr ? "none" : absl::StrCat(match.route->method, " ", match.route->path);
    hooks_.observe(route, response.status,
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return response;
}

ApiResponse Api::Handle(const ApiRequest& request) {
  Match match = FindRoute(request);
  const Route* route = match.route;
  return Timed(match, [&] {
    const absl::StatusOr<Call> call = Admit(request, match);
    if (!call.ok()) return Problem(call.status());
    Answer answer = (this->*route->handler)(*call);
    return answer.ok() ? *std::move(answer) : Problem(answer.status());
  });
}

void Api::LeftOver(const absl::Status& status) {
  if (!status.ok()) log::Warning("objects are left over", {{"error", status.message()}});
}

absl::StatusOr<std::string> Api::ListedTenant(const Call& call) {
  const std::string asked = QueryText(call.query, "tenant");
  if (call.who.role == Role::kAdmin) return asked;
  if (asked.empty() || asked == call.who.tenant) return call.who.tenant;
  return absl::PermissionDeniedError(
      absl::StrCat("tenant ", Quoted(asked), ": the token is of ", Quoted(call.who.tenant)));
}

absl::StatusOr<Api::Page> Api::AskedPage(const Call& call, const char* list) {
  const absl::StatusOr<std::string> tenant = ListedTenant(call);
  const absl::StatusOr<int64_t> before = ParseCursor(call.query, list);
  const absl::StatusOr<int64_t> limit = QueryNumber(call.query, "limit", 1, kMostListed, 100);
  if (!tenant.ok()) return tenant.status();
  if (!before.ok()) return before.status();
  if (!limit.ok()) return limit.status();
  return Page{list, *tenant, *before, *limit};
}

ApiResponse Api::Page::Answer(boost::json::array entries, int64_t last) const {
  const bool more = static_cast<int64_t>(entries.size()) == limit;
  boost::json::object answer = {{list, std::move(entries)}};
  if (more) answer["next_cursor"] = MakeCursor(list, last);
  return JsonResponse(200, answer);
}

}  // namespace longwave

// What happens to jobs, as server-sent events out of the store's log: whichever server wrote them,
// any server tells them, and a client that comes back misses none.
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/cluster/api.h"

namespace longwave {
namespace {

constexpr int64_t kEventAge = 90;  // ms that streams share one look at the latest number
constexpr int64_t kEventsAtOnce = 500;

std::string Line(const Event& event) {
  return absl::StrCat("id: ", event.number, "\nevent: ", event.kind, "\ndata: {\"job\":\"",
                      event.job, "\",\"tenant\":\"", event.tenant, "\",\"at_ms\":", event.at_ms,
                      ",\"data\":", event.data.empty() ? "{}" : event.data, "}\n\n");
}

bool EndsJob(absl::string_view kind) {
  return kind == "succeeded" || kind == "failed" || kind == "cancelled";
}

}  // namespace

absl::StatusOr<int64_t> Api::LatestEvent() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t now = WallClockMs();
  if (now - latest_event_ms_ >= kEventAge) {
    const absl::StatusOr<int64_t> latest = jobs_.LastEvent();
    if (!latest.ok()) return latest.status();
    latest_event_ = *latest;
    latest_event_ms_ = now;
  }
  return latest_event_;
}

Api::Answer Api::Events(const Call& call, EventFilter filter) {
  int64_t after = 0;
  const std::string& last = call.request.last_event_id;
  if (!last.empty()) {
    if (!absl::SimpleAtoi(last, &after) || after < 0) {
      return Bad("Last-Event-ID", Quoted(last), "the id of an event");
    }
  } else if (call.query.contains("after")) {
    const absl::StatusOr<int64_t> asked = QueryNumber(call.query, "after", 0, INT64_MAX, 0);
    if (!asked.ok()) return asked.status();
    after = *asked;
  } else if (filter.job.empty()) {  // of a job all from its start, of all jobs what is new
    const absl::StatusOr<int64_t> latest = jobs_.LastEvent();
    if (!latest.ok()) return latest.status();
    after = *latest;
  }
  const absl::StatusOr<int64_t> follow = QueryNumber(call.query, "follow", 0, 1, 1);
  if (!follow.ok()) return follow.status();

  struct Place {
    EventFilter filter;
    int64_t after = 0, looked = -1;  // the latest event when it last found nothing
    bool follow = true, over = false;
  };
  auto place = std::make_shared<Place>(Place{std::move(filter), after, -1, *follow == 1, false});
  ApiResponse response;
  response.content_type = "text/event-stream";
  response.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
  response.stream = [this, place]() -> absl::StatusOr<std::string> {
    if (place->over) return absl::OutOfRangeError("the stream is over");
    const absl::StatusOr<int64_t> latest = LatestEvent();
    if (!latest.ok()) return latest.status();
    if (place->looked == *latest) return "";
    // Looked at before the events: the last of them is there once the job is over.
    const std::string& job = place->filter.job;
    const absl::StatusOr<Job> now = job.empty() ? absl::UnknownError("") : jobs_.Get(job);
    const bool ended =
        !job.empty() && (absl::IsNotFound(now.status()) || (now.ok() && IsOver(now->state)));
    const absl::StatusOr<std::vector<Event>> events =
        jobs_.Events(place->filter, place->after, kEventsAtOnce);
    if (!events.ok()) return events.status();
    std::string text;
    for (const Event& event : *events) {
      text += Line(event);
      place->after = event.number;
      if (!place->filter.job.empty() && EndsJob(event.kind)) place->over = true;
    }
    if (events->empty()) {
      place->looked = *latest;
      place->over = place->over || ended || !place->follow;
    }
    return text;
  };
  return response;
}

Api::Answer Api::JobEvents(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  if (!job.ok()) return job.status();
  return Events(call, {job->id, ""});
}

Api::Answer Api::AllEvents(const Call& call) {
  const absl::StatusOr<std::string> tenant = ListedTenant(call);
  if (!tenant.ok()) return tenant.status();
  return Events(call, {"", *tenant});
}

}  // namespace longwave

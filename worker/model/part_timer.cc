#include "worker/model/part_timer.h"

#include "kernels/checks.h"

namespace longwave {

absl::Status PartTimer::Mark(const char* part, Stream& stream) {
  Point point{part, {}, Clock::now(), stream.device().is_gpu()};
  if (point.on_gpu) {
    absl::StatusOr<gpu::Event> event = gpu::Event::Create(stream.device().index);
    if (!event.ok()) return event.status();
    point.event = *std::move(event);
    LONGWAVE_RETURN_IF_ERROR(point.event.Record(stream.queue()));
  }
  points_.push_back(std::move(point));
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, double>> PartTimer::Seconds() const {
  std::map<std::string, double> seconds;
  if (!points_.empty() && points_.back().on_gpu) {
    LONGWAVE_RETURN_IF_ERROR(points_.back().event.Wait());
  }
  for (size_t i = 1; i < points_.size(); ++i) {
    const Point &from = points_[i - 1], &to = points_[i];
    if (!to.on_gpu) {
      seconds[to.part] += std::chrono::duration<double>(to.time - from.time).count();
      continue;
    }
    const absl::StatusOr<double> passed = to.event.SecondsSince(from.event);
    if (!passed.ok()) return passed.status();
    seconds[to.part] += *passed;
  }
  return seconds;
}

}  // namespace longwave

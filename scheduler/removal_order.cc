#include "scheduler/removal_order.h"

#include <bit>

namespace longwave {
namespace {

// Of nanoseconds, as Kubernetes counts them.
int LogAge(const RemovalRank& rank, int64_t now_ms) {
  const int64_t age_ms = now_ms - rank.started_ms;
  return age_ms <= 0 ? 0 : std::bit_width(static_cast<uint64_t>(age_ms) * 1000000);
}

}  // namespace

bool RemovedBefore(const RemovalRank& a, const RemovalRank& b, int64_t now_ms) {
  const int of_a = LogAge(a, now_ms), of_b = LogAge(b, now_ms);
  return of_a != of_b ? of_a < of_b : a.uid < b.uid;
}

}  // namespace longwave

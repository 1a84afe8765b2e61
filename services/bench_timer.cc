#include "services/bench_timer.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace longwave {

Timing MeasureRuns(double seconds, absl::FunctionRef<void()> run) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> times;
  double total = 0;
  while (times.size() < 5 || (total < seconds && times.size() < 1000)) {
    const Clock::time_point begin = Clock::now();
    run();
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    total += times.back();
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back(), static_cast<int>(times.size())};
}

}  // namespace longwave

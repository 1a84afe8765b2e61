// Where a pass over a model spends its time: whoever does a part says so when it is done. On a GPU
// the times are those of the device.
//
// Thread safety: one caller at a time.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/async.h"
#include "kernels/stream.h"

namespace longwave {

class PartTimer {
 public:
  // What was queued since the last mark was `part`; the first mark of all counts for nothing.
  absl::Status Mark(const char* part, Stream& stream);
  // Seconds of each part so far. Waits for the work.
  absl::StatusOr<std::map<std::string, double>> Seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Point {
    const char* part;
    gpu::Event event;        // of a GPU
    Clock::time_point time;  // of the CPU
    bool on_gpu;
  };
  std::vector<Point> points_;
};

}  // namespace longwave

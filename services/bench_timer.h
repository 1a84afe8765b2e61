// Timing for `longwave bench`: a warm-up, then runs until enough time has passed; median and
// spread.
//
// Thread safety: free functions without state.
#pragma once

#include "absl/functional/function_ref.h"

namespace longwave {

struct Timing {
  double median;   // seconds
  double fastest;  // seconds
  double slowest;  // seconds
  int runs;
};

// Calls `run` at least 5 times and for at least `seconds`, after one call that is not counted.
Timing MeasureRuns(double seconds, absl::FunctionRef<void()> run);

}  // namespace longwave

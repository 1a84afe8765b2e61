#include "observability/request_probe.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

namespace longwave {

void RequestProbe::Took(double seconds, bool failed) {
  seconds_.Observe(seconds);
  if (failed) errors_.Increment();
}

}  // namespace longwave

// What the probes share of prometheus-cpp.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <string>

#include "observability/request_probe.h"

namespace longwave::metrics {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

inline Family<Counter>& Counters(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
inline Counter& OneCounter(Registry& registry, const char* name, const char* help) {
  return Counters(registry, name, help).Add({});
}
inline Family<Gauge>& Gauges(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
inline Gauge& OneGauge(Registry& registry, const char* name, const char* help) {
  return Gauges(registry, name, help).Add({});
}
inline Family<Histogram>& Histograms(Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

// Seconds: of a message on a fast network, to a minute.
inline Histogram::BucketBoundaries Fine() {
  return {1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1, 2.5, 10, 60};
}
// Seconds: of requests, writes and chunks.
inline Histogram::BucketBoundaries Coarse() {
  return {0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
}

inline void BuildInfo(Registry& registry) {
  Gauges(registry, "longwave_build_info", "Always 1; its labels say what runs")
      .Add({{"version", LONGWAVE_VERSION}})
      .Set(1);
}

// Of each process that reads or writes objects.
inline RequestProbe ObjectRequests(Registry& registry) {
  return {Histograms(registry, "longwave_object_request_seconds",
                     "Seconds of reads, writes, lists and removals in the object store")
              .Add({}, Coarse()),
          OneCounter(registry, "longwave_object_request_errors_total",
                     "Requests to the object store that failed")};
}

inline std::string Text(const Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

}  // namespace longwave::metrics

#include "observability/worker_probe.h"

#include "observability/registry.h"

namespace longwave {

using metrics::Counter;
using metrics::Gauge;
using metrics::Histogram;

namespace {
constexpr Link kLinks[] = {Link::kProcess, Link::kZmq, Link::kNccl};
}  // namespace

const char* Name(Link link) {
  switch (link) {
    case Link::kProcess:
      return "process";
    case Link::kZmq:
      return "zmq";
    case Link::kNccl:
      return "nccl";
  }
  return "unknown";
}

// One series for each link from the start: a rate of what never happened is 0 and not absent.
template <typename Metric>
struct PerLink {
  Metric* of[3] = {};
  Metric& operator[](Link link) const { return *of[static_cast<int>(link)]; }

  template <typename... Arguments>
  PerLink(metrics::Family<Metric>& family, const Arguments&... arguments) {
    for (Link link : kLinks) {
      of[static_cast<int>(link)] = &family.Add({{"link", Name(link)}}, arguments...);
    }
  }
};

struct WorkerProbe::Impl {
  metrics::Registry registry;
  Counter& tokens = metrics::OneCounter(registry, "longwave_tokens_computed_total",
                                        "Tokens of chunks that this worker computed");
  metrics::Family<Counter>& chunks = metrics::Counters(registry, "longwave_worker_chunks_total",
                                                       "Chunks of this worker, by how they ended");
  Counter &computed = chunks.Add({{"result", "computed"}}),
          &failed = chunks.Add({{"result", "failed"}}),
          &dropped = chunks.Add({{"result", "dropped"}});
  Histogram& chunk_seconds =
      metrics::Histograms(registry, "longwave_chunk_seconds",
                          "Seconds of a chunk from its assignment to its boundary in the store")
          .Add({}, metrics::Coarse());
  Gauge& speed = metrics::OneGauge(registry, "longwave_tokens_per_second",
                                   "Tokens per second of the last chunk computed");
  PerLink<Counter> sent{metrics::Counters(registry, "longwave_state_sent_bytes_total",
                                          "Bytes of states handed on, by link")};
  PerLink<Counter> received{metrics::Counters(registry, "longwave_state_received_bytes_total",
                                              "Bytes of states taken over, by link")};
  PerLink<Histogram> latency{
      metrics::Histograms(registry, "longwave_state_latency_seconds",
                          "Seconds from needing a state's tensor to having it, by link"),
      metrics::Fine()};
  PerLink<Counter> link_failures{metrics::Counters(registry, "longwave_link_failures_total",
                                                   "Links that were given up, by link")};
  Counter& from_store =
      metrics::OneCounter(registry, "longwave_states_from_store_total",
                          "Chunks whose states came from the boundary in the object store");
  Histogram& boundary_write =
      metrics::Histograms(registry, "longwave_boundary_write_seconds",
                          "Seconds of writing a boundary to the object store")
          .Add({}, metrics::Coarse());
  Counter& boundary_failures =
      metrics::OneCounter(registry, "longwave_boundary_write_failures_total",
                          "Chunks whose boundary, or output before it, could not be written");
  Histogram& boundary_read =
      metrics::Histograms(registry, "longwave_boundary_read_seconds",
                          "Seconds of reading a boundary from the object store")
          .Add({}, metrics::Coarse());
  Histogram& output_write = metrics::Histograms(registry, "longwave_output_write_seconds",
                                                "Seconds of writing a chunk's output")
                                .Add({}, metrics::Coarse());
  metrics::Family<Counter>& written =
      metrics::Counters(registry, "longwave_objects_written_bytes_total",
                        "Bytes written to the object store, by kind of object");
  Counter &boundary_bytes = written.Add({{"kind", "boundary"}}),
          &output_bytes = written.Add({{"kind", "output"}});
  Counter& boundary_read_bytes =
      metrics::OneCounter(registry, "longwave_boundary_read_bytes_total",
                          "Bytes of boundaries read from the object store");
  metrics::Family<Gauge>& device_healthy = metrics::Gauges(
      registry, "longwave_device_healthy", "1 while this worker's device works, else 0");
  Gauge& connected = metrics::OneGauge(registry, "longwave_worker_connected",
                                       "1 while a server that leads knows this worker, else 0");
  Gauge* healthy = nullptr;
  RequestProbe objects = metrics::ObjectRequests(registry);
};

WorkerProbe::WorkerProbe(absl::string_view device) : impl_(std::make_unique<Impl>()) {
  metrics::BuildInfo(impl_->registry);
  impl_->healthy = &impl_->device_healthy.Add({{"device", std::string(device)}});
  impl_->healthy->Set(1);
}
WorkerProbe::~WorkerProbe() = default;

void WorkerProbe::ChunkComputed(int64_t tokens, double seconds) {
  impl_->tokens.Increment(static_cast<double>(tokens));
  impl_->computed.Increment();
  impl_->chunk_seconds.Observe(seconds);
  if (seconds > 0) impl_->speed.Set(static_cast<double>(tokens) / seconds);
}
void WorkerProbe::ChunkFailed() { impl_->failed.Increment(); }
void WorkerProbe::ChunkDropped() { impl_->dropped.Increment(); }

void WorkerProbe::StateSent(Link link, int64_t bytes) {
  impl_->sent[link].Increment(static_cast<double>(bytes));
}
void WorkerProbe::StateReceived(Link link, int64_t bytes) {
  impl_->received[link].Increment(static_cast<double>(bytes));
}
void WorkerProbe::StateLatency(Link link, double seconds) { impl_->latency[link].Observe(seconds); }
void WorkerProbe::LinkFailed(Link link) { impl_->link_failures[link].Increment(); }
void WorkerProbe::StateFromStore() { impl_->from_store.Increment(); }

void WorkerProbe::BoundaryWritten(double seconds, int64_t bytes) {
  impl_->boundary_write.Observe(seconds);
  impl_->boundary_bytes.Increment(static_cast<double>(bytes));
}
void WorkerProbe::BoundaryFailed() { impl_->boundary_failures.Increment(); }
RequestProbe& WorkerProbe::objects() const { return impl_->objects; }
void WorkerProbe::BoundaryRead(double seconds, int64_t bytes) {
  impl_->boundary_read.Observe(seconds);
  impl_->boundary_read_bytes.Increment(static_cast<double>(bytes));
}
void WorkerProbe::OutputWritten(double seconds, int64_t bytes) {
  impl_->output_write.Observe(seconds);
  impl_->output_bytes.Increment(static_cast<double>(bytes));
}

void WorkerProbe::DeviceHealth(bool healthy) { impl_->healthy->Set(healthy ? 1 : 0); }
void WorkerProbe::Connected(bool connected) { impl_->connected.Set(connected ? 1 : 0); }
bool WorkerProbe::healthy() const { return impl_->healthy->Value() > 0; }
bool WorkerProbe::connected() const { return impl_->connected.Value() > 0; }

std::string WorkerProbe::Text() const { return metrics::Text(impl_->registry); }

}  // namespace longwave

#include "services/cluster/observed_flow.h"

#include <chrono>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace longwave {

int64_t LayerOf(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  int64_t layer = -1;
  if (parts.size() < 2 || !absl::SimpleAtoi(parts[1], &layer)) return -1;
  return layer;
}

ObservedFlow::ObservedFlow(LinkFlow& flow, absl::Span<const StateTensorSpec> specs,
                           WorkerProbe& probe, TraceRecorder* trace)
    : flow_(flow), probe_(probe), trace_(trace), since_(TraceRecorder::Clock::now()) {
  for (const StateTensorSpec& spec : specs) layers_.push_back(LayerOf(spec.name));
}

void ObservedFlow::Add(const char* name, int64_t layer, Time start, Time end) {
  if (trace_ == nullptr) return;
  trace_->Add(name, static_cast<int32_t>(layer), TraceLane::kCompute, start, end);
}

absl::Status ObservedFlow::Receive(int64_t index, float* to, Stream& stream) {
  const Time start = TraceRecorder::Clock::now();
  Add("compute", layers_[index], since_, start);
  const absl::Status received = flow_.Receive(index, to, stream);
  since_ = TraceRecorder::Clock::now();
  Add("wait", layers_[index], start, since_);
  if (!received.ok()) return received;
  probe_.StateLatency(flow_.received_by(), std::chrono::duration<double>(since_ - start).count());
  return received;
}

void ObservedFlow::End() { Add("compute", -1, since_, TraceRecorder::Clock::now()); }

}  // namespace longwave

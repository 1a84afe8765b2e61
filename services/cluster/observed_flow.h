// A StateFlow that tells a probe and a trace how long a chunk waited for its states.
//
// Thread safety: as StateFlow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "observability/trace.h"
#include "observability/worker_probe.h"
#include "worker/links/link_flow.h"
#include "worker/model/model.h"
#include "worker/model/state_flow.h"

namespace longwave {

// Of a tensor's name: "layers.3.ssm" is of layer 3. -1: of none.
int64_t LayerOf(const std::string& name);

class ObservedFlow final : public StateFlow {
 public:
  // `trace`: null where nobody asked for one. All outlive the flow.
  ObservedFlow(LinkFlow& flow, absl::Span<const StateTensorSpec> specs, WorkerProbe& probe,
               TraceRecorder* trace);
  absl::Status Receive(int64_t index, float* to, Stream& stream) override;
  absl::Status Send(int64_t index, const float* from, Stream& stream) override {
    return flow_.Send(index, from, stream);
  }
  // The pass is over: what came after the last tensor.
  void End();

 private:
  using Time = TraceRecorder::Clock::time_point;
  void Add(const char* name, int64_t layer, Time start, Time end);

  LinkFlow& flow_;
  WorkerProbe& probe_;
  TraceRecorder* const trace_;
  std::vector<int64_t> layers_;  // of each tensor
  Time since_;                   // computes since then
};

}  // namespace longwave

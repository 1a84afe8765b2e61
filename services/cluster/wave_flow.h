// The naive wavefront, to measure against: what a layer hands on goes out when the whole layer is
// computed, and whoever computes the next chunk waits for that before it begins the same layer's
// mixer. The values are the same.
//
// Thread safety: as StateFlow.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/model/model.h"
#include "worker/model/state_flow.h"

namespace longwave {

class WaveFlow final : public StateFlow {
 public:
  // Both outlive it.
  WaveFlow(StateFlow& flow, absl::Span<const StateTensorSpec> specs);
  absl::Status Receive(int64_t index, float* to, Stream& stream) override;
  absl::Status Send(int64_t index, const float* from, Stream& stream) override;
  // The pass is over: the last layer's tensors go out. What was given to Send() is unchanged.
  absl::Status End();

 private:
  struct Kept {
    int64_t index;
    const float* from;
    Stream* stream;
  };
  absl::Status SendBefore(int64_t layer);

  StateFlow& flow_;
  std::vector<int64_t> layers_;  // of each tensor
  std::vector<Kept> kept_;
};

}  // namespace longwave

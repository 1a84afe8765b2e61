#include "services/cluster/wave_flow.h"

#include <limits>

#include "kernels/checks.h"
#include "services/cluster/observed_flow.h"

namespace longwave {

WaveFlow::WaveFlow(StateFlow& flow, absl::Span<const StateTensorSpec> specs) : flow_(flow) {
  for (const StateTensorSpec& spec : specs) layers_.push_back(LayerOf(spec.name));
}

absl::Status WaveFlow::SendBefore(int64_t layer) {
  size_t sent = 0;
  for (; sent < kept_.size() && layers_[kept_[sent].index] < layer; ++sent) {
    const Kept& kept = kept_[sent];
    LONGWAVE_RETURN_IF_ERROR(flow_.Send(kept.index, kept.from, *kept.stream));
  }
  kept_.erase(kept_.begin(), kept_.begin() + sent);
  return absl::OkStatus();
}

absl::Status WaveFlow::Receive(int64_t index, float* to, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(SendBefore(layers_[index]));
  return flow_.Receive(index, to, stream);
}

absl::Status WaveFlow::Send(int64_t index, const float* from, Stream& stream) {
  kept_.push_back({index, from, &stream});
  return absl::OkStatus();
}

absl::Status WaveFlow::End() { return SendBefore(std::numeric_limits<int64_t>::max()); }

}  // namespace longwave

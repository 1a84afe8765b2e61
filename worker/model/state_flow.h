// How a chunk's states come in and go out while it is computed, tensor by tensor, by their index in
// Model::state_specs(): float32 (batch, shape), in memory of the stream's device. With it several
// workers compute consecutive chunks of one sequence at the same time. Without one (null) states
// stay in the ModelState.
//
// In a pass every tensor is received once and sent once, each in order of index within its own
// direction; a tensor may be sent before it is received (a long chunk's halo needs none before it).
//
// Thread safety: one caller, the thread that runs the model.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/stream.h"

namespace longwave {

class StateFlow {
 public:
  virtual ~StateFlow() = default;

  // Queues on the stream that `to` gets what the chunk before hands on as tensor `index`; waits on
  // the host until that is known. Any error (Cancelled: the chunk is not wanted any more) ends the
  // pass; the model's state is then undefined.
  virtual absl::Status Receive(int64_t index, float* to, Stream& stream) = 0;
  // Hands on `from` as tensor `index`, as it is when the stream comes here. What is queued after
  // may overwrite it.
  virtual absl::Status Send(int64_t index, const float* from, Stream& stream) = 0;
};

}  // namespace longwave

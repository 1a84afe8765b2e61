// One layer of a model. It declares what it hands from chunk to chunk, and moves the residual
// stream over one chunk.
//
// Thread safety: immutable after Load.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/array.h"
#include "kernels/attention.h"
#include "kernels/stream.h"
#include "worker/model/config.h"
#include "worker/model/model.h"
#include "worker/model/part_timer.h"
#include "worker/model/state_flow.h"
#include "worker/model/weights.h"

namespace longwave {

// What a layer works with in one call, all of it in the memory of the stream's device.
struct LayerContext {
  int64_t batch;            // sequences
  int64_t length;           // tokens of each
  const Array* states;      // the layer's own tensors, in the order it declared them
  int64_t first_state;      // index of states[0] in Model::state_specs()
  StateFlow* flow;          // null: what came in is in `states` already
  KvCache* cache;           // attention layers only
  const int64_t* position;  // not null: see RunAttention()
  Workspace& workspace;
  Stream& stream;
  PartTimer* timer;  // null: nobody wants to know

  int64_t rows() const { return batch * length; }

  // ---- How tensor i passes through a layer: it is received into incoming(i), what goes out is
  // made in states[i] and sent from there. Without a flow both are the same memory for a chunk of
  // one token, which is computed in place; for longer ones the model has moved states[i] to
  // incoming(i) before the layer starts, and Receive and Send have nothing to do.
  bool in_place() const { return length == 1 && flow == nullptr; }
  float* incoming(int i) const {
    return in_place() ? states[i].floats() : workspace.incoming[i].floats();
  }
  absl::Status Receive(int i) const {
    return flow == nullptr ? absl::OkStatus() : flow->Receive(first_state + i, incoming(i), stream);
  }
  absl::Status Send(int i) const {
    return flow == nullptr ? absl::OkStatus()
                           : flow->Send(first_state + i, states[i].floats(), stream);
  }

  absl::Status Done(const char* part) const {
    return timer == nullptr ? absl::OkStatus() : timer->Mark(part, stream);
  }
};

class Layer {
 public:
  virtual ~Layer() = default;
  // Names without the layer's prefix: "halo", "ssm".
  virtual std::vector<StateTensorSpec> state_specs() const { return {}; }
  // x (rows, d_model) float32, in and out.
  virtual absl::Status Forward(float* x, LayerContext& context) const = 0;
  // Scratch for `batch` chunks of `length` tokens: of each thread of the CPU, or of a GPU's queue.
  virtual int64_t ScratchBytes(int64_t batch, int64_t length, Device device) const = 0;
};

absl::StatusOr<std::unique_ptr<const Layer>> LoadH3Layer(const ModelConfig& config, int64_t index,
                                                         WeightLoader& weights);
absl::StatusOr<std::unique_ptr<const Layer>> LoadAttentionLayer(const ModelConfig& config,
                                                                int64_t index,
                                                                WeightLoader& weights);
absl::StatusOr<std::unique_ptr<const Layer>> LoadS4dLayer(const ModelConfig& config, int64_t index,
                                                          WeightLoader& weights);

// Elements between the channels of a channel-major array of `rows` tokens. CPU: whole cache lines,
// and an odd number of them, so that channels do not fall on the same sets of a cache. GPU: whole
// lines of 128 bytes.
inline int64_t ChannelStride(int64_t rows, Device device) {
  return device.is_gpu() ? (rows + 63) / 64 * 64 : ((rows + 15) / 16 | 1) * 16;
}

}  // namespace longwave

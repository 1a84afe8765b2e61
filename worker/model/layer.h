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
#include "kernels/attention.h"
#include "kernels/stream.h"
#include "worker/model/config.h"
#include "worker/model/model.h"
#include "worker/model/weights.h"

namespace longwave {

// What a layer works with in one call.
struct LayerContext {
  int64_t rows;                // tokens of the chunk
  std::vector<float>* states;  // the layer's own tensors, in the order it declared them
  KvCache* cache;              // attention layers only
  Workspace& workspace;
  Stream& stream;
};

class Layer {
 public:
  virtual ~Layer() = default;
  // Names without the layer's prefix: "halo", "ssm".
  virtual std::vector<StateTensorSpec> state_specs() const { return {}; }
  // x (rows, d_model), in and out.
  virtual absl::Status Forward(float* x, LayerContext& context) const = 0;
  // Floats of each thread's scratch for a chunk of `rows`.
  virtual int64_t ScratchFloats(int64_t rows) const = 0;
};

absl::StatusOr<std::unique_ptr<const Layer>> LoadH3Layer(const ModelConfig& config, int64_t index,
                                                         WeightLoader& weights);
absl::StatusOr<std::unique_ptr<const Layer>> LoadAttentionLayer(const ModelConfig& config,
                                                                int64_t index,
                                                                WeightLoader& weights);
absl::StatusOr<std::unique_ptr<const Layer>> LoadS4dLayer(const ModelConfig& config, int64_t index,
                                                          WeightLoader& weights);

// Floats between the channels of a channel-major array of `rows` tokens: whole cache lines, and an
// odd number of them, so that channels do not fall on the same sets of a cache.
inline int64_t ChannelStride(int64_t rows) { return ((rows + 15) / 16 | 1) * 16; }

}  // namespace longwave

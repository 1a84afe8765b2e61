// A model: its configuration, its weights in memory once, and its pass over one chunk.
// A layer declares by name and shape what it hands on to the next chunk; runners, links and
// checkpoints move those tensors and never know a model.
//
// Thread safety: a Model is immutable after Load and may be used from several threads; ModelState
// and Workspace belong to one caller.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/attention.h"
#include "kernels/stream.h"
#include "worker/model/config.h"

namespace longwave {

struct StateTensorSpec {
  std::string name;  // "layers.3.ssm", "layers.3.halo"
  std::vector<int64_t> shape;

  int64_t elements() const;
};

// What one sequence hands from chunk to chunk. Tensors stand in the order of Model::state_specs().
struct ModelState {
  int64_t position = 0;                     // tokens seen
  std::vector<std::vector<float>> tensors;  // float32
  std::vector<KvCache> caches;              // one for each attention layer
};

// Memory for one chunk, allocated once.
struct Workspace {
  std::vector<float> x;     // H3: (chunk, d_model), the residual stream
  std::vector<float> wide;  // H3: q, k, v, channel-major; attention: qkv; S4D: before the GLU
  std::vector<float> a;     // H3 with head_dim > 1 and attention: y; S4D: u, channel-major
  std::vector<float> b;     // S4D with a norm before the layer: the normed signal
};

class Layer;

class Model {
 public:
  // A folder with config.json and model.safetensors. NotFound, InvalidArgument: one line, naming
  // file, tensor, and both shapes where they differ; a non-finite weight is an error.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& folder);
  ~Model();

  const ModelConfig& config() const { return config_; }
  const std::string& folder() const { return folder_; }
  int64_t parameters() const { return parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // as prepared in memory
  const std::vector<StateTensorSpec>& state_specs() const { return state_specs_; }
  int64_t state_bytes() const;                // of one sequence, attention's caches not counted
  int64_t cache_bytes(int64_t tokens) const;  // of all attention layers
  int64_t attention_layers() const { return static_cast<int64_t>(config_.attn_layer_idx.size()); }
  int64_t workspace_bytes(int64_t chunk, int threads) const;  // what a chunk needs beside the state

  ModelState NewState() const;
  Workspace NewWorkspace(int64_t chunk) const;

  // H3: tokens -> hidden (tokens, d_model), after ln_f. REQUIRES: ids within the vocabulary.
  absl::Status Forward(absl::Span<const int32_t> tokens, ModelState& state, Workspace& workspace,
                       Stream& stream, float* hidden) const;
  // S4D: x (rows, d_model) -> y (rows, d_model).
  absl::Status Transform(const float* x, int64_t rows, ModelState& state, Workspace& workspace,
                         Stream& stream, float* y) const;
  const float* embedding() const { return embedding_; }  // (vocab, d_model)

 private:
  Model() = default;
  // x (rows, d_model), in and out, through all layers.
  absl::Status RunLayers(float* x, int64_t rows, ModelState& state, Workspace& workspace,
                         Stream& stream) const;

  ModelConfig config_;
  std::string folder_;
  std::vector<std::shared_ptr<const void>> owned_;  // mapped files and converted tensors
  std::vector<std::unique_ptr<const Layer>> layers_;
  std::vector<StateTensorSpec> state_specs_;
  std::vector<int64_t> first_state_;  // of each layer, into state_specs_
  const float* embedding_ = nullptr;
  const float* final_scale_ = nullptr;
  const float* final_shift_ = nullptr;
  int64_t parameters_ = 0;
  int64_t weight_bytes_ = 0;
};

}  // namespace longwave

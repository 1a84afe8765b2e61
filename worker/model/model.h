// A model: its configuration, its weights in its device's memory once, and its pass over one chunk
// of one sequence or of a batch of them.
// A layer declares by name and shape what it hands on to the next chunk; runners, links and
// checkpoints move those tensors and never know a model.
//
// On a GPU calls are queued on the stream: see kernels/stream.h.
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
#include "kernels/array.h"
#include "kernels/attention.h"
#include "kernels/dtype.h"
#include "kernels/layer_norm.h"
#include "kernels/stream.h"
#include "worker/model/config.h"
#include "worker/model/part_timer.h"
#include "worker/model/state_flow.h"

namespace longwave {

struct StateTensorSpec {
  std::string name;  // "layers.3.ssm", "layers.3.halo"
  std::vector<int64_t> shape;

  int64_t elements() const;
};

// What a batch of sequences hands from chunk to chunk. Tensors stand in the order of
// Model::state_specs().
struct ModelState {
  int64_t batch = 1;
  int64_t position = 0;         // tokens seen, of each sequence
  std::vector<Array> tensors;   // float32 (batch, shape), on the model's device
  std::vector<KvCache> caches;  // one for each attention layer
};

// A ModelState's tensors on the host: (batch, shape) float32 each.
using HostState = std::vector<std::vector<float>>;

// Memory for one chunk of `rows` = batch x length tokens, allocated once, on the model's device.
// Activations are of the model's dtype.
struct Workspace {
  Array x;     // (rows, d_model) float32: the residual stream; S4D: on a GPU only
  Array wide;  // H3: q, k, v, channel-major; attention: qkv; S4D: before the GLU
  Array a;     // H3 with head_dim > 1 and attention: y; S4D: u, channel-major
  Array b;     // (rows, d_model) float32: S4D with a norm before the layer: the normed signal
  // A layer's state tensors as they come from the chunk before, while its own are made: the i-th
  // has room for the i-th of any layer.
  std::vector<Array> incoming;

  int64_t bytes() const;
};

// Where a model's weights are, and what its activations are. The CPU has float32 alone.
struct ModelOptions {
  Device device;
  Dtype dtype = Dtype::kFloat32;
};

// A chunk's tokens, in the memory of the stream's device.
struct ModelInput {
  const int32_t* tokens = nullptr;  // (batch, length), ids within the vocabulary
  int64_t length = 0;
  // On a GPU: the chunk's position is read from here when the work runs, and the state's is neither
  // read nor changed: what a graph records. The caches have room.
  const int64_t* position = nullptr;
};

class Layer;
class Safetensors;
class WeightLoader;

class Model {
 public:
  // A folder with config.json and model.safetensors. NotFound, InvalidArgument: one line, naming
  // file, tensor, and both shapes where they differ; a non-finite weight is an error, and so is one
  // beyond the range of `dtype`. Each weight is converted and uploaded once.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& folder,
                                                           const ModelOptions& options = {});
  // The same of random weights: shapes to measure and to test.
  static absl::StatusOr<std::shared_ptr<const Model>> Random(const ModelConfig& config,
                                                             const ModelOptions& options = {},
                                                             uint64_t seed = 1);
  ~Model();

  const ModelConfig& config() const { return config_; }
  const std::string& folder() const { return folder_; }
  Device device() const { return device_; }
  Dtype dtype() const { return dtype_; }
  int64_t parameters() const { return parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // as prepared in memory
  const std::vector<StateTensorSpec>& state_specs() const { return state_specs_; }
  int64_t state_bytes() const;  // of one sequence, attention's caches not counted
  // Of all attention layers, for `batch` sequences of `tokens`.
  int64_t cache_bytes(int64_t tokens, int64_t batch = 1) const;
  int64_t attention_layers() const { return static_cast<int64_t>(config_.attn_layer_idx.size()); }
  // What a runner needs for `batch` chunks, beside the state: `threads` of the CPU, 0 on a GPU.
  int64_t workspace_bytes(int64_t chunk, int threads, int64_t batch = 1) const;
  // Of that, the logits that a GPU's runner makes at a time: a row for each sequence at least.
  int64_t RunnerLogits(int64_t rows, int64_t batch) const;

  // Zeros. `tokens`: room in the caches of a GPU from the start; more is made when it is needed.
  absl::StatusOr<ModelState> NewState(Stream& stream, int64_t batch = 1, int64_t tokens = 0) const;
  absl::StatusOr<Workspace> NewWorkspace(int64_t chunk, int64_t batch = 1) const;
  // The state's tensors to the host and back. Waits. Attention's caches stay where they are.
  absl::StatusOr<HostState> ExportState(const ModelState& state, Stream& stream) const;
  absl::Status ImportState(const HostState& host, ModelState& state, Stream& stream) const;

  // H3: tokens -> hidden (batch x length, d_model) of dtype(), after ln_f.
  // `flow` null: the chunk starts from `state`; else from what the flow hands over. Either way
  // `state` is what the chunk hands on, afterwards, and every value is bitwise the same.
  absl::Status Forward(const ModelInput& input, ModelState& state, Workspace& workspace,
                       Stream& stream, void* hidden, PartTimer* timer = nullptr,
                       StateFlow* flow = nullptr) const;
  // S4D: x (batch x length, d_model) float32, in and out.
  absl::Status Transform(float* x, int64_t length, ModelState& state, Workspace& workspace,
                         Stream& stream, PartTimer* timer = nullptr,
                         StateFlow* flow = nullptr) const;
  const void* embedding() const { return embedding_; }  // (vocab, d_model) of dtype()

 private:
  Model() = default;
  static absl::StatusOr<std::shared_ptr<const Model>> Make(const ModelConfig& config,
                                                           const std::string& folder,
                                                           std::shared_ptr<const Safetensors> file,
                                                           const ModelOptions& options,
                                                           uint64_t seed);
  absl::Status LoadLayers(WeightLoader& weights);
  // x (rows, d_model), in and out, through all layers.
  absl::Status RunLayers(float* x, const ModelInput& input, ModelState& state, Workspace& workspace,
                         Stream& stream, PartTimer* timer, StateFlow* flow) const;

  ModelConfig config_;
  std::string folder_;
  Device device_;
  Dtype dtype_ = Dtype::kFloat32;
  std::vector<std::shared_ptr<const void>> owned_;  // mapped files, converted and uploaded tensors
  std::vector<std::unique_ptr<const Layer>> layers_;
  std::vector<StateTensorSpec> state_specs_;
  std::vector<int64_t> first_state_;  // of each layer, into state_specs_
  std::vector<int64_t> incoming_;     // bytes of Workspace::incoming, for one sequence
  const void* embedding_ = nullptr;
  LayerNormWeights final_norm_;
  int64_t parameters_ = 0;
  int64_t weight_bytes_ = 0;
};

}  // namespace longwave

#include "worker/model/model.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/layer_norm.h"
#include "kernels/token_loss.h"
#include "worker/model/layer.h"

namespace longwave {
namespace {

// Floats of the arrays of a Workspace for chunks of `rows`: see there.
struct WorkspaceSizes {
  int64_t x, a, b, wide;

  WorkspaceSizes(const ModelConfig& config, int64_t rows) {
    const int64_t channels = ChannelStride(rows) * config.d_model;
    const bool h3 = config.type == ModelConfig::Type::kH3;
    const int64_t signal = rows * config.d_model;
    x = h3 ? signal : 0;
    a = h3 && config.head_dim == 1 && config.attn_layer_idx.empty() ? 0 : channels;
    b = config.norm == ModelConfig::Norm::kPre ? signal : 0;
    wide = h3 ? 3 * channels : 2 * signal;
  }
  int64_t total() const { return x + a + b + wide; }
};

}  // namespace

int64_t StateTensorSpec::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

Model::~Model() = default;

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat(folder, ": not a model folder"));
  }
  std::shared_ptr<Model> model(new Model);
  model->folder_ = folder;
  LONGWAVE_ASSIGN_OR_RETURN(model->config_, LoadModelConfig(folder + "/config.json"));
  std::shared_ptr<const Safetensors> file;
  LONGWAVE_ASSIGN_OR_RETURN(file, Safetensors::Open(folder + "/model.safetensors"));
  WeightLoader weights(std::move(file));
  const ModelConfig& config = model->config_;
  const bool h3 = config.type == ModelConfig::Type::kH3;
  const int64_t d = config.d_model;
  if (h3) {
    LONGWAVE_ASSIGN_OR_RETURN(
        model->embedding_,
        weights.Load("backbone.embeddings.word_embeddings.weight", {config.vocab_size, d}));
    LayerNormWeights norm;
    LONGWAVE_ASSIGN_OR_RETURN(norm,
                              weights.LoadNorm("backbone.ln_f.", d, config.layer_norm_epsilon));
    model->final_scale_ = norm.scale;
    model->final_shift_ = norm.shift;
  }
  for (int64_t i = 0; i < config.n_layer; ++i) {
    std::unique_ptr<const Layer> layer;
    LONGWAVE_ASSIGN_OR_RETURN(layer, !h3 ? LoadS4dLayer(config, i, weights)
                                     : config.IsAttention(i)
                                         ? LoadAttentionLayer(config, i, weights)
                                         : LoadH3Layer(config, i, weights));
    model->first_state_.push_back(static_cast<int64_t>(model->state_specs_.size()));
    for (StateTensorSpec spec : layer->state_specs()) {
      spec.name = absl::StrCat("layers.", i, ".", spec.name);
      model->state_specs_.push_back(std::move(spec));
    }
    model->layers_.push_back(std::move(layer));
  }
  model->parameters_ = weights.parameters();
  model->weight_bytes_ = weights.bytes();
  model->owned_ = weights.TakeOwned();
  return model;
}

int64_t Model::state_bytes() const {
  int64_t floats = 0;
  for (const StateTensorSpec& spec : state_specs_) floats += spec.elements();
  return floats * static_cast<int64_t>(sizeof(float));
}

int64_t Model::cache_bytes(int64_t tokens) const {
  if (attention_layers() == 0) return 0;
  return attention_layers() *
         KvCache::Bytes(config_.attn_num_heads, config_.d_model / config_.attn_num_heads, tokens);
}

int64_t Model::workspace_bytes(int64_t chunk, int threads) const {
  int64_t scratch = 0;
  for (const auto& layer : layers_) scratch = std::max(scratch, layer->ScratchFloats(chunk));
  int64_t hidden = 0;
  if (config_.type == ModelConfig::Type::kH3) {
    hidden = chunk * config_.d_model;
    const TokenLossDesc loss{chunk, config_.d_model, config_.vocab_size};
    scratch = std::max(scratch, loss.scratch_floats());
  }
  return static_cast<int64_t>(sizeof(float)) *
         (WorkspaceSizes(config_, chunk).total() + hidden + scratch * threads);
}

ModelState Model::NewState() const {
  ModelState state;
  for (const StateTensorSpec& spec : state_specs_) state.tensors.emplace_back(spec.elements());
  for (int64_t i = 0; i < attention_layers(); ++i) {
    state.caches.emplace_back(config_.attn_num_heads, config_.d_model / config_.attn_num_heads);
  }
  return state;
}

Workspace Model::NewWorkspace(int64_t chunk) const {
  const WorkspaceSizes sizes(config_, chunk);
  Workspace workspace;
  workspace.x.resize(sizes.x);
  workspace.a.resize(sizes.a);
  workspace.b.resize(sizes.b);
  workspace.wide.resize(sizes.wide);
  return workspace;
}

absl::Status Model::RunLayers(float* x, int64_t rows, ModelState& state, Workspace& workspace,
                              Stream& stream) const {
  size_t cache = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerContext context{rows, state.tensors.data() + first_state_[i], nullptr, workspace, stream};
    if (config_.IsAttention(static_cast<int64_t>(i))) context.cache = &state.caches[cache++];
    LONGWAVE_RETURN_IF_ERROR(layers_[i]->Forward(x, context));
  }
  state.position += rows;
  return absl::OkStatus();
}

absl::Status Model::Forward(absl::Span<const int32_t> tokens, ModelState& state,
                            Workspace& workspace, Stream& stream, float* hidden) const {
  const int64_t d = config_.d_model, rows = static_cast<int64_t>(tokens.size());
  float* x = workspace.x.data();
  for (int64_t t = 0; t < rows; ++t) {
    std::memcpy(x + t * d, embedding_ + tokens[t] * d, sizeof(float) * static_cast<size_t>(d));
  }
  LONGWAVE_RETURN_IF_ERROR(RunLayers(x, rows, state, workspace, stream));
  const LayerNormWeights norm{final_scale_, final_shift_,
                              static_cast<float>(config_.layer_norm_epsilon)};
  return RunLayerNorm(norm, rows, d, x, hidden, stream);
}

absl::Status Model::Transform(const float* x, int64_t rows, ModelState& state, Workspace& workspace,
                              Stream& stream, float* y) const {
  std::copy_n(x, rows * config_.d_model, y);
  return RunLayers(y, rows, state, workspace, stream);
}

}  // namespace longwave

#include "worker/model/model.h"

#include <sys/stat.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "kernels/token_loss.h"
#include "worker/model/layer.h"

namespace longwave {
namespace {

// Bytes of the arrays of a Workspace for chunks of `rows`: see there.
struct WorkspaceSizes {
  int64_t x, wide, a, b;

  WorkspaceSizes(const ModelConfig& config, int64_t rows, Device device, Dtype dtype) {
    const int64_t element = SizeOf(dtype), signal = rows * config.d_model;
    const int64_t channels = ChannelStride(rows, device) * config.d_model;
    const bool h3 = config.type == ModelConfig::Type::kH3;
    x = h3 || device.is_gpu() ? 4 * signal : 0;
    wide = element * (h3 ? 3 * channels : 2 * signal);
    a = h3 && config.head_dim == 1 && config.attn_layer_idx.empty() ? 0 : element * channels;
    b = config.norm == ModelConfig::Norm::kPre ? 4 * signal : 0;
  }
  int64_t total() const { return x + wide + a + b; }
};

}  // namespace

int64_t StateTensorSpec::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t Workspace::bytes() const {
  int64_t sum = x.bytes() + wide.bytes() + a.bytes() + b.bytes();
  for (const Array& array : incoming) sum += array.bytes();
  return sum;
}

Model::~Model() = default;

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& folder,
                                                         const ModelOptions& options) {
  struct stat info;
  if (stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat(folder, ": not a model folder"));
  }
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(folder + "/config.json");
  if (!config.ok()) return config.status();
  absl::StatusOr<std::shared_ptr<const Safetensors>> file =
      Safetensors::Open(folder + "/model.safetensors");
  if (!file.ok()) return file.status();
  return Make(*config, folder, *std::move(file), options, 0);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Random(const ModelConfig& config,
                                                           const ModelOptions& options,
                                                           uint64_t seed) {
  return Make(config, "random weights", nullptr, options, seed);
}

absl::StatusOr<std::shared_ptr<const Model>> Model::Make(const ModelConfig& config,
                                                         const std::string& folder,
                                                         std::shared_ptr<const Safetensors> file,
                                                         const ModelOptions& options,
                                                         uint64_t seed) {
  std::shared_ptr<Model> model(new Model);
  model->config_ = config;
  model->folder_ = folder;
  model->dtype_ = options.dtype;
  if (!options.device.is_gpu()) {
    LONGWAVE_RETURN_IF_ERROR(CheckFloat32("model", "dtype", options.dtype));
    WeightLoader weights(std::move(file), nullptr, options.dtype, seed);
    LONGWAVE_RETURN_IF_ERROR(model->LoadLayers(weights));
    return model;
  }
  absl::StatusOr<std::unique_ptr<gpu::Queue>> queue = gpu::Queue::Open(options.device.index);
  if (!queue.ok()) return queue.status();
  ThreadPool pool(1);
  Stream stream(&pool, *std::move(queue));
  model->device_ = stream.device();
  WeightLoader weights(std::move(file), &stream, options.dtype, seed);
  LONGWAVE_RETURN_IF_ERROR(model->LoadLayers(weights));
  LONGWAVE_RETURN_IF_ERROR(stream.queue().Synchronize());
  return model;
}

absl::Status Model::LoadLayers(WeightLoader& weights) {
  const bool h3 = config_.type == ModelConfig::Type::kH3;
  const int64_t d = config_.d_model;
  if (h3) {
    LONGWAVE_ASSIGN_OR_RETURN(
        embedding_,
        weights.LoadWeight("backbone.embeddings.word_embeddings.weight", {config_.vocab_size, d}));
    LONGWAVE_ASSIGN_OR_RETURN(final_norm_,
                              weights.LoadNorm("backbone.ln_f.", d, config_.layer_norm_epsilon));
  }
  for (int64_t i = 0; i < config_.n_layer; ++i) {
    std::unique_ptr<const Layer> layer;
    LONGWAVE_ASSIGN_OR_RETURN(layer, !h3 ? LoadS4dLayer(config_, i, weights)
                                     : config_.IsAttention(i)
                                         ? LoadAttentionLayer(config_, i, weights)
                                         : LoadH3Layer(config_, i, weights));
    first_state_.push_back(static_cast<int64_t>(state_specs_.size()));
    std::vector<StateTensorSpec> specs = layer->state_specs();
    incoming_.resize(std::max(incoming_.size(), specs.size()));
    for (size_t t = 0; t < specs.size(); ++t) {
      StateTensorSpec& spec = specs[t];
      incoming_[t] = std::max(incoming_[t], spec.elements() * int64_t{sizeof(float)});
      spec.name = absl::StrCat("layers.", i, ".", spec.name);
      state_specs_.push_back(std::move(spec));
    }
    layers_.push_back(std::move(layer));
  }
  parameters_ = weights.parameters();
  weight_bytes_ = weights.bytes();
  owned_ = weights.TakeOwned();
  return absl::OkStatus();
}

int64_t Model::state_bytes() const {
  int64_t floats = 0;
  for (const StateTensorSpec& spec : state_specs_) floats += spec.elements();
  return floats * static_cast<int64_t>(sizeof(float));
}

int64_t Model::cache_bytes(int64_t tokens, int64_t batch) const {
  if (attention_layers() == 0) return 0;
  const int64_t heads = config_.attn_num_heads, head_dim = config_.d_model / heads;
  return attention_layers() * (device_.is_gpu()
                                   ? KvCache::GpuBytes(batch, heads, head_dim, dtype_, tokens)
                                   : batch * KvCache::Bytes(heads, head_dim, tokens));
}

int64_t Model::workspace_bytes(int64_t chunk, int threads, int64_t batch) const {
  const int64_t rows = batch * chunk;
  int64_t scratch = 0;
  for (const auto& layer : layers_) {
    scratch = std::max(scratch, layer->ScratchBytes(batch, chunk, device_));
  }
  int64_t bytes = WorkspaceSizes(config_, rows, device_, dtype_).total();
  for (int64_t tensor : incoming_) bytes += batch * tensor;
  if (config_.type == ModelConfig::Type::kH3) {
    TokenLossDesc loss{rows, config_.d_model, config_.vocab_size};
    loss.dtype = dtype_;
    scratch = std::max(scratch, device_.is_gpu() ? loss.gpu_scratch_bytes()
                                                 : loss.scratch_floats() * int64_t{sizeof(float)});
    bytes += rows * config_.d_model * SizeOf(dtype_);  // hidden
    // Tokens, targets, losses and logits of a GPU's runner.
    if (device_.is_gpu()) bytes += 12 * rows + 4 * RunnerLogits(rows, batch);
  }
  return bytes + (device_.is_gpu() ? scratch + kGemmWorkspaceBytes : scratch * threads);
}

int64_t Model::RunnerLogits(int64_t rows, int64_t batch) const {
  constexpr int64_t kTile = int64_t{1} << 20;
  const int64_t vocab = config_.vocab_size;
  return vocab * std::max(batch, std::min(rows, kTile / vocab));
}

absl::StatusOr<ModelState> Model::NewState(Stream& stream, int64_t batch, int64_t tokens) const {
  ModelState state;
  state.batch = batch;
  for (const StateTensorSpec& spec : state_specs_) {
    absl::StatusOr<Array> tensor =
        Array::Allocate(device_, batch * spec.elements() * int64_t{sizeof(float)});
    if (!tensor.ok()) return tensor.status();
    LONGWAVE_RETURN_IF_ERROR(FillZeros(*tensor, stream));
    state.tensors.push_back(*std::move(tensor));
  }
  for (int64_t i = 0; i < attention_layers(); ++i) {
    const int64_t heads = config_.attn_num_heads, head_dim = config_.d_model / heads;
    if (!device_.is_gpu()) {
      state.caches.emplace_back(heads, head_dim);
      continue;
    }
    absl::StatusOr<KvCache> cache = KvCache::OnGpu(device_, batch, heads, head_dim, dtype_, tokens);
    if (!cache.ok()) return cache.status();
    state.caches.push_back(*std::move(cache));
  }
  return state;
}

absl::StatusOr<Workspace> Model::NewWorkspace(int64_t chunk, int64_t batch) const {
  const WorkspaceSizes sizes(config_, batch * chunk, device_, dtype_);
  Workspace workspace;
  for (const auto& [array, bytes] :
       {std::pair{&workspace.x, sizes.x}, std::pair{&workspace.wide, sizes.wide},
        std::pair{&workspace.a, sizes.a}, std::pair{&workspace.b, sizes.b}}) {
    absl::StatusOr<Array> memory = Array::Allocate(device_, bytes);
    if (!memory.ok()) return memory.status();
    *array = *std::move(memory);
  }
  for (int64_t bytes : incoming_) {
    absl::StatusOr<Array> memory = Array::Allocate(device_, batch * bytes);
    if (!memory.ok()) return memory.status();
    workspace.incoming.push_back(*std::move(memory));
  }
  return workspace;
}

absl::StatusOr<HostState> Model::ExportState(const ModelState& state, Stream& stream) const {
  HostState host;
  for (const Array& tensor : state.tensors) {
    host.emplace_back(tensor.bytes() / sizeof(float));
    LONGWAVE_RETURN_IF_ERROR(CopyOut(host.back().data(), tensor.data(), tensor.bytes(), stream));
  }
  return host;
}

absl::Status Model::ImportState(const HostState& host, ModelState& state, Stream& stream) const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("state", "tensors", static_cast<int64_t>(host.size()),
                                      static_cast<int64_t>(state.tensors.size()),
                                      static_cast<int64_t>(state.tensors.size())));
  for (size_t i = 0; i < host.size(); ++i) {
    const int64_t bytes = static_cast<int64_t>(host[i].size() * sizeof(float));
    LONGWAVE_RETURN_IF_ERROR(CheckRange("state", state_specs_[i].name.c_str(), bytes,
                                        state.tensors[i].bytes(), state.tensors[i].bytes()));
    LONGWAVE_RETURN_IF_ERROR(CopyIn(state.tensors[i].data(), host[i].data(), bytes, stream));
  }
  return absl::OkStatus();
}

absl::Status Model::RunLayers(float* x, const ModelInput& input, ModelState& state,
                              Workspace& workspace, Stream& stream, PartTimer* timer,
                              StateFlow* flow) const {
  size_t cache = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const int64_t first = first_state_[i];
    const int64_t end =
        i + 1 < layers_.size() ? first_state_[i + 1] : static_cast<int64_t>(state.tensors.size());
    const Array* tensors = state.tensors.data() + first;
    LayerContext context{state.batch, input.length,   tensors,   first,  flow,
                         nullptr,     input.position, workspace, stream, timer};
    if (config_.IsAttention(static_cast<int64_t>(i))) context.cache = &state.caches[cache++];
    for (int64_t t = 0; t < end - first && flow == nullptr && !context.in_place(); ++t) {
      LONGWAVE_RETURN_IF_ERROR(
          Copy(workspace.incoming[t].data(), tensors[t].data(), tensors[t].bytes(), stream));
    }
    LONGWAVE_RETURN_IF_ERROR(layers_[i]->Forward(x, context));
  }
  if (input.position == nullptr) state.position += input.length;
  return absl::OkStatus();
}

absl::Status Model::Forward(const ModelInput& input, ModelState& state, Workspace& workspace,
                            Stream& stream, void* hidden, PartTimer* timer, StateFlow* flow) const {
  const int64_t d = config_.d_model, rows = state.batch * input.length;
  float* x = workspace.x.floats();
  if (timer != nullptr) LONGWAVE_RETURN_IF_ERROR(timer->Mark("other", stream));
  LONGWAVE_RETURN_IF_ERROR(
      RunEmbedding(rows, d, config_.vocab_size, dtype_, embedding_, input.tokens, x, stream));
  if (timer != nullptr) LONGWAVE_RETURN_IF_ERROR(timer->Mark("embedding", stream));
  LONGWAVE_RETURN_IF_ERROR(RunLayers(x, input, state, workspace, stream, timer, flow));
  LONGWAVE_RETURN_IF_ERROR(
      RunLayerNorm(final_norm_, rows, d, x, hidden, stream, Dtype::kFloat32, dtype_));
  return timer == nullptr ? absl::OkStatus() : timer->Mark("last norm", stream);
}

absl::Status Model::Transform(float* x, int64_t length, ModelState& state, Workspace& workspace,
                              Stream& stream, PartTimer* timer, StateFlow* flow) const {
  return RunLayers(x, {.length = length}, state, workspace, stream, timer, flow);
}

}  // namespace longwave

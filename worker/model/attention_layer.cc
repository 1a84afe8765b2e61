// An attention block: x += out_proj(attention(Wqkv norm1(x))), then the MLP.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
#include "worker/model/layer.h"
#include "worker/model/mlp_weights.h"

namespace longwave {
namespace {

class AttentionLayer : public Layer {
 public:
  absl::Status Load(const ModelConfig& config, int64_t index, WeightLoader& weights);
  absl::Status Forward(float* x, LayerContext& context) const override;
  int64_t ScratchBytes(int64_t batch, int64_t length, Device device) const override;

 private:
  GemmDesc QkvDesc(int64_t rows) const;
  GemmDesc OutDesc(int64_t rows) const;

  AttentionDesc desc_;  // batch and length to be set
  LayerNormWeights norm_;
  const void *qkv_weight_ = nullptr, *qkv_bias_ = nullptr;  // (3 d, d), (3 d)
  const void* out_weight_ = nullptr;                        // (d, d)
  const float* out_bias_ = nullptr;                         // (d)
  MlpWeights mlp_;
};

absl::Status AttentionLayer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  const std::string prefix = absl::StrCat("backbone.layers.", index, ".");
  const int64_t d = config.d_model;
  desc_.heads = config.attn_num_heads;
  desc_.head_dim = d / config.attn_num_heads;
  desc_.rotary_dim = config.rotary_emb_dim;
  desc_.dtype = weights.dtype();
  LONGWAVE_ASSIGN_OR_RETURN(norm_,
                            weights.LoadNorm(prefix + "norm1.", d, config.layer_norm_epsilon));
  LONGWAVE_ASSIGN_OR_RETURN(qkv_weight_,
                            weights.LoadWeight(prefix + "mixer.Wqkv.weight", {3 * d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(qkv_bias_, weights.LoadWeight(prefix + "mixer.Wqkv.bias", {3 * d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_weight_,
                            weights.LoadWeight(prefix + "mixer.out_proj.weight", {d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_bias_, weights.LoadBias(prefix + "mixer.out_proj.bias", d));
  LONGWAVE_ASSIGN_OR_RETURN(mlp_, MlpWeights::Load(config, prefix, weights));
  return absl::OkStatus();
}

GemmDesc AttentionLayer::QkvDesc(int64_t rows) const {
  GemmDesc desc{.rows = rows, .in = desc_.width(), .out = 3 * desc_.width()};
  desc.dtype = desc.out_dtype = desc.bias_dtype = desc_.dtype;
  return desc;
}

GemmDesc AttentionLayer::OutDesc(int64_t rows) const {
  GemmDesc desc{.rows = rows, .in = desc_.width(), .out = desc_.width()};
  desc.accumulate = true;
  desc.dtype = desc.in_dtype = desc_.dtype;
  return desc;
}

int64_t AttentionLayer::ScratchBytes(int64_t batch, int64_t length, Device device) const {
  const int64_t rows = batch * length, mlp = mlp_.ScratchBytes(rows, device);
  AttentionDesc desc = desc_;
  desc.batch = batch;
  desc.length = length;
  if (!device.is_gpu()) return std::max(mlp, desc.scratch_floats() * int64_t{sizeof(float)});
  return std::max({mlp, desc.gpu_scratch_bytes(device), QkvDesc(rows).gpu_scratch_bytes(true),
                   OutDesc(rows).gpu_scratch_bytes(false)});
}

absl::Status AttentionLayer::Forward(float* x, LayerContext& context) const {
  const int64_t d = desc_.width(), rows = context.rows();
  Stream& stream = context.stream;
  void *qkv = context.workspace.wide.data(), *y = context.workspace.a.data();
  LONGWAVE_RETURN_IF_ERROR(RunGemm(QkvDesc(rows),
                                   {.x = x,
                                    .x_stride = d,
                                    .weight = qkv_weight_,
                                    .bias = qkv_bias_,
                                    .norm = &norm_,
                                    .out = qkv,
                                    .out_stride = 3 * d},
                                   stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("qkv gemm"));
  AttentionDesc desc = desc_;
  desc.batch = context.batch;
  desc.length = context.length;
  LONGWAVE_RETURN_IF_ERROR(RunAttention(desc, qkv, *context.cache, y, stream, context.position));
  LONGWAVE_RETURN_IF_ERROR(context.Done("attention"));
  LONGWAVE_RETURN_IF_ERROR(RunGemm(
      OutDesc(rows),
      {.x = y, .x_stride = d, .weight = out_weight_, .bias = out_bias_, .out = x, .out_stride = d},
      stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("out gemm"));
  return mlp_.Run(x, context);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Layer>> LoadAttentionLayer(const ModelConfig& config,
                                                                int64_t index,
                                                                WeightLoader& weights) {
  auto layer = std::make_unique<AttentionLayer>();
  LONGWAVE_RETURN_IF_ERROR(layer->Load(config, index, weights));
  return layer;
}

}  // namespace longwave

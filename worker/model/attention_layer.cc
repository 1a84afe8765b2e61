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
  int64_t ScratchFloats(int64_t rows) const override;

 private:
  AttentionDesc desc_;  // length to be set
  LayerNormWeights norm_;
  const float *qkv_weight_ = nullptr, *qkv_bias_ = nullptr;  // (3 d, d), (3 d)
  const float *out_weight_ = nullptr, *out_bias_ = nullptr;  // (d, d), (d)
  MlpWeights mlp_;
};

absl::Status AttentionLayer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  const std::string prefix = absl::StrCat("backbone.layers.", index, ".");
  const int64_t d = config.d_model;
  desc_.heads = config.attn_num_heads;
  desc_.head_dim = d / config.attn_num_heads;
  desc_.rotary_dim = config.rotary_emb_dim;
  LONGWAVE_ASSIGN_OR_RETURN(norm_,
                            weights.LoadNorm(prefix + "norm1.", d, config.layer_norm_epsilon));
  LONGWAVE_ASSIGN_OR_RETURN(qkv_weight_, weights.Load(prefix + "mixer.Wqkv.weight", {3 * d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(qkv_bias_, weights.Load(prefix + "mixer.Wqkv.bias", {3 * d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_weight_, weights.Load(prefix + "mixer.out_proj.weight", {d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_bias_, weights.Load(prefix + "mixer.out_proj.bias", {d}));
  LONGWAVE_ASSIGN_OR_RETURN(mlp_, MlpWeights::Load(config, prefix, weights));
  return absl::OkStatus();
}

int64_t AttentionLayer::ScratchFloats(int64_t rows) const {
  MlpDesc mlp = mlp_.desc;
  mlp.rows = rows;
  return std::max(desc_.scratch_floats(), mlp.scratch_floats());
}

absl::Status AttentionLayer::Forward(float* x, LayerContext& context) const {
  const int64_t d = desc_.width(), rows = context.rows;
  float *qkv = context.workspace.wide.data(), *y = context.workspace.a.data();
  LONGWAVE_RETURN_IF_ERROR(RunGemm({.rows = rows, .in = d, .out = 3 * d},
                                   {.x = x,
                                    .x_stride = d,
                                    .weight = qkv_weight_,
                                    .bias = qkv_bias_,
                                    .norm = &norm_,
                                    .out = qkv,
                                    .out_stride = 3 * d},
                                   context.stream));
  AttentionDesc desc = desc_;
  desc.length = rows;
  LONGWAVE_RETURN_IF_ERROR(RunAttention(desc, qkv, *context.cache, y, context.stream));
  GemmDesc out{.rows = rows, .in = d, .out = d};
  out.accumulate = true;
  LONGWAVE_RETURN_IF_ERROR(RunGemm(
      out,
      {.x = y, .x_stride = d, .weight = out_weight_, .bias = out_bias_, .out = x, .out_stride = d},
      context.stream));
  return mlp_.Run(x, rows, context.stream);
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

// An H3 block: x += output_linear(H3Mix(q, k, v of norm1(x))), then the MLP.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
#include "kernels/h3_mix.h"
#include "worker/model/layer.h"
#include "worker/model/mlp_weights.h"

namespace longwave {
namespace {

class H3Layer : public Layer {
 public:
  absl::Status Load(const ModelConfig& config, int64_t index, WeightLoader& weights);
  std::vector<StateTensorSpec> state_specs() const override;
  absl::Status Forward(float* x, LayerContext& context) const override;
  int64_t ScratchFloats(int64_t rows) const override;

 private:
  int64_t heads() const { return config_.d_model / config_.head_dim; }
  H3MixDesc MixDesc(int64_t rows) const;
  absl::Status LoadSsm(const std::string& prefix, WeightLoader& weights);

  ModelConfig config_;
  LayerNormWeights norm_;
  std::vector<float> qkv_weight_, qkv_bias_;  // (3 d, d), (3 d): one product for all three
  const float *out_weight_ = nullptr, *out_bias_ = nullptr;  // (d, d), (d)
  std::vector<float> shift_taps_;                            // (d, d_state), the skip included
  SsmFilter filter_;
  MlpWeights mlp_;
};

absl::Status H3Layer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  config_ = config;
  const std::string prefix = absl::StrCat("backbone.layers.", index, ".");
  const std::string mixer = prefix + "mixer.";
  const int64_t d = config.d_model, taps = config.d_state;
  LONGWAVE_ASSIGN_OR_RETURN(norm_,
                            weights.LoadNorm(prefix + "norm1.", d, config.layer_norm_epsilon));
  qkv_weight_.resize(3 * d * d);
  qkv_bias_.resize(3 * d);
  int64_t i = 0;
  for (const char* name : {"q_proj.", "k_proj.", "v_proj."}) {
    LONGWAVE_RETURN_IF_ERROR(
        weights.LoadInto(mixer + name + "weight", {d, d}, qkv_weight_.data() + i * d * d));
    LONGWAVE_RETURN_IF_ERROR(
        weights.LoadInto(mixer + name + "bias", {d}, qkv_bias_.data() + i * d));
    ++i;
  }
  LONGWAVE_ASSIGN_OR_RETURN(out_weight_, weights.Load(mixer + "output_linear.weight", {d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_bias_, weights.Load(mixer + "output_linear.bias", {d}));

  const float *shift_b, *shift_c, *skip;
  LONGWAVE_ASSIGN_OR_RETURN(shift_b, weights.Load(mixer + "ssm_k_kernel.kernel.B", {d, taps}));
  LONGWAVE_ASSIGN_OR_RETURN(shift_c, weights.Load(mixer + "ssm_k_kernel.kernel.C", {1, d, taps}));
  LONGWAVE_ASSIGN_OR_RETURN(skip, weights.Load(mixer + "ssm_k_D", {d}));
  shift_taps_.resize(d * taps);
  for (int64_t c = 0; c < d; ++c) {
    const size_t n = static_cast<size_t>(taps);
    ShiftSsmTaps({shift_b + c * taps, n}, {shift_c + c * taps, n}, skip[c],
                 {shift_taps_.data() + c * taps, n});
  }
  LONGWAVE_RETURN_IF_ERROR(LoadSsm(mixer, weights));
  LONGWAVE_ASSIGN_OR_RETURN(mlp_, MlpWeights::Load(config, prefix, weights));
  return absl::OkStatus();
}

absl::Status H3Layer::LoadSsm(const std::string& mixer, WeightLoader& weights) {
  const std::string kernel = mixer + "kernel.kernel.";
  const int64_t H = heads(), P = config_.pairs();
  const float *B, *C, *real, *imag, *log_dt, *skip;
  LONGWAVE_ASSIGN_OR_RETURN(B, weights.Load(kernel + "B", {H, P, 2}));
  LONGWAVE_ASSIGN_OR_RETURN(C, weights.Load(kernel + "C", {1, H, P, 2}));
  LONGWAVE_ASSIGN_OR_RETURN(real, weights.Load(kernel + "inv_A_real", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(imag, weights.Load(kernel + "A_imag", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(log_dt, weights.Load(kernel + "log_dt", {H}));
  LONGWAVE_ASSIGN_OR_RETURN(skip, weights.Load(mixer + "D", {H}));
  DiagonalSsm ssm{H, P, {}, {}, {}, {skip, skip + H}};
  ssm.a.resize(H * P);
  ssm.b.resize(H * P);
  ssm.c.resize(H * P);
  for (int64_t i = 0; i < H * P; ++i) {
    const Complex A(-std::exp(double{real[i]}), double{imag[i]});
    DiscretizeBilinear(A, {B[2 * i], B[2 * i + 1]}, std::exp(double{log_dt[i / P]}), &ssm.a[i],
                       &ssm.b[i]);
    ssm.c[i] = {C[2 * i], C[2 * i + 1]};
  }
  absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm);
  if (!filter.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(weights.path(), ": '", kernel, "*': ", filter.status().message()));
  }
  filter_ = *std::move(filter);
  weights.CountBytes(filter_.bytes());
  return absl::OkStatus();
}

std::vector<StateTensorSpec> H3Layer::state_specs() const {
  const int64_t hd = config_.head_dim;
  return {{"halo", {config_.d_model, config_.d_state - 1}},
          {"ssm", {heads(), hd, hd, 2, config_.pairs()}}};
}

H3MixDesc H3Layer::MixDesc(int64_t rows) const {
  H3MixDesc desc;
  desc.heads = heads();
  desc.head_dim = config_.head_dim;
  desc.length = rows;
  desc.pairs = config_.pairs();
  desc.shift_taps = config_.d_state;
  return desc;
}

int64_t H3Layer::ScratchFloats(int64_t rows) const {
  MlpDesc mlp = mlp_.desc;
  mlp.rows = rows;
  const absl::StatusOr<H3MixPlan> plan = PlanH3Mix(MixDesc(rows), Device{});
  return std::max(plan.ok() ? plan->scratch_floats : 0, mlp.scratch_floats());
}

absl::Status H3Layer::Forward(float* x, LayerContext& context) const {
  const int64_t d = config_.d_model, rows = context.rows, stride = ChannelStride(rows);
  Workspace& w = context.workspace;
  GemmDesc qkv{.rows = rows, .in = d, .out = 3 * d};
  qkv.out_layout = Layout::kChannelMajor;
  LONGWAVE_RETURN_IF_ERROR(RunGemm(qkv,
                                   {.x = x,
                                    .x_stride = d,
                                    .weight = qkv_weight_.data(),
                                    .bias = qkv_bias_.data(),
                                    .norm = &norm_,
                                    .out = w.wide.data(),
                                    .out_stride = stride},
                                   context.stream));
  float *q = w.wide.data(), *k = q + d * stride, *v = k + d * stride;

  absl::StatusOr<H3MixPlan> plan = PlanH3Mix(MixDesc(rows), context.stream.device());
  if (!plan.ok()) return plan.status();
  float* y = config_.head_dim == 1 ? q : w.a.data();
  std::vector<float>&halo = context.states[0], &state = context.states[1];
  LONGWAVE_RETURN_IF_ERROR(RunH3Mix(*plan, filter_,
                                    {.q = q,
                                     .k = k,
                                     .v = v,
                                     .y = y,
                                     .channel_stride = stride,
                                     .shift_taps = shift_taps_.data(),
                                     .halo_in = halo.data(),
                                     .halo_out = halo.data(),
                                     .state_in = state.data(),
                                     .state_out = state.data()},
                                    context.stream));

  GemmDesc out{.rows = rows, .in = d, .out = d};
  out.in_layout = Layout::kChannelMajor;
  out.accumulate = true;
  LONGWAVE_RETURN_IF_ERROR(RunGemm(out,
                                   {.x = y,
                                    .x_stride = stride,
                                    .weight = out_weight_,
                                    .bias = out_bias_,
                                    .out = x,
                                    .out_stride = d},
                                   context.stream));
  return mlp_.Run(x, rows, context.stream);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Layer>> LoadH3Layer(const ModelConfig& config, int64_t index,
                                                         WeightLoader& weights) {
  auto layer = std::make_unique<H3Layer>();
  LONGWAVE_RETURN_IF_ERROR(layer->Load(config, index, weights));
  return layer;
}

}  // namespace longwave

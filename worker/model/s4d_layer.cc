// An S4D layer over signals (Gu et al., arXiv 2206.11893): z = GLU(W gelu(conv(u, K) + D u)), with
// an optional residual and a LayerNorm before the layer or after the residual sum.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/advance_state.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
#include "kernels/signal_ops.h"
#include "kernels/ssm_conv.h"
#include "worker/model/layer.h"

namespace longwave {
namespace {

class S4dLayer : public Layer {
 public:
  absl::Status Load(const ModelConfig& config, int64_t index, WeightLoader& weights);
  std::vector<StateTensorSpec> state_specs() const override {
    return {{"ssm", {config_.d_model, 2, config_.pairs()}}};
  }
  absl::Status Forward(float* x, LayerContext& context) const override;
  int64_t ScratchBytes(int64_t batch, int64_t length, Device device) const override;

 private:
  SsmConvDesc ConvDesc(int64_t batch, int64_t length) const;
  absl::Status Conv(const SsmConvArgs& args, const LayerContext& context) const;
  GemmDesc LinearDesc(int64_t rows) const;

  ModelConfig config_;
  Dtype dtype_ = Dtype::kFloat32;
  LayerNormWeights norm_;
  SsmFilter filter_;
  const void *weight_ = nullptr, *bias_ = nullptr;  // (2 d, d, 1), (2 d)
};

absl::Status S4dLayer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  config_ = config;
  dtype_ = weights.dtype();
  const std::string prefix = absl::StrCat("layers.", index, ".");
  const int64_t H = config.d_model, P = config.pairs();
  const float *log_dt, *log_real, *imag, *C, *skip;
  LONGWAVE_ASSIGN_OR_RETURN(skip, weights.Load(prefix + "D", {H}));
  LONGWAVE_ASSIGN_OR_RETURN(log_dt, weights.Load(prefix + "kernel.log_dt", {H}));
  LONGWAVE_ASSIGN_OR_RETURN(log_real, weights.Load(prefix + "kernel.log_A_real", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(imag, weights.Load(prefix + "kernel.A_imag", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(C, weights.Load(prefix + "kernel.C", {H, P, 2}));
  LONGWAVE_ASSIGN_OR_RETURN(weight_,
                            weights.LoadWeight(prefix + "output_linear.0.weight", {2 * H, H, 1}));
  LONGWAVE_ASSIGN_OR_RETURN(bias_, weights.LoadWeight(prefix + "output_linear.0.bias", {2 * H}));
  if (config.norm != ModelConfig::Norm::kNone) {
    LONGWAVE_ASSIGN_OR_RETURN(norm_,
                              weights.LoadNorm(prefix + "norm.", H, config.layer_norm_epsilon));
  }
  DiagonalSsm ssm{H, P, {}, {}, {}, {skip, skip + H}};
  ssm.a.resize(H * P);
  ssm.b.resize(H * P);
  ssm.c.resize(H * P);
  for (int64_t i = 0; i < H * P; ++i) {
    const Complex A(-std::exp(double{log_real[i]}), double{imag[i]});
    DiscretizeZeroOrderHold(A, std::exp(double{log_dt[i / P]}), &ssm.a[i], &ssm.b[i]);
    ssm.c[i] = {C[2 * i], C[2 * i + 1]};
  }
  absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm);
  if (!filter.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(weights.path(), ": '", prefix, "kernel.*': ", filter.status().message()));
  }
  filter_ = *std::move(filter);
  if (weights.stream() != nullptr) {
    LONGWAVE_RETURN_IF_ERROR(filter_.Upload(*weights.stream(), dtype_));
  }
  weights.CountBytes(filter_.bytes());
  return absl::OkStatus();
}

SsmConvDesc S4dLayer::ConvDesc(int64_t batch, int64_t length) const {
  SsmConvDesc desc;
  desc.batch = batch;
  desc.channels = config_.d_model;
  desc.length = length;
  desc.pairs = config_.pairs();
  desc.dtype = dtype_;
  return desc;
}

GemmDesc S4dLayer::LinearDesc(int64_t rows) const {
  GemmDesc desc{.rows = rows, .in = config_.d_model, .out = 2 * config_.d_model};
  desc.in_layout = Layout::kChannelMajor;
  desc.dtype = desc.in_dtype = desc.out_dtype = desc.bias_dtype = dtype_;
  return desc;
}

int64_t S4dLayer::ScratchBytes(int64_t batch, int64_t length, Device device) const {
  const absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(ConvDesc(batch, length), device);
  if (device.is_gpu()) {
    // Segments' states, before and after.
    const int64_t states = plan.ok() && plan->segments > 1 ? 2 * plan->segments : 0;
    return std::max(states * batch * config_.d_model * 2 * config_.pairs() * int64_t{sizeof(float)},
                    LinearDesc(batch * length).gpu_scratch_bytes(false));
  }
  return std::max(plan.ok() ? plan->scratch_floats : 0, 256 * config_.d_model) *
         int64_t{sizeof(float)};
}

// The state goes out once the one before has come, before y: see H3Layer::Mix.
absl::Status S4dLayer::Conv(const SsmConvArgs& args, const LayerContext& context) const {
  Stream& stream = context.stream;
  const SsmConvDesc desc = ConvDesc(context.batch, context.length);
  absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, stream.device());
  if (!plan.ok()) return plan.status();
  float* state_out = context.states[0].floats();
  SsmConvArgs run = args;
  run.state_out = state_out;
  if (context.length == 1) {  // one pass
    LONGWAVE_RETURN_IF_ERROR(context.Receive(0));
    LONGWAVE_RETURN_IF_ERROR(RunSsmConv(*plan, filter_, run, stream));
    LONGWAVE_RETURN_IF_ERROR(context.Send(0));
    return context.Done("conv");
  }
  run.y = nullptr;
  run.state_in = nullptr;
  LONGWAVE_RETURN_IF_ERROR(RunSsmConv(*plan, filter_, run, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Receive(0));
  LONGWAVE_RETURN_IF_ERROR(RunAdvanceState(
      {.batch = desc.batch, .channels = desc.channels, .pairs = desc.pairs, .length = desc.length},
      filter_, {.state_in = args.state_in, .local = state_out, .state_out = state_out}, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Send(0));
  LONGWAVE_RETURN_IF_ERROR(context.Done("state"));
  LONGWAVE_RETURN_IF_ERROR(RunSsmConv(*plan, filter_, args, stream));
  return context.Done("conv");
}

absl::Status S4dLayer::Forward(float* x, LayerContext& context) const {
  Stream& stream = context.stream;
  const int64_t H = config_.d_model, rows = context.rows();
  const int64_t stride = ChannelStride(rows, stream.device());
  void *u = context.workspace.a.data(), *z = context.workspace.wide.data();  // z: (rows, 2 H)
  float* in = x;
  if (config_.norm == ModelConfig::Norm::kPre) {
    in = context.workspace.b.floats();
    LONGWAVE_RETURN_IF_ERROR(RunLayerNorm(norm_, rows, H, x, in, stream));
  }
  LONGWAVE_RETURN_IF_ERROR(RunTranspose(rows, H, Dtype::kFloat32, in, dtype_, u, stride, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("transpose"));

  SsmConvArgs conv;
  conv.u = u;
  conv.y = u;
  conv.batch_stride = context.length;
  conv.channel_stride = stride;
  conv.state_in = context.incoming(0);
  LONGWAVE_RETURN_IF_ERROR(Conv(conv, context));
  LONGWAVE_RETURN_IF_ERROR(RunActivate(Activation::kGeluErf, H, rows, stride, dtype_, u, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("gelu"));
  LONGWAVE_RETURN_IF_ERROR(RunGemm(
      LinearDesc(rows),
      {.x = u, .x_stride = stride, .weight = weight_, .bias = bias_, .out = z, .out_stride = 2 * H},
      stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("out gemm"));
  LONGWAVE_RETURN_IF_ERROR(RunGlu(rows, H, config_.residual, dtype_, z, x, stream));
  if (config_.norm == ModelConfig::Norm::kPost) {
    LONGWAVE_RETURN_IF_ERROR(RunLayerNorm(norm_, rows, H, x, x, stream));
  }
  return context.Done("glu");
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Layer>> LoadS4dLayer(const ModelConfig& config, int64_t index,
                                                          WeightLoader& weights) {
  auto layer = std::make_unique<S4dLayer>();
  LONGWAVE_RETURN_IF_ERROR(layer->Load(config, index, weights));
  return layer;
}

}  // namespace longwave

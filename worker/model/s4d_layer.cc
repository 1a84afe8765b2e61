// An S4D layer over signals (Gu et al., arXiv 2206.11893): z = GLU(W gelu(conv(u, K) + D u)), with
// an optional residual and a LayerNorm before the layer or after the residual sum.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
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
  int64_t ScratchFloats(int64_t rows) const override;

 private:
  SsmConvDesc ConvDesc(int64_t rows) const {
    return {.channels = config_.d_model, .length = rows, .pairs = config_.pairs()};
  }

  ModelConfig config_;
  LayerNormWeights norm_;
  SsmFilter filter_;
  const float *weight_ = nullptr, *bias_ = nullptr;  // (2 d, d, 1), (2 d)
};

absl::Status S4dLayer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  config_ = config;
  const std::string prefix = absl::StrCat("layers.", index, ".");
  const int64_t H = config.d_model, P = config.pairs();
  const float *log_dt, *log_real, *imag, *C, *skip;
  LONGWAVE_ASSIGN_OR_RETURN(skip, weights.Load(prefix + "D", {H}));
  LONGWAVE_ASSIGN_OR_RETURN(log_dt, weights.Load(prefix + "kernel.log_dt", {H}));
  LONGWAVE_ASSIGN_OR_RETURN(log_real, weights.Load(prefix + "kernel.log_A_real", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(imag, weights.Load(prefix + "kernel.A_imag", {H, P}));
  LONGWAVE_ASSIGN_OR_RETURN(C, weights.Load(prefix + "kernel.C", {H, P, 2}));
  LONGWAVE_ASSIGN_OR_RETURN(weight_,
                            weights.Load(prefix + "output_linear.0.weight", {2 * H, H, 1}));
  LONGWAVE_ASSIGN_OR_RETURN(bias_, weights.Load(prefix + "output_linear.0.bias", {2 * H}));
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
  weights.CountBytes(filter_.bytes());
  return absl::OkStatus();
}

int64_t S4dLayer::ScratchFloats(int64_t rows) const {
  const absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(ConvDesc(rows), Device{});
  return std::max(plan.ok() ? plan->scratch_floats : 0, 256 * config_.d_model);
}

// out (width, rows) = x (rows, width) transposed, in tiles that stay in cache.
void Transpose(const float* x, int64_t rows, int64_t width, int64_t stride, float* out,
               Stream& stream) {
  constexpr int64_t kTile = 64;
  stream.pool().ParallelFor((rows + kTile - 1) / kTile, [&](int64_t i, int) {
    const int64_t end = std::min(rows, (i + 1) * kTile);
    for (int64_t c = 0; c < width; ++c) {
      for (int64_t r = i * kTile; r < end; ++r) out[c * stride + r] = x[r * width + c];
    }
  });
}

absl::Status S4dLayer::Forward(float* x, LayerContext& context) const {
  const int64_t H = config_.d_model, rows = context.rows, stride = ChannelStride(rows);
  Stream& stream = context.stream;
  float *u = context.workspace.a.data(), *normed = context.workspace.b.data();
  float* z = context.workspace.wide.data();  // (rows, 2 H)
  const float* in = x;
  if (config_.norm == ModelConfig::Norm::kPre) {
    LONGWAVE_RETURN_IF_ERROR(RunLayerNorm(norm_, rows, H, x, normed, stream));
    in = normed;
  }
  Transpose(in, rows, H, stride, u, stream);

  absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(ConvDesc(rows), stream.device());
  if (!plan.ok()) return plan.status();
  SsmConvArgs conv;
  conv.u = u;
  conv.y = u;
  conv.channel_stride = stride;
  conv.state_in = conv.state_out = context.states[0].data();
  LONGWAVE_RETURN_IF_ERROR(RunSsmConv(*plan, filter_, conv, stream));
  stream.pool().ParallelFor(
      H, [&](int64_t c, int) { Activate(Activation::kGeluErf, u + c * stride, rows); });

  GemmDesc linear{.rows = rows, .in = H, .out = 2 * H};
  linear.in_layout = Layout::kChannelMajor;
  LONGWAVE_RETURN_IF_ERROR(RunGemm(
      linear,
      {.x = u, .x_stride = stride, .weight = weight_, .bias = bias_, .out = z, .out_stride = 2 * H},
      stream));
  constexpr int64_t kRows = 64;
  stream.pool().ParallelFor((rows + kRows - 1) / kRows, [&](int64_t i, int) {
    for (int64_t r = i * kRows; r < std::min(rows, (i + 1) * kRows); ++r) {
      float *row = z + r * 2 * H, *out = x + r * H;
      if (!config_.residual) {
        Glu(row, row + H, out, H);
        continue;
      }
      Glu(row, row + H, row, H);
      for (int64_t c = 0; c < H; ++c) out[c] += row[c];
    }
  });
  if (config_.norm == ModelConfig::Norm::kPost) {
    LONGWAVE_RETURN_IF_ERROR(RunLayerNorm(norm_, rows, H, x, x, stream));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Layer>> LoadS4dLayer(const ModelConfig& config, int64_t index,
                                                          WeightLoader& weights) {
  auto layer = std::make_unique<S4dLayer>();
  LONGWAVE_RETURN_IF_ERROR(layer->Load(config, index, weights));
  return layer;
}

}  // namespace longwave

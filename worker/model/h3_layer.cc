// An H3 block: x += output_linear(H3Mix(q, k, v of norm1(x))), then the MLP.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/advance_state.h"
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
  int64_t ScratchBytes(int64_t batch, int64_t length, Device device) const override;

 private:
  int64_t heads() const { return config_.d_model / config_.head_dim; }
  GemmDesc QkvDesc(int64_t rows) const;
  H3MixDesc MixDesc(int64_t batch, int64_t length) const;
  GemmDesc OutDesc(int64_t rows) const;
  absl::Status Mix(const H3MixArgs& args, const LayerContext& context) const;
  absl::Status LoadSsm(const std::string& prefix, WeightLoader& weights);

  ModelConfig config_;
  Dtype dtype_ = Dtype::kFloat32;
  LayerNormWeights norm_;
  const void* qkv_weight_ = nullptr;   // (3 d, d): one product for all three
  const float* qkv_bias_ = nullptr;    // (3 d)
  const void* out_weight_ = nullptr;   // (d, d)
  const float* out_bias_ = nullptr;    // (d)
  const float* shift_taps_ = nullptr;  // (d, d_state), the skip included
  SsmFilter filter_;
  MlpWeights mlp_;
};

absl::Status H3Layer::Load(const ModelConfig& config, int64_t index, WeightLoader& weights) {
  config_ = config;
  dtype_ = weights.dtype();
  const std::string prefix = absl::StrCat("backbone.layers.", index, ".");
  const std::string mixer = prefix + "mixer.";
  const int64_t d = config.d_model, taps = config.d_state;
  LONGWAVE_ASSIGN_OR_RETURN(norm_,
                            weights.LoadNorm(prefix + "norm1.", d, config.layer_norm_epsilon));
  std::vector<float> qkv_weight(3 * d * d), qkv_bias(3 * d);
  int64_t i = 0;
  for (const char* name : {"q_proj.", "k_proj.", "v_proj."}) {
    LONGWAVE_RETURN_IF_ERROR(
        weights.LoadInto(mixer + name + "weight", {d, d}, qkv_weight.data() + i * d * d));
    LONGWAVE_RETURN_IF_ERROR(weights.LoadInto(mixer + name + "bias", {d}, qkv_bias.data() + i * d));
    ++i;
  }
  const std::string qkv = mixer + "{q,k,v}_proj.";
  const void* placed;
  LONGWAVE_ASSIGN_OR_RETURN(qkv_weight_,
                            weights.Place(qkv + "weight", std::move(qkv_weight), dtype_));
  LONGWAVE_ASSIGN_OR_RETURN(placed,
                            weights.Place(qkv + "bias", std::move(qkv_bias), Dtype::kFloat32));
  qkv_bias_ = static_cast<const float*>(placed);
  LONGWAVE_ASSIGN_OR_RETURN(out_weight_,
                            weights.LoadWeight(mixer + "output_linear.weight", {d, d}));
  LONGWAVE_ASSIGN_OR_RETURN(out_bias_, weights.LoadBias(mixer + "output_linear.bias", d));

  const float *shift_b, *shift_c, *skip;
  LONGWAVE_ASSIGN_OR_RETURN(shift_b, weights.Load(mixer + "ssm_k_kernel.kernel.B", {d, taps}));
  LONGWAVE_ASSIGN_OR_RETURN(shift_c, weights.Load(mixer + "ssm_k_kernel.kernel.C", {1, d, taps}));
  LONGWAVE_ASSIGN_OR_RETURN(skip, weights.Load(mixer + "ssm_k_D", {d}));
  std::vector<float> shift_taps(d * taps);
  for (int64_t c = 0; c < d; ++c) {
    const size_t n = static_cast<size_t>(taps);
    ShiftSsmTaps({shift_b + c * taps, n}, {shift_c + c * taps, n}, skip[c],
                 {shift_taps.data() + c * taps, n});
  }
  LONGWAVE_ASSIGN_OR_RETURN(
      placed, weights.Place(mixer + "ssm_k_*", std::move(shift_taps), Dtype::kFloat32));
  shift_taps_ = static_cast<const float*>(placed);
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
  if (weights.stream() != nullptr) {
    LONGWAVE_RETURN_IF_ERROR(filter_.Upload(*weights.stream(), dtype_));
  }
  weights.CountBytes(filter_.bytes());
  return absl::OkStatus();
}

std::vector<StateTensorSpec> H3Layer::state_specs() const {
  const int64_t hd = config_.head_dim;
  return {{"halo", {config_.d_model, config_.d_state - 1}},
          {"ssm", {heads(), hd, hd, 2, config_.pairs()}}};
}

GemmDesc H3Layer::QkvDesc(int64_t rows) const {
  GemmDesc desc{.rows = rows, .in = config_.d_model, .out = 3 * config_.d_model};
  desc.out_layout = Layout::kChannelMajor;
  desc.dtype = desc.out_dtype = dtype_;
  return desc;
}

H3MixDesc H3Layer::MixDesc(int64_t batch, int64_t length) const {
  H3MixDesc desc;
  desc.batch = batch;
  desc.heads = heads();
  desc.head_dim = config_.head_dim;
  desc.length = length;
  desc.pairs = config_.pairs();
  desc.shift_taps = config_.d_state;
  desc.dtype = dtype_;
  return desc;
}

GemmDesc H3Layer::OutDesc(int64_t rows) const {
  GemmDesc desc{.rows = rows, .in = config_.d_model, .out = config_.d_model};
  desc.in_layout = Layout::kChannelMajor;
  desc.accumulate = true;
  desc.dtype = desc.in_dtype = dtype_;
  return desc;
}

int64_t H3Layer::ScratchBytes(int64_t batch, int64_t length, Device device) const {
  const int64_t rows = batch * length;
  int64_t bytes = mlp_.ScratchBytes(rows, device);
  const absl::StatusOr<H3MixPlan> plan = PlanH3Mix(MixDesc(batch, length), device);
  if (!plan.ok()) return bytes;
  if (!device.is_gpu()) return std::max(bytes, plan->scratch_floats * int64_t{sizeof(float)});
  // Segments' states, before and after: as large as the state each.
  const int64_t states = plan->segments > 1
                             ? 2 * plan->segments * batch * config_.d_model * config_.head_dim * 2 *
                                   config_.pairs() * int64_t{sizeof(float)}
                             : 0;
  return std::max({bytes, states, QkvDesc(rows).gpu_scratch_bytes(true),
                   OutDesc(rows).gpu_scratch_bytes(false)});
}

// The mixer, in the order that lets the worker of the next chunk start as early as can be: the halo
// once k is there; the state once the one before has come, which a pass over k and v has been made
// ready for; y last. `args`: all but what goes out.
absl::Status H3Layer::Mix(const H3MixArgs& args, const LayerContext& context) const {
  Stream& stream = context.stream;
  const H3MixDesc desc = MixDesc(context.batch, context.length);
  absl::StatusOr<H3MixPlan> plan = PlanH3Mix(desc, stream.device());
  if (!plan.ok()) return plan.status();
  float *halo_out = context.states[0].floats(), *state_out = context.states[1].floats();
  H3MixArgs run = args;
  if (context.length == 1) {  // one pass
    LONGWAVE_RETURN_IF_ERROR(context.Receive(0));
    LONGWAVE_RETURN_IF_ERROR(context.Receive(1));
    run.halo_out = halo_out;
    run.state_out = state_out;
    LONGWAVE_RETURN_IF_ERROR(RunH3Mix(*plan, filter_, run, stream));
    LONGWAVE_RETURN_IF_ERROR(context.Send(0));
    LONGWAVE_RETURN_IF_ERROR(context.Send(1));
    return context.Done("mix");
  }

  run.halo_out = halo_out;
  const bool whole_halo = context.length >= desc.shift_taps - 1;
  if (!whole_halo) LONGWAVE_RETURN_IF_ERROR(context.Receive(0));
  LONGWAVE_RETURN_IF_ERROR(RunH3Halo(desc, run, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Send(0));
  if (whole_halo) LONGWAVE_RETURN_IF_ERROR(context.Receive(0));

  // kv takes v's place, and is not made twice.
  void* kv = plan->keeps_kv ? const_cast<void*>(args.v) : nullptr;
  run.kv = kv;
  run.halo_out = nullptr;
  run.y = nullptr;
  run.state_in = nullptr;
  run.state_out = state_out;
  LONGWAVE_RETURN_IF_ERROR(RunH3Mix(*plan, filter_, run, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Receive(1));
  const int64_t states_per_head = desc.head_dim * desc.head_dim;
  LONGWAVE_RETURN_IF_ERROR(RunAdvanceState(
      {.batch = desc.batch,
       .channels = desc.heads * states_per_head,
       .channels_per_filter = states_per_head,
       .pairs = desc.pairs,
       .length = desc.length},
      filter_, {.state_in = args.state_in, .local = state_out, .state_out = state_out}, stream));
  LONGWAVE_RETURN_IF_ERROR(context.Send(1));
  LONGWAVE_RETURN_IF_ERROR(context.Done("state"));

  run = args;
  run.kv = kv;
  LONGWAVE_RETURN_IF_ERROR(RunH3Mix(*plan, filter_, run, stream));
  return context.Done("mix");
}

absl::Status H3Layer::Forward(float* x, LayerContext& context) const {
  Stream& stream = context.stream;
  const bool gpu = stream.device().is_gpu();
  const int64_t d = config_.d_model, rows = context.rows();
  const int64_t stride = ChannelStride(rows, stream.device());
  Workspace& w = context.workspace;
  // A GPU's product whose result is channel-major cannot add the bias; there the mixer does.
  LONGWAVE_RETURN_IF_ERROR(RunGemm(QkvDesc(rows),
                                   {.x = x,
                                    .x_stride = d,
                                    .weight = qkv_weight_,
                                    .bias = gpu ? nullptr : qkv_bias_,
                                    .norm = &norm_,
                                    .out = w.wide.data(),
                                    .out_stride = stride},
                                   stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("qkv gemm"));
  char* q = static_cast<char*>(w.wide.data());
  char *k = q + d * stride * SizeOf(dtype_), *v = k + d * stride * SizeOf(dtype_);

  void* y = config_.head_dim == 1 ? q : w.a.data();
  LONGWAVE_RETURN_IF_ERROR(Mix({.q = q,
                                .k = k,
                                .v = v,
                                .y = y,
                                .batch_stride = context.length,
                                .channel_stride = stride,
                                .shift_taps = shift_taps_,
                                .halo_in = context.incoming(0),
                                .state_in = context.incoming(1),
                                .bias = gpu ? qkv_bias_ : nullptr},
                               context));

  LONGWAVE_RETURN_IF_ERROR(RunGemm(OutDesc(rows),
                                   {.x = y,
                                    .x_stride = stride,
                                    .weight = out_weight_,
                                    .bias = out_bias_,
                                    .out = x,
                                    .out_stride = d},
                                   stream));
  LONGWAVE_RETURN_IF_ERROR(context.Done("out gemm"));
  return mlp_.Run(x, context);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Layer>> LoadH3Layer(const ModelConfig& config, int64_t index,
                                                         WeightLoader& weights) {
  auto layer = std::make_unique<H3Layer>();
  LONGWAVE_RETURN_IF_ERROR(layer->Load(config, index, weights));
  return layer;
}

}  // namespace longwave

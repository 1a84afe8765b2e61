#include "worker/model/mlp_weights.h"

#include "kernels/checks.h"

namespace longwave {

absl::StatusOr<MlpWeights> MlpWeights::Load(const ModelConfig& config, const std::string& prefix,
                                            WeightLoader& weights) {
  const int64_t d = config.d_model, inner = config.d_inner;
  MlpWeights mlp;
  mlp.desc.width = d;
  mlp.desc.inner = inner;
  mlp.desc.dtype = mlp.desc.fc1_bias_dtype = weights.dtype();
  MlpArgs& args = mlp.args;
  LONGWAVE_ASSIGN_OR_RETURN(args.norm,
                            weights.LoadNorm(prefix + "norm2.", d, config.layer_norm_epsilon));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc1_weight,
                            weights.LoadWeight(prefix + "mlp.fc1.weight", {inner, d}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc1_bias, weights.LoadWeight(prefix + "mlp.fc1.bias", {inner}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc2_weight,
                            weights.LoadWeight(prefix + "mlp.fc2.weight", {d, inner}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc2_bias, weights.LoadBias(prefix + "mlp.fc2.bias", d));
  return mlp;
}

int64_t MlpWeights::ScratchBytes(int64_t rows, Device device) const {
  MlpDesc run = desc;
  run.rows = rows;
  return device.is_gpu() ? run.gpu_scratch_bytes() : run.scratch_floats() * int64_t{sizeof(float)};
}

absl::Status MlpWeights::Run(float* x, const LayerContext& context) const {
  MlpDesc run = desc;
  run.rows = context.rows();
  MlpArgs run_args = args;
  run_args.x = x;
  LONGWAVE_RETURN_IF_ERROR(RunMlp(run, run_args, context.stream));
  return context.Done("mlp");
}

}  // namespace longwave

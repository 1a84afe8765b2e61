#include "worker/model/mlp_weights.h"

namespace longwave {

absl::StatusOr<MlpWeights> MlpWeights::Load(const ModelConfig& config, const std::string& prefix,
                                            WeightLoader& weights) {
  const int64_t d = config.d_model, inner = config.d_inner;
  MlpWeights mlp;
  mlp.desc.width = d;
  mlp.desc.inner = inner;
  MlpArgs& args = mlp.args;
  LONGWAVE_ASSIGN_OR_RETURN(args.norm,
                            weights.LoadNorm(prefix + "norm2.", d, config.layer_norm_epsilon));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc1_weight, weights.Load(prefix + "mlp.fc1.weight", {inner, d}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc1_bias, weights.Load(prefix + "mlp.fc1.bias", {inner}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc2_weight, weights.Load(prefix + "mlp.fc2.weight", {d, inner}));
  LONGWAVE_ASSIGN_OR_RETURN(args.fc2_bias, weights.Load(prefix + "mlp.fc2.bias", {d}));
  return mlp;
}

absl::Status MlpWeights::Run(float* x, int64_t rows, Stream& stream) const {
  MlpDesc run = desc;
  run.rows = rows;
  MlpArgs run_args = args;
  run_args.x = x;
  return RunMlp(run, run_args, stream);
}

}  // namespace longwave

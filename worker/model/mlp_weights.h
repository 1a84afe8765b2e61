// The second half of an H3 block, which H3 and attention layers share: x +=
// fc2(gelu(fc1(norm2(x)))).
#pragma once

#include "absl/status/status.h"
#include "kernels/mlp.h"
#include "worker/model/config.h"
#include "worker/model/layer.h"
#include "worker/model/weights.h"

namespace longwave {

struct MlpWeights {
  MlpDesc desc;  // rows to be set
  MlpArgs args;  // x to be set

  // Tensors prefix + "norm2.*", "mlp.fc1.*", "mlp.fc2.*".
  static absl::StatusOr<MlpWeights> Load(const ModelConfig& config, const std::string& prefix,
                                         WeightLoader& weights);
  int64_t ScratchBytes(int64_t rows, Device device) const;  // as Layer::ScratchBytes()
  absl::Status Run(float* x, const LayerContext& context) const;
};

}  // namespace longwave

// The CPU backend of H3Mix. Internal to kernels/.
#pragma once

#include "absl/status/status.h"
#include "kernels/h3_mix.h"

namespace longwave {

int64_t H3MixScratchFloats(const H3MixDesc& desc);
absl::Status RunH3MixCpu(const H3MixPlan& plan, const SsmFilter& filter, const H3MixArgs& args,
                         Stream& stream);
// See RunH3Halo.
void WriteHaloCpu(const H3MixDesc& desc, const H3MixArgs& args);

}  // namespace longwave

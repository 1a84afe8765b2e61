// The CPU backend of SsmConv. Internal to kernels/.
#pragma once

#include "absl/status/status.h"
#include "kernels/ssm_conv.h"

namespace longwave {

absl::Status RunSsmConvCpu(const SsmConvPlan& plan, const SsmFilter& filter,
                           const SsmConvArgs& args, Stream& stream);

}  // namespace longwave

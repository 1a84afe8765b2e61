// AdvanceState on a GPU. Internal to kernels/.
#pragma once

#include "kernels/advance_state.h"
#include "kernels/ssm_conv_cuda.h"

namespace longwave {

// REQUIRES: the checks of RunAdvanceState passed.
absl::Status RunAdvanceStateCuda(const AdvanceStateDesc& desc, const SsmDeviceFilter& filter,
                                 const AdvanceStateArgs& args, Stream& stream);

}  // namespace longwave

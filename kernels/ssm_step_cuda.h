// The recurrence on a GPU, token by token: SsmConv and H3Mix for generation, batched. Internal to
// kernels/.
#pragma once

#include "absl/status/status.h"
#include "kernels/ssm_conv_cuda.h"

namespace longwave {

absl::Status RunSsmStep(const SsmConvDesc& desc, const SsmDeviceFilter& filter,
                        const SsmConvArgs& args, Stream& stream);
absl::Status RunH3Step(const H3MixDesc& desc, const SsmDeviceFilter& filter, const H3MixArgs& args,
                       Stream& stream);
// halo_out of a chunk, where it is wanted.
absl::Status WriteHalo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream);

}  // namespace longwave

// SsmConv and H3Mix on a GPU: their constants on the device, and their runs. Internal to kernels/.
//
// Thread safety: filters are immutable and may be shared by Streams of the same device.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/diagonal_ssm.h"
#include "kernels/dtype.h"
#include "kernels/h3_mix.h"
#include "kernels/ssm_conv.h"
#include "kernels/stream.h"

namespace longwave {

// A DiagonalSsm's constants on one device, for data of one type.
struct SsmDeviceFilter {
  int device = 0;
  Dtype dtype = Dtype::kFloat32;
  int pair_groups = 0;  // of 32
  int64_t filter_bytes = 0;
  gpu::DeviceArray dual;  // as ssm_conv_kernel.cuh lays them out
  // (filters, 8, pairs): a re, im, low parts; b re, im; 2 Re c, -2 Im c. Then (filters): d.
  gpu::DeviceArray step;

  const float* d(int64_t filters, int64_t pairs) const {
    return step.as<float>() + filters * 8 * pairs;
  }
};

absl::StatusOr<std::shared_ptr<const SsmDeviceFilter>> UploadSsmFilter(const DiagonalSsm& ssm,
                                                                       Dtype dtype, Stream& stream);

// REQUIRES: the checks of RunSsmConv and RunH3Mix passed; evaluation kDualForm or kStep.
absl::Status RunSsmConvCuda(const SsmConvPlan& plan, const SsmDeviceFilter& filter,
                            const SsmConvArgs& args, Stream& stream);
absl::Status RunH3MixCuda(const H3MixPlan& plan, const SsmDeviceFilter& filter,
                          const H3MixArgs& args, Stream& stream);

}  // namespace longwave

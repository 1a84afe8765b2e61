// What a CUDA error means to a caller.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "absl/status/status.h"

namespace longwave::gpu {

// OK, or what `error` means: ResourceExhausted, Unimplemented or Internal, naming `call` and
// `sizes`.
absl::Status ToStatus(cudaError_t error, const std::string& call, const std::string& sizes = "");

}  // namespace longwave::gpu

// Host side of a kernel launch, for the .cu files: on the GPU, or in the emulator.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "kernels/gpu/cuda_status.h"
#include "kernels/gpu/device_code.h"

namespace longwave::gpu {

// Queues kernel(args...) with `shared` bytes of dynamic shared memory. `name` and `sizes` stand in
// an error's message.
template <typename... Params, typename... Args>
absl::Status Launch(const char* name, const std::string& sizes, void (*kernel)(Params...),
                    dim3 grid, int threads, int64_t shared, cudaStream_t stream, Args... args) {
#ifdef LONGWAVE_EMULATE
  emulator::Run(grid, dim3(threads), static_cast<size_t>(shared), [&] { kernel(args...); });
  return absl::OkStatus();
#else
  if (shared > (48 << 10)) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (error != cudaSuccess) return ToStatus(error, name, sizes);
  }
  // clang-format off
  kernel<<<grid, threads, static_cast<size_t>(shared), stream>>>(args...);
  // clang-format on
  return ToStatus(cudaGetLastError(), name, sizes);
#endif
}

}  // namespace longwave::gpu

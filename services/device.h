// --device and --dtype: where a model runs, and on what type of numbers.
//
// Thread safety: free functions without state.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/model/model.h"

namespace longwave {

inline constexpr char kDeviceHelp[] =
    "cpu, cuda:N, or auto: the first GPU where there is one, else the CPU";
inline constexpr char kDtypeHelp[] =
    "auto, float32, bfloat16 or float16; auto is bfloat16 on a GPU; the CPU has float32 alone";

// What was typed. Names a refused value; a GPU that is not there, or that this program cannot use,
// is refused with the reason.
absl::StatusOr<ModelOptions> ParseDevice(const std::string& device, const std::string& dtype);
// "NVIDIA H100 80GB HBM3", or "cpu".
std::string DeviceName(Device device);

}  // namespace longwave

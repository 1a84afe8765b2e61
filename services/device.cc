#include "services/device.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/gpu/queue.h"

namespace longwave {
namespace {

absl::StatusOr<Device> ParseDeviceName(absl::string_view name) {
  Device device;
  if (name == "cpu") return device;
  if (name == "auto") {
    if (gpu::DeviceCount() > 0 && gpu::GetProperties(0).ok()) device.kind = Device::Kind::kCuda;
    return device;
  }
  absl::string_view index = name;
  if (!absl::ConsumePrefix(&index, "cuda:") || !absl::SimpleAtoi(index, &device.index)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", name, ": must be auto, cpu or cuda:N"));
  }
  device.kind = Device::Kind::kCuda;
  const absl::StatusOr<gpu::Properties> properties = gpu::GetProperties(device.index);
  if (!properties.ok()) {
    const absl::string_view why = properties.status().message();
    const bool named = absl::StartsWith(why, name);
    return absl::Status(properties.status().code(),
                        absl::StrCat("--device ", named ? "" : name, named ? "" : ": ", why));
  }
  return device;
}

}  // namespace

absl::StatusOr<ModelOptions> ParseDevice(const std::string& device, const std::string& dtype) {
  const absl::StatusOr<Device> parsed = ParseDeviceName(device);
  if (!parsed.ok()) return parsed.status();
  ModelOptions options{*parsed, parsed->is_gpu() ? Dtype::kBFloat16 : Dtype::kFloat32};
  if (dtype == "auto") return options;
  for (const Dtype known : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    if (dtype != Name(known)) continue;
    if (!parsed->is_gpu() && known != Dtype::kFloat32) {
      return absl::InvalidArgumentError(
          absl::StrCat("--dtype ", dtype, ": the CPU computes in float32 only"));
    }
    options.dtype = known;
    return options;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--dtype ", dtype, ": must be one of auto, float32, bfloat16, float16"));
}

std::string DeviceName(Device device) {
  if (!device.is_gpu()) return device.ToString();
  const absl::StatusOr<gpu::Properties> properties = gpu::GetProperties(device.index);
  return properties.ok() ? properties->name : device.ToString();
}

}  // namespace longwave

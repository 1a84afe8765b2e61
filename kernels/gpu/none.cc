// The GPU backend of a build without the CUDA toolkit: everything answers Unimplemented.
#include "absl/strings/str_cat.h"
#include "kernels/gpu/queue.h"
#include "kernels/ssm_fft_cuda.h"

namespace longwave::gpu {
namespace {

absl::Status None() { return absl::UnimplementedError("this build has no CUDA backend"); }

}  // namespace

int DeviceCount() { return 0; }
absl::StatusOr<Properties> GetProperties(int device) { return None(); }
absl::StatusOr<MemoryInfo> GetMemoryInfo(int device) { return None(); }
absl::StatusOr<DeviceArray> DeviceArray::Allocate(int device, int64_t bytes) { return None(); }
DeviceArray::~DeviceArray() = default;
absl::StatusOr<std::unique_ptr<Queue>> Queue::Open(int device) { return None(); }
Queue::~Queue() = default;
absl::StatusOr<void*> Queue::Scratch(int64_t bytes) { return None(); }
absl::Status Queue::CopyToDevice(void* device, const void* host, int64_t bytes) { return None(); }
absl::Status Queue::CopyToHost(void* host, const void* device, int64_t bytes) { return None(); }
absl::Status Queue::CopyOnDevice(void* to, const void* from, int64_t bytes) { return None(); }
absl::Status Queue::Fill(void* device, int byte, int64_t bytes) { return None(); }
absl::Status Queue::Synchronize() { return None(); }

}  // namespace longwave::gpu

namespace longwave {

absl::StatusOr<std::shared_ptr<const SsmFftDeviceFilter>> UploadSsmFft(const DiagonalSsm& ssm,
                                                                       int64_t block, Dtype dtype,
                                                                       Stream& stream) {
  return gpu::None();
}
absl::Status RunSsmConvFftCuda(const SsmConvPlan& plan, const SsmFftDeviceFilter& filter,
                               const SsmConvArgs& args, Stream& stream) {
  return gpu::None();
}

}  // namespace longwave

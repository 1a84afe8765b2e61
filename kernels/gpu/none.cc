// The GPU backend of a build without the CUDA toolkit: everything answers Unimplemented.
#include "absl/strings/str_cat.h"
#include "kernels/gpu/async.h"
#include "kernels/gpu/queue.h"
#include "kernels/ssm_conv_cuda.h"

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
absl::StatusOr<PinnedArray> PinnedArray::Allocate(int device, int64_t bytes) { return None(); }
PinnedArray::~PinnedArray() = default;
absl::StatusOr<Event> Event::Create(int device) { return None(); }
Event::~Event() = default;
absl::Status Event::Record(Queue& queue) { return None(); }
absl::Status Event::Wait() const { return None(); }
absl::StatusOr<double> Event::SecondsSince(const Event& earlier) const { return None(); }
absl::StatusOr<Graph> Graph::Capture(Queue& queue, std::function<absl::Status()> work) {
  return None();
}
Graph::~Graph() = default;
absl::Status Graph::Launch(Queue& queue) { return None(); }

}  // namespace longwave::gpu

namespace longwave {

using gpu::None;

absl::StatusOr<std::shared_ptr<const SsmDeviceFilter>> UploadSsmFilter(const DiagonalSsm& ssm,
                                                                       Dtype dtype,
                                                                       Stream& stream) {
  return None();
}
absl::Status RunSsmConvCuda(const SsmConvPlan& plan, const SsmDeviceFilter& filter,
                            const SsmConvArgs& args, Stream& stream) {
  return None();
}
absl::Status RunH3MixCuda(const H3MixPlan& plan, const SsmDeviceFilter& filter,
                          const H3MixArgs& args, Stream& stream) {
  return None();
}

}  // namespace longwave

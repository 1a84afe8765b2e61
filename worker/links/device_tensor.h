// States in the memory of a GPU, outside of any model: what waits there to be sent, or has been
// received.
//
// Thread safety: the pool is safe, a tensor's memory belongs to whoever fills it until it is
// shared.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/gpu/queue.h"

namespace longwave {

struct DeviceTensor {
  gpu::DeviceArray memory;
  int64_t bytes = 0;
};

// Memory of one GPU that is used again and again: allocating takes its time, and may wait for work
// that is under way.
//
// Lifetime: a tensor may outlive the pool. Whoever lets go of the last pointer to one has made sure
// that no work on the GPU uses it any more.
class DevicePool : public std::enable_shared_from_this<DevicePool> {
 public:
  static std::shared_ptr<DevicePool> Create(int device);
  // Contents undefined. ResourceExhausted where there is no memory.
  absl::StatusOr<std::shared_ptr<DeviceTensor>> Take(int64_t bytes);

 private:
  explicit DevicePool(int device) : device_(device) {}
  const int device_;
  std::mutex mutex_;
  std::map<int64_t, std::vector<std::unique_ptr<DeviceTensor>>> free_;  // by bytes
};

}  // namespace longwave

#include "worker/links/device_tensor.h"

#include <utility>

namespace longwave {

std::shared_ptr<DevicePool> DevicePool::Create(int device) {
  return std::shared_ptr<DevicePool>(new DevicePool(device));
}

absl::StatusOr<std::shared_ptr<DeviceTensor>> DevicePool::Take(int64_t bytes) {
  std::unique_ptr<DeviceTensor> tensor;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& free = free_[bytes];
    if (!free.empty()) {
      tensor = std::move(free.back());
      free.pop_back();
    }
  }
  if (tensor == nullptr) {
    tensor = std::make_unique<DeviceTensor>();
    absl::StatusOr<gpu::DeviceArray> memory = gpu::DeviceArray::Allocate(device_, bytes);
    if (!memory.ok()) return memory.status();
    tensor->memory = *std::move(memory);
    tensor->bytes = bytes;
  }
  return std::shared_ptr<DeviceTensor>(tensor.release(),
                                       [pool = weak_from_this()](DeviceTensor* back) {
                                         std::unique_ptr<DeviceTensor> owned(back);
                                         const std::shared_ptr<DevicePool> alive = pool.lock();
                                         if (alive == nullptr) return;
                                         const std::lock_guard<std::mutex> lock(alive->mutex_);
                                         alive->free_[owned->bytes].push_back(std::move(owned));
                                       });
}

}  // namespace longwave

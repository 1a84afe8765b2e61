// Memory where a device's operators find it: the host's or a GPU's. Contents undefined; aligned to
// a cache line at least.
//
// Errors: ResourceExhausted with the bytes asked for and free on a GPU; std::bad_alloc on the host.
// Thread safety: as std::vector.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/aligned.h"
#include "kernels/gpu/queue.h"
#include "kernels/stream.h"

namespace longwave {

class Array {
 public:
  Array() = default;
  static absl::StatusOr<Array> Allocate(Device device, int64_t bytes) {
    Array array;
    array.bytes_ = bytes;
    if (bytes == 0) return array;
    if (!device.is_gpu()) {
      array.host_ = AllocateFloats((bytes + 3) / 4);
      return array;
    }
    absl::StatusOr<gpu::DeviceArray> memory = gpu::DeviceArray::Allocate(device.index, bytes);
    if (!memory.ok()) return memory.status();
    array.gpu_ = *std::move(memory);
    return array;
  }

  void* data() const { return host_ != nullptr ? host_.get() : gpu_.data(); }
  float* floats() const { return static_cast<float*>(data()); }
  int64_t bytes() const { return bytes_; }

 private:
  AlignedFloats host_;
  gpu::DeviceArray gpu_;
  int64_t bytes_ = 0;
};

// Copies between the host and memory of `stream`'s device; done when they return.
absl::Status CopyIn(void* to, const void* host, int64_t bytes, Stream& stream);
absl::Status CopyOut(void* host, const void* from, int64_t bytes, Stream& stream);
// Queued on a GPU.
absl::Status Copy(void* to, const void* from, int64_t bytes, Stream& stream);
absl::Status FillZeros(const Array& array, Stream& stream);

}  // namespace longwave

// A GPU as operators see it: its properties, its memory, and one queue of work (a CUDA stream) on
// it. Calls that compute or copy are queued and return at once; Synchronize() waits and says what
// went wrong.
//
// Built three times over: with CUDA, with the emulator (tests on machines without a GPU: "device
// memory" is host memory), and as stubs that answer Unimplemented, where there is no CUDA toolkit.
//
// Errors: Unimplemented (a build without CUDA, an unsupported architecture), NotFound (no such
// device), ResourceExhausted (out of memory, with the bytes asked for and free), Internal (a lost
// device, a failed launch), each naming the call and its sizes.
// Thread safety: a Queue belongs to one caller at a time; DeviceArray as std::vector.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace longwave::gpu {

struct Properties {
  std::string name;            // "NVIDIA H100 80GB HBM3"
  int compute_capability = 0;  // 90
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t l2_bytes = 0;
  int64_t shared_bytes = 0;  // of one block at most
};

// Devices that this program can use; 0 where there is no driver or no CUDA in this build.
int DeviceCount();
absl::StatusOr<Properties> GetProperties(int device);
struct MemoryInfo {
  int64_t free_bytes = 0, total_bytes = 0;
};
absl::StatusOr<MemoryInfo> GetMemoryInfo(int device);

// Uninitialised memory of a device, freed with the object. data() is aligned to 256 bytes.
class DeviceArray {
 public:
  DeviceArray() = default;
  static absl::StatusOr<DeviceArray> Allocate(int device, int64_t bytes);
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    return *this;
  }
  ~DeviceArray();

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  int device_ = 0;
};

class Queue {
 public:
  // `urgent`: its work goes before that of other queues, as soon as the GPU has room.
  static absl::StatusOr<std::unique_ptr<Queue>> Open(int device, bool urgent = false);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  int device() const { return device_; }
  const Properties& properties() const { return properties_; }
  CUstream_st* stream() const { return stream_; }

  // Scratch for one operator call at a time, grown to the largest request and kept: after the first
  // call of each shape nothing is allocated. Contents undefined.
  absl::StatusOr<void*> Scratch(int64_t bytes);

  // Queued copies. Host memory must stay until Synchronize(); pinned host memory overlaps.
  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes);
  absl::Status CopyToHost(void* host, const void* device, int64_t bytes);
  absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes);
  // `rows` rows of `bytes` each, with so many bytes between their starts.
  absl::Status CopyRowsOnDevice(void* to, int64_t to_stride, const void* from, int64_t from_stride,
                                int64_t bytes, int64_t rows);
  absl::Status Fill(void* device, int byte, int64_t bytes);
  absl::Status Synchronize();

  // What Gemm keeps: the library's handle, its workspace, and the products planned so far.
  std::shared_ptr<void>& products() { return products_; }

 private:
  Queue() = default;
  int device_ = 0;
  Properties properties_;
  CUstream_st* stream_ = nullptr;
  DeviceArray scratch_;
  std::shared_ptr<void> products_;
};

}  // namespace longwave::gpu

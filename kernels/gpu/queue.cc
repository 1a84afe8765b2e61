// With CUDA, or with the emulator.
#include "kernels/gpu/queue.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/cuda_status.h"

namespace longwave::gpu {

absl::Status ToStatus(cudaError_t error, const std::string& call, const std::string& sizes) {
  if (error == cudaSuccess) return absl::OkStatus();
#ifdef LONGWAVE_EMULATE
  return absl::InternalError(absl::StrCat(call, sizes, ": error ", static_cast<int>(error)));
#else
  const std::string message =
      absl::StrCat(call, sizes.empty() ? "" : " of ", sizes, ": ", cudaGetErrorString(error));
  cudaGetLastError();  // the next call starts clean, where it can
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  if (error == cudaErrorNoKernelImageForDevice) {
    return absl::UnimplementedError(
        absl::StrCat(message, "; this program has code for compute capability 8.x and 9.0"));
  }
  return absl::InternalError(message);
#endif
}

#ifdef LONGWAVE_EMULATE

int DeviceCount() { return 1; }
absl::StatusOr<Properties> GetProperties(int device) {
  if (device != 0)
    return absl::NotFoundError(absl::StrCat("cuda:", device, ": emulated is cuda:0"));
  return Properties{"emulated", 90, 3, int64_t{1} << 33, 1 << 20, 227 << 10};
}
absl::StatusOr<MemoryInfo> GetMemoryInfo(int device) {
  return MemoryInfo{int64_t{1} << 33, int64_t{1} << 33};
}
absl::StatusOr<DeviceArray> DeviceArray::Allocate(int device, int64_t bytes) {
  DeviceArray array;
  array.data_ = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  if (array.data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
  }
  std::memset(array.data_, 0xff, static_cast<size_t>(bytes));  // NaN
  array.bytes_ = bytes;
  return array;
}
DeviceArray::~DeviceArray() { std::free(data_); }
absl::StatusOr<std::unique_ptr<Queue>> Queue::Open(int device, bool urgent) {
  std::unique_ptr<Queue> queue(new Queue);
  absl::StatusOr<Properties> properties = GetProperties(device);
  if (!properties.ok()) return properties.status();
  queue->properties_ = *std::move(properties);
  return queue;
}
Queue::~Queue() = default;
absl::Status Queue::CopyToDevice(void* device, const void* host, int64_t bytes) {
  return CopyOnDevice(device, host, bytes);
}
absl::Status Queue::CopyToHost(void* host, const void* device, int64_t bytes) {
  return CopyOnDevice(host, device, bytes);
}
absl::Status Queue::CopyOnDevice(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return absl::OkStatus();
}
absl::Status Queue::CopyRowsOnDevice(void* to, int64_t to_stride, const void* from,
                                     int64_t from_stride, int64_t bytes, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(static_cast<char*>(to) + i * to_stride,
                static_cast<const char*>(from) + i * from_stride, static_cast<size_t>(bytes));
  }
  return absl::OkStatus();
}
absl::Status Queue::Fill(void* device, int byte, int64_t bytes) {
  std::memset(device, byte, static_cast<size_t>(bytes));
  return absl::OkStatus();
}
absl::Status Queue::Synchronize() { return absl::OkStatus(); }

#else

int DeviceCount() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

absl::StatusOr<Properties> GetProperties(int device) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || device < 0 || device >= count) {
    return absl::NotFoundError(
        absl::StrCat("cuda:", device, ": ",
                     error != cudaSuccess ? cudaGetErrorString(error) : "there is no such device",
                     "; this machine has ", count, " CUDA devices"));
  }
  cudaDeviceProp p;
  error = cudaGetDeviceProperties(&p, device);
  if (error != cudaSuccess) return ToStatus(error, "cudaGetDeviceProperties");
  Properties properties;
  properties.name = p.name;
  properties.compute_capability = 10 * p.major + p.minor;
  properties.multiprocessors = p.multiProcessorCount;
  properties.memory_bytes = static_cast<int64_t>(p.totalGlobalMem);
  properties.l2_bytes = p.l2CacheSize;
  properties.shared_bytes = static_cast<int64_t>(p.sharedMemPerBlockOptin);
  if (properties.compute_capability < 80) {
    return absl::UnimplementedError(absl::StrCat("cuda:", device, " (", properties.name,
                                                 ") has compute capability ", p.major, ".", p.minor,
                                                 "; 8.0 or later is needed"));
  }
  return properties;
}

absl::StatusOr<MemoryInfo> GetMemoryInfo(int device) {
  size_t free = 0, total = 0;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free, &total);
  if (error != cudaSuccess) return ToStatus(error, absl::StrCat("cudaMemGetInfo cuda:", device));
  return MemoryInfo{static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

absl::StatusOr<DeviceArray> DeviceArray::Allocate(int device, int64_t bytes) {
  DeviceArray array;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess && bytes > 0) {
    error = cudaMalloc(&array.data_, static_cast<size_t>(bytes));
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(absl::StrCat("cuda:", device, ": ", bytes,
                                                     " bytes asked for, ", free, " of ", total,
                                                     " bytes are free"));
  }
  if (error != cudaSuccess) return ToStatus(error, "cudaMalloc", absl::StrCat(bytes, " bytes"));
  array.bytes_ = bytes;
  array.device_ = device;
  return array;
}

DeviceArray::~DeviceArray() {
  if (data_ == nullptr) return;
  (void)cudaSetDevice(device_);
  (void)cudaFree(data_);
}

absl::StatusOr<std::unique_ptr<Queue>> Queue::Open(int device, bool urgent) {
  std::unique_ptr<Queue> queue(new Queue);
  absl::StatusOr<Properties> properties = GetProperties(device);
  if (!properties.ok()) return properties.status();
  queue->device_ = device;
  queue->properties_ = *std::move(properties);
  cudaError_t error = cudaSetDevice(device);
  int least = 0, most = 0;
  if (error == cudaSuccess) error = cudaDeviceGetStreamPriorityRange(&least, &most);
  if (error == cudaSuccess) {
    error =
        cudaStreamCreateWithPriority(&queue->stream_, cudaStreamNonBlocking, urgent ? most : least);
  }
  if (error != cudaSuccess) return ToStatus(error, absl::StrCat("cudaStreamCreate cuda:", device));
  return queue;
}

Queue::~Queue() {
  if (stream_ == nullptr) return;
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

namespace {
std::string Bytes(int64_t bytes) { return absl::StrCat(bytes, " bytes"); }
}  // namespace

absl::Status Queue::CopyToDevice(void* device, const void* host, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_),
                  "copy to the device", Bytes(bytes));
}
absl::Status Queue::CopyToHost(void* host, const void* device, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_),
                  "copy from the device", Bytes(bytes));
}
absl::Status Queue::CopyOnDevice(void* to, const void* from, int64_t bytes) {
  return ToStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_),
                  "copy on the device", Bytes(bytes));
}
absl::Status Queue::CopyRowsOnDevice(void* to, int64_t to_stride, const void* from,
                                     int64_t from_stride, int64_t bytes, int64_t rows) {
  return ToStatus(cudaMemcpy2DAsync(to, to_stride, from, from_stride, bytes, rows,
                                    cudaMemcpyDeviceToDevice, stream_),
                  "copy on the device", absl::StrCat(rows, " rows of ", Bytes(bytes)));
}
absl::Status Queue::Fill(void* device, int byte, int64_t bytes) {
  return ToStatus(cudaMemsetAsync(device, byte, bytes, stream_), "fill", Bytes(bytes));
}
absl::Status Queue::Synchronize() {
  return ToStatus(cudaStreamSynchronize(stream_), absl::StrCat("work on cuda:", device_));
}

#endif

absl::StatusOr<void*> Queue::Scratch(int64_t bytes) {
  if (scratch_.bytes() < bytes) {
    absl::Status idle = Synchronize();  // nobody uses the old one any more
    if (!idle.ok()) return idle;
    scratch_ = DeviceArray();
    absl::StatusOr<DeviceArray> larger = DeviceArray::Allocate(device_, bytes);
    if (!larger.ok()) return larger.status();
    scratch_ = *std::move(larger);
  }
  return scratch_.data();
}

}  // namespace longwave::gpu

#include "kernels/array.h"

#include <cstring>

namespace longwave {

absl::Status CopyIn(void* to, const void* host, int64_t bytes, Stream& stream) {
  if (!stream.device().is_gpu()) {
    std::memcpy(to, host, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  absl::Status status = stream.queue().CopyToDevice(to, host, bytes);
  return status.ok() ? stream.queue().Synchronize() : status;
}

absl::Status CopyOut(void* host, const void* from, int64_t bytes, Stream& stream) {
  if (!stream.device().is_gpu()) {
    std::memcpy(host, from, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  absl::Status status = stream.queue().CopyToHost(host, from, bytes);
  return status.ok() ? stream.queue().Synchronize() : status;
}

absl::Status Copy(void* to, const void* from, int64_t bytes, Stream& stream) {
  if (stream.device().is_gpu()) return stream.queue().CopyOnDevice(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return absl::OkStatus();
}

absl::Status FillZeros(const Array& array, Stream& stream) {
  if (array.bytes() == 0) return absl::OkStatus();
  if (stream.device().is_gpu()) return stream.queue().Fill(array.data(), 0, array.bytes());
  std::memset(array.data(), 0, static_cast<size_t>(array.bytes()));
  return absl::OkStatus();
}

}  // namespace longwave

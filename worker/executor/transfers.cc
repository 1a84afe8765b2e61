#include "worker/executor/transfers.h"

#include <algorithm>

#include "kernels/checks.h"
#include "worker/model/weights.h"

namespace longwave {

absl::StatusOr<TokenUpload> TokenUpload::Create(Device device, int64_t most) {
  TokenUpload upload;
  if (!device.is_gpu()) return upload;
  const int64_t bytes = most * int64_t{sizeof(int32_t)};
  LONGWAVE_ASSIGN_OR_RETURN(upload.device_, Array::Allocate(device, bytes));
  for (int i = 0; i < 2; ++i) {
    LONGWAVE_ASSIGN_OR_RETURN(upload.host_[i], gpu::PinnedArray::Allocate(device.index, bytes));
    LONGWAVE_ASSIGN_OR_RETURN(upload.copied_[i], gpu::Event::Create(device.index));
  }
  return upload;
}

absl::StatusOr<const int32_t*> TokenUpload::Send(absl::Span<const int32_t> tokens, Stream& stream) {
  if (!stream.device().is_gpu()) return tokens.data();
  const int slot = static_cast<int>(sent_ % 2);
  if (sent_ >= 2) LONGWAVE_RETURN_IF_ERROR(copied_[slot].Wait());
  ++sent_;
  int32_t* host = host_[slot].as<int32_t>();
  std::copy(tokens.begin(), tokens.end(), host);
  LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyToDevice(
      device_.data(), host, static_cast<int64_t>(tokens.size() * sizeof(int32_t))));
  LONGWAVE_RETURN_IF_ERROR(copied_[slot].Record(stream.queue()));
  return on_device();
}

absl::StatusOr<LossDownload> LossDownload::Create(Device device, int64_t most) {
  LossDownload download;
  download.on_gpu_ = device.is_gpu();
  if (!download.on_gpu_) return download;
  const int64_t bytes = most * int64_t{sizeof(float)};
  LONGWAVE_ASSIGN_OR_RETURN(download.device_, Array::Allocate(device, bytes));
  for (Slot& slot : download.slots_) {
    LONGWAVE_ASSIGN_OR_RETURN(slot.pinned, gpu::PinnedArray::Allocate(device.index, bytes));
    LONGWAVE_ASSIGN_OR_RETURN(slot.done, gpu::Event::Create(device.index));
  }
  return download;
}

LossDownload& LossDownload::operator=(LossDownload&& other) noexcept {
  on_gpu_ = other.on_gpu_;
  device_ = std::move(other.device_);
  std::move(std::begin(other.slots_), std::end(other.slots_), slots_);
  begun_ = other.begun_.load();
  taken_ = other.taken_.load();
  return *this;
}

float* LossDownload::Begin(int64_t count) {
  Slot& slot = slots_[begun_ % kMost];
  slot.count = count;
  if (on_gpu_) return device_.floats();
  slot.values.resize(std::max<size_t>(slot.values.size(), count));
  return slot.values.data();
}

absl::Status LossDownload::End(Stream& stream) {
  Slot& slot = slots_[begun_ % kMost];
  if (on_gpu_) {
    LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyToHost(slot.pinned.as<float>(), device_.data(),
                                                       slot.count * int64_t{sizeof(float)}));
    LONGWAVE_RETURN_IF_ERROR(slot.done.Record(stream.queue()));
  }
  ++begun_;
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> LossDownload::Take() {
  Slot& slot = slots_[taken_ % kMost];
  ++taken_;
  if (on_gpu_) LONGWAVE_RETURN_IF_ERROR(slot.done.Wait());
  return absl::Span<const float>(on_gpu_ ? slot.pinned.as<float>() : slot.values.data(),
                                 static_cast<size_t>(slot.count));
}

}  // namespace longwave

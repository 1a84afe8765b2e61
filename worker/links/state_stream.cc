#include "worker/links/state_stream.h"

namespace longwave {

int64_t StateTensor::size() const {
  if (on_device != nullptr) return on_device->bytes;
  return bytes != nullptr ? static_cast<int64_t>(bytes->size()) : 0;
}

bool StateStream::Put(int64_t index, StateTensor tensor) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (index < 0 || index >= size() || tensors_[index].known()) return false;
    tensors_[index] = std::move(tensor);
    while (first_missing_ < size() && tensors_[first_missing_].known()) ++first_missing_;
  }
  changed_.notify_all();  // who wakes finds the mutex free
  if (put_ != nullptr) put_();
  return true;
}

absl::StatusOr<StateTensor> StateStream::WaitTensor(int64_t index) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return tensors_[index].known() || !failed_.ok(); });
  if (tensors_[index].known()) return tensors_[index];
  return failed_;
}

absl::StatusOr<StateBytes> StateStream::Wait(int64_t index) {
  absl::StatusOr<StateTensor> tensor = WaitTensor(index);
  if (!tensor.ok()) return tensor.status();
  return std::move(tensor->bytes);
}

StateTensor StateStream::GetTensor(int64_t index) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return tensors_[index];
}

int64_t StateStream::first_missing() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return first_missing_;
}

void StateStream::Fail(absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed_.ok()) failed_ = std::move(status);
  changed_.notify_all();
}

}  // namespace longwave

#include "worker/links/state_stream.h"

#include <utility>

namespace longwave {

bool StateStream::Put(int64_t index, StateBytes bytes) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (index < 0 || index >= size() || tensors_[index] != nullptr) return false;
    tensors_[index] = std::move(bytes);
    while (first_missing_ < size() && tensors_[first_missing_] != nullptr) ++first_missing_;
    changed_.notify_all();
  }
  if (put_ != nullptr) put_();
  return true;
}

absl::StatusOr<StateBytes> StateStream::Wait(int64_t index) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return tensors_[index] != nullptr || !failed_.ok(); });
  if (tensors_[index] != nullptr) return tensors_[index];
  return failed_;
}

StateBytes StateStream::Get(int64_t index) const {
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

// What one chunk hands on to the next, tensor after tensor: filled on one side while the chunk is
// computed, waited for on the other. It does not matter who fills it, a chunk of this process, a
// link to another, or a boundary from the object store: the bytes are the same. They are on the
// host, on a GPU, or on both.
//
// Thread safety: safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/worker_probe.h"
#include "worker/links/device_tensor.h"

namespace longwave {

using StateBytes = std::shared_ptr<const std::string>;

// A tensor that is there: on the host, on the GPU of this process, or both.
struct StateTensor {
  StateTensor() = default;
  StateTensor(StateBytes bytes) : bytes(std::move(bytes)) {}  // NOLINT: it is one
  StateTensor(StateBytes bytes, std::shared_ptr<const DeviceTensor> on_device)
      : bytes(std::move(bytes)), on_device(std::move(on_device)) {}

  bool known() const { return bytes != nullptr || on_device != nullptr; }
  int64_t size() const;  // in bytes

  StateBytes bytes;
  std::shared_ptr<const DeviceTensor> on_device;
  Link link = Link::kProcess;  // that brought it here
};

class StateStream {
 public:
  // `put`: called after each tensor that was put, on the thread that put it.
  explicit StateStream(int64_t tensors, std::function<void()> put = nullptr)
      : tensors_(tensors), put_(std::move(put)) {}

  int64_t size() const { return static_cast<int64_t>(tensors_.size()); }
  // A tensor that is there already, or past the end, stays as it was. False: nothing changed.
  bool Put(int64_t index, StateTensor tensor);
  // Until the tensor is there, or Fail(): then that error. REQUIRES: 0 <= index < size().
  absl::StatusOr<StateTensor> WaitTensor(int64_t index);
  StateTensor GetTensor(int64_t index) const;  // not known(): not there
  // Its bytes alone; null where they are on the GPU only: a tensor of a subscribed stream may be,
  // but for the carry, which is never there.
  absl::StatusOr<StateBytes> Wait(int64_t index);
  StateBytes Get(int64_t index) const { return GetTensor(index).bytes; }
  int64_t first_missing() const;  // size() where all are there
  // Ends all waits, now and later, but for tensors that are there.
  void Fail(absl::Status status);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StateTensor> tensors_;
  int64_t first_missing_ = 0;
  absl::Status failed_;
  std::function<void()> put_;
};

}  // namespace longwave

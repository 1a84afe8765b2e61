// The states of chunk after chunk between a model that runs and two streams: that of the chunk
// before, and that of the chunk's own. On a GPU a tensor that goes out is copied aside, and from
// there to pinned memory by a queue of its own; a thread hands on both when they are there. So
// neither the host nor what the model computes waits for copies to the host.
//
// Thread safety: one caller, the thread that runs the model; the streams are safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/async.h"
#include "kernels/stream.h"
#include "worker/links/state_stream.h"
#include "worker/model/state_flow.h"

namespace longwave {

class LinkFlow final : public StateFlow {
 public:
  // `floats`: of each tensor of the model's state.
  static absl::StatusOr<std::unique_ptr<LinkFlow>> Create(Device device,
                                                          std::vector<int64_t> floats);
  ~LinkFlow() override;

  // The next chunk. On a GPU: all but the chunk just before it are computed.
  void Begin(std::shared_ptr<StateStream> before, std::shared_ptr<StateStream> after);

  // InvalidArgument for a tensor of another size than the model's.
  absl::Status Receive(int64_t index, float* to, Stream& stream) override;
  absl::Status Send(int64_t index, const float* from, Stream& stream) override;
  // That Receive() waited for tensors, since Begin().
  double waited_seconds() const { return waited_seconds_; }
  // What brought the tensor that was received last.
  Link received_by() const { return received_by_; }

 private:
  struct Leaving {
    std::shared_ptr<StateStream> stream;
    int64_t index;
    int half;
    std::shared_ptr<const DeviceTensor> on_device;
  };

  explicit LinkFlow(std::vector<int64_t> floats) : floats_(std::move(floats)) {}
  int64_t bytes(int64_t index) const { return floats_[index] * int64_t{sizeof(float)}; }
  void HandOn();  // the thread

  const std::vector<int64_t> floats_;
  std::shared_ptr<StateStream> before_, after_;
  double waited_seconds_ = 0;
  Link received_by_ = Link::kProcess;

  // On a GPU: two of each, for two chunks in turn.
  bool on_gpu_ = false;
  std::shared_ptr<DevicePool> pool_;
  std::unique_ptr<gpu::Queue> out_queue_;
  int half_ = 0;
  std::vector<int64_t> offsets_;  // of each tensor, in floats
  gpu::PinnedArray in_[2], out_[2];
  std::vector<gpu::Event> made_[2], copied_[2];
  std::vector<std::shared_ptr<const DeviceTensor>> used_[2];  // that the model's queue reads
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Leaving> leaving_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace longwave

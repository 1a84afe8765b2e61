// The states of chunk after chunk between a model that runs and two streams: that of the chunk
// before, and that of the chunk's own. On a GPU tensors go through pinned memory, so that the host
// never waits for the device: a thread hands on what has been copied out.
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

 private:
  struct Leaving {
    std::shared_ptr<StateStream> stream;
    int64_t index;
    int half;
  };

  explicit LinkFlow(std::vector<int64_t> floats) : floats_(std::move(floats)) {}
  int64_t bytes(int64_t index) const { return floats_[index] * int64_t{sizeof(float)}; }
  void HandOn();  // the thread

  const std::vector<int64_t> floats_;
  std::shared_ptr<StateStream> before_, after_;
  double waited_seconds_ = 0;

  // On a GPU: two of each, for two chunks in turn.
  bool on_gpu_ = false;
  int half_ = 0;
  std::vector<int64_t> offsets_;  // of each tensor, in floats
  gpu::PinnedArray in_[2], out_[2];
  std::vector<gpu::Event> copied_[2];
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Leaving> leaving_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace longwave

// One end of a one-way link between the GPUs of two processes: a communicator of NCCL with two
// ranks, of which rank 0 sends tensors and rank 1 receives them, in the same order.
//
// A transfer is begun on both sides when the tensor is there, so it keeps a GPU's processor busy
// for some microseconds only, and is waited for on the host: nothing that a model computes ever
// waits for the other process. A transfer that takes too long, an error, or Stop() breaks the link
// for good: what was under way is aborted, and nothing is transferred any more.
//
// Thread safety: safe. A thread of its own makes all calls to NCCL, and calls the functions that it
// is given, which may use the link but must not destroy it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/async.h"
#include "worker/links/device_tensor.h"
#include "worker/links/nccl_api.h"

namespace longwave {

struct NcclLinkOptions {
  std::shared_ptr<NcclApi> api;
  int device = 0;
  std::shared_ptr<DevicePool> pool;                // where received tensors come from
  std::chrono::milliseconds connect_limit{60000};  // for the other side to come
  std::chrono::milliseconds transfer_limit{2000};
};

class NcclLink {
 public:
  enum class Role { kSender, kReceiver };
  enum class State { kConnecting, kUp, kBroken };
  // Called when the tensor is there; never where the link breaks first.
  using ReceivedFn = std::function<void(std::shared_ptr<const DeviceTensor>)>;

  // `changed`: called when the state has changed.
  NcclLink(const NcclLinkOptions& options, Role role, const NcclId& id,
           std::function<void()> changed);
  ~NcclLink();  // Stop(), and waits for the thread

  State state() const { return state_; }
  absl::Status error() const;  // where the link is broken: why
  // The thread is at its end: the destructor does not wait.
  bool ended() const { return ended_; }
  void Stop();

  // The sender's. REQUIRES: the tensor's contents are there.
  void Send(std::shared_ptr<const DeviceTensor> tensor);
  // The receiver's: the next tensor, of so many bytes.
  void Receive(int64_t bytes, ReceivedFn received);

 private:
  using Clock = std::chrono::steady_clock;
  struct Transfer {
    int64_t bytes;
    std::shared_ptr<const DeviceTensor> tensor;  // the sender's
    ReceivedFn received;
  };

  void Run();
  absl::Status Work();
  absl::Status Connect();
  absl::Status Greet();
  absl::Status Do(const Transfer& transfer);
  void Add(Transfer transfer);
  absl::StatusOr<std::shared_ptr<DeviceTensor>> ReceiveNow(int64_t bytes);
  absl::Status SendNow(const DeviceTensor& tensor);
  // Until what was begun is under way, then until the GPU has done it.
  absl::Status Settle(Clock::time_point deadline);
  absl::Status Finish();
  absl::Status Poll(Clock::time_point began, Clock::time_point deadline,
                    const std::function<absl::StatusOr<bool>()>& done);
  void Set(State state, absl::Status error);

  const NcclLinkOptions options_;
  const Role role_;
  const NcclId id_;
  const std::function<void()> changed_fn_;
  std::atomic<State> state_ = State::kConnecting;
  std::atomic<bool> stop_ = false, ended_ = false;
  mutable std::mutex mutex_;  // of these three
  std::condition_variable changed_;
  std::deque<Transfer> transfers_;
  absl::Status error_;

  // The thread's.
  ncclComm* comm_ = nullptr;
  std::unique_ptr<gpu::Queue> queue_;
  gpu::Event done_;
  std::thread thread_;
};

}  // namespace longwave

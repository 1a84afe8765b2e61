// Chunks of one sequence on several threads: each chunk's states go to the next by way of the
// host's memory, as soon as they are there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "worker/model/model.h"
#include "worker/model/state_flow.h"

namespace longwave {

// Thread safety: each flow has one user at a time; flows are used side by side.
class StateChain {
 public:
  // The first of `chunks` chunks starts from zeros.
  StateChain(const Model& model, int64_t chunks, int64_t batch = 1) {
    for (const StateTensorSpec& spec : model.state_specs()) {
      floats_.push_back(batch * spec.elements());
    }
    handed_on_.resize(chunks + 1);
    for (int64_t count : floats_) handed_on_[0].emplace_back(count, 0.0f);
    for (int64_t i = 0; i < chunks; ++i) flows_.emplace_back(this, i);
  }

  StateFlow& flow(int64_t chunk) { return flows_[chunk]; }
  // All that wait, and will, are Cancelled.
  void Cancel() {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  // What a chunk's pass did, in order: "R0" received tensor 0, "S0" sent it.
  const std::string& calls(int64_t chunk) const { return flows_[chunk].calls; }

 private:
  struct Flow : StateFlow {
    Flow(StateChain* chain, int64_t chunk) : chain(chain), chunk(chunk) {}
    absl::Status Receive(int64_t index, float* to, Stream& stream) override {
      absl::StrAppend(&calls, calls.empty() ? "R" : " R", index);
      return chain->Receive(chunk, index, to, stream);
    }
    absl::Status Send(int64_t index, const float* from, Stream& stream) override {
      absl::StrAppend(&calls, calls.empty() ? "S" : " S", index);
      return chain->Send(chunk, index, from, stream);
    }
    StateChain* chain;
    int64_t chunk;
    std::string calls;
  };

  absl::Status Receive(int64_t chunk, int64_t index, float* to, Stream& stream) {
    std::unique_lock<std::mutex> lock(mutex_);
    const HostState& before = handed_on_[chunk];
    changed_.wait(lock, [&] { return cancelled_ || static_cast<int64_t>(before.size()) > index; });
    if (cancelled_) return absl::CancelledError("the chunk is not wanted any more");
    return CopyIn(to, before[index].data(), Bytes(index), stream);
  }

  absl::Status Send(int64_t chunk, int64_t index, const float* from, Stream& stream) {
    std::vector<float> tensor(floats_[index]);
    const absl::Status status = CopyOut(tensor.data(), from, Bytes(index), stream);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (static_cast<int64_t>(handed_on_[chunk + 1].size()) != index) {
      return absl::InternalError(absl::StrCat("tensor ", index, " out of order"));
    }
    handed_on_[chunk + 1].push_back(std::move(tensor));
    changed_.notify_all();
    return status;
  }

  int64_t Bytes(int64_t index) const {
    return floats_[index] * static_cast<int64_t>(sizeof(float));
  }

  std::vector<int64_t> floats_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<HostState> handed_on_;  // to chunk i: by chunk i - 1
  bool cancelled_ = false;
  std::vector<Flow> flows_;
};

}  // namespace longwave

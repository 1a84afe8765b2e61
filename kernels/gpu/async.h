// Work that overlaps and work that is repeated: pinned host memory, points in a queue, and recorded
// work that is launched as one.
//
// Errors and builds as in queue.h. Thread safety: one caller at a time each.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/gpu/queue.h"

struct CUevent_st;  // cudaEvent_t and cudaGraphExec_t are pointers to these
struct CUgraphExec_st;

namespace longwave::gpu {

// Host memory that devices copy from and to while the host goes on. Contents undefined.
class PinnedArray {
 public:
  PinnedArray() = default;
  static absl::StatusOr<PinnedArray> Allocate(int device, int64_t bytes);
  PinnedArray(PinnedArray&& other) noexcept { *this = std::move(other); }
  PinnedArray& operator=(PinnedArray&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~PinnedArray();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

// A point in a queue's work.
class Event {
 public:
  Event() = default;
  static absl::StatusOr<Event> Create(int device);
  Event(Event&& other) noexcept { *this = std::move(other); }
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    std::swap(seconds_, other.seconds_);
    return *this;
  }
  ~Event();

  absl::Status Record(Queue& queue);
  // Until the work before the last Record() is done, and what went wrong on the way.
  absl::Status Wait() const;
  // Whether it is done, without waiting.
  absl::StatusOr<bool> Done() const;
  // What is queued on `queue` from now on, another one of this device, runs after that work.
  absl::Status Precede(Queue& queue) const;
  // From `earlier` to this one. REQUIRES: Wait() has returned for both.
  absl::StatusOr<double> SecondsSince(const Event& earlier) const;

 private:
  CUevent_st* event_ = nullptr;
  double seconds_ = 0;  // in the emulator
};

// Recorded work. What it reads and writes must stay where it was.
class Graph {
 public:
  Graph() = default;
  // Records what `work` queues, without running it; `work` neither allocates, copies from or to
  // pageable memory, nor waits. In the emulator `work` is kept and called by Launch().
  static absl::StatusOr<Graph> Capture(Queue& queue, std::function<absl::Status()> work);
  Graph(Graph&& other) noexcept { *this = std::move(other); }
  Graph& operator=(Graph&& other) noexcept {
    std::swap(graph_, other.graph_);
    std::swap(work_, other.work_);
    return *this;
  }
  ~Graph();

  bool empty() const { return graph_ == nullptr && work_ == nullptr; }
  absl::Status Launch(Queue& queue);

 private:
  CUgraphExec_st* graph_ = nullptr;
  std::function<absl::Status()> work_;
};

}  // namespace longwave::gpu

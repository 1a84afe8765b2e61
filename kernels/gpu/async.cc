// With CUDA, or with the emulator.
#include "kernels/gpu/async.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/cuda_status.h"

namespace longwave::gpu {

#ifdef LONGWAVE_EMULATE

absl::StatusOr<PinnedArray> PinnedArray::Allocate(int device, int64_t bytes) {
  PinnedArray array;
  array.data_ = std::malloc(static_cast<size_t>(bytes > 0 ? bytes : 1));
  if (array.data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes"));
  }
  return array;
}
PinnedArray::~PinnedArray() { std::free(data_); }

absl::StatusOr<Event> Event::Create(int device) { return Event(); }
Event::~Event() = default;
absl::Status Event::Record(Queue& queue) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  seconds_ = std::chrono::duration<double>(now).count();
  return absl::OkStatus();
}
absl::Status Event::Wait() const { return absl::OkStatus(); }
absl::StatusOr<bool> Event::Done() const { return true; }
absl::Status Event::Precede(Queue& queue) const { return absl::OkStatus(); }
absl::StatusOr<double> Event::SecondsSince(const Event& earlier) const {
  return seconds_ - earlier.seconds_;
}

absl::StatusOr<Graph> Graph::Capture(Queue& queue, std::function<absl::Status()> work) {
  Graph graph;
  graph.work_ = std::move(work);
  return graph;
}
Graph::~Graph() = default;
absl::Status Graph::Launch(Queue& queue) { return work_(); }

#else

absl::StatusOr<PinnedArray> PinnedArray::Allocate(int device, int64_t bytes) {
  PinnedArray array;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess && bytes > 0) {
    error = cudaMallocHost(&array.data_, static_cast<size_t>(bytes));
  }
  if (error != cudaSuccess) {
    return ToStatus(error, "cudaMallocHost", absl::StrCat(bytes, " bytes"));
  }
  return array;
}
PinnedArray::~PinnedArray() {
  if (data_ != nullptr) (void)cudaFreeHost(data_);
}

absl::StatusOr<Event> Event::Create(int device) {
  Event event;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaEventCreate(&event.event_);
  if (error != cudaSuccess) return ToStatus(error, "cudaEventCreate");
  return event;
}
Event::~Event() {
  if (event_ != nullptr) (void)cudaEventDestroy(event_);
}
absl::Status Event::Record(Queue& queue) {
  return ToStatus(cudaEventRecord(event_, queue.stream()), "cudaEventRecord");
}
absl::Status Event::Wait() const {
  return ToStatus(cudaEventSynchronize(event_), "work on the device");
}
absl::StatusOr<bool> Event::Done() const {
  const cudaError_t error = cudaEventQuery(event_);
  if (error == cudaErrorNotReady) return false;
  if (error != cudaSuccess) return ToStatus(error, "work on the device");
  return true;
}
absl::Status Event::Precede(Queue& queue) const {
  return ToStatus(cudaStreamWaitEvent(queue.stream(), event_, 0), "cudaStreamWaitEvent");
}
absl::StatusOr<double> Event::SecondsSince(const Event& earlier) const {
  float milliseconds = 0;
  const cudaError_t error = cudaEventElapsedTime(&milliseconds, earlier.event_, event_);
  if (error != cudaSuccess) return ToStatus(error, "cudaEventElapsedTime");
  return milliseconds * 1e-3;
}

absl::StatusOr<Graph> Graph::Capture(Queue& queue, std::function<absl::Status()> work) {
  cudaError_t error = cudaStreamBeginCapture(queue.stream(), cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) return ToStatus(error, "cudaStreamBeginCapture");
  const absl::Status worked = work();
  cudaGraph_t recorded = nullptr;
  error = cudaStreamEndCapture(queue.stream(), &recorded);
  Graph graph;
  if (worked.ok() && error == cudaSuccess) error = cudaGraphInstantiate(&graph.graph_, recorded, 0);
  if (recorded != nullptr) (void)cudaGraphDestroy(recorded);
  if (!worked.ok()) return worked;
  if (error != cudaSuccess) return ToStatus(error, "recording a CUDA graph");
  return graph;
}
Graph::~Graph() {
  if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
}
absl::Status Graph::Launch(Queue& queue) {
  return ToStatus(cudaGraphLaunch(graph_, queue.stream()), "cudaGraphLaunch");
}

#endif

}  // namespace longwave::gpu

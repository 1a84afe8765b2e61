#include "worker/links/link_flow.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

StateBytes BytesOf(const void* from, int64_t count) {
  return std::make_shared<const std::string>(static_cast<const char*>(from),
                                             static_cast<size_t>(count));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LinkFlow>> LinkFlow::Create(Device device,
                                                           std::vector<int64_t> floats) {
  std::unique_ptr<LinkFlow> flow(new LinkFlow(std::move(floats)));
  flow->on_gpu_ = device.is_gpu();
  if (!device.is_gpu()) return flow;
  int64_t all = 0;
  for (const int64_t count : flow->floats_) {
    flow->offsets_.push_back(all);
    all += count;
  }
  const int64_t total = all * int64_t{sizeof(float)};
  flow->pool_ = DevicePool::Create(device.index);
  LONGWAVE_ASSIGN_OR_RETURN(flow->out_queue_, gpu::Queue::Open(device.index));
  for (int half = 0; half < 2; ++half) {
    LONGWAVE_ASSIGN_OR_RETURN(flow->in_[half], gpu::PinnedArray::Allocate(device.index, total));
    LONGWAVE_ASSIGN_OR_RETURN(flow->out_[half], gpu::PinnedArray::Allocate(device.index, total));
    for (size_t i = 0; i < flow->floats_.size(); ++i) {
      for (std::vector<gpu::Event>* events : {&flow->made_[half], &flow->copied_[half]}) {
        gpu::Event event;
        LONGWAVE_ASSIGN_OR_RETURN(event, gpu::Event::Create(device.index));
        events->push_back(std::move(event));
      }
    }
  }
  flow->thread_ = std::thread([flow = flow.get()] { flow->HandOn(); });
  return flow;
}

LinkFlow::~LinkFlow() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LinkFlow::Begin(std::shared_ptr<StateStream> before, std::shared_ptr<StateStream> after) {
  before_ = std::move(before);
  after_ = std::move(after);
  half_ = 1 - half_;
  waited_seconds_ = 0;
  // What the chunk before the last one handed on has left this half.
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return leaving_.empty() || leaving_.front().half != half_; });
  used_[half_].clear();
}

absl::Status LinkFlow::Receive(int64_t index, float* to, Stream& stream) {
  const auto began = std::chrono::steady_clock::now();
  const absl::StatusOr<StateTensor> tensor = before_->WaitTensor(index);
  waited_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!tensor.ok()) return tensor.status();
  if (tensor->size() != bytes(index)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", index, " of the chunk before has ",
                                                   tensor->size(), " bytes, the model's has ",
                                                   bytes(index)));
  }
  received_by_ = tensor->link;
  if (!on_gpu_) {
    std::memcpy(to, tensor->bytes->data(), tensor->bytes->size());
    return absl::OkStatus();
  }
  if (tensor->on_device != nullptr) {
    used_[half_].push_back(tensor->on_device);
    return stream.queue().CopyOnDevice(to, tensor->on_device->memory.data(), bytes(index));
  }
  float* pinned = in_[half_].as<float>() + offsets_[index];
  std::memcpy(pinned, tensor->bytes->data(), tensor->bytes->size());
  return stream.queue().CopyToDevice(to, pinned, bytes(index));
}

absl::Status LinkFlow::Send(int64_t index, const float* from, Stream& stream) {
  if (!on_gpu_) {
    after_->Put(index, BytesOf(from, bytes(index)));
    return absl::OkStatus();
  }
  std::shared_ptr<DeviceTensor> aside;
  LONGWAVE_ASSIGN_OR_RETURN(aside, pool_->Take(bytes(index)));
  used_[half_].push_back(aside);
  gpu::Event& made = made_[half_][index];
  LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyOnDevice(aside->memory.data(), from, bytes(index)));
  LONGWAVE_RETURN_IF_ERROR(made.Record(stream.queue()));
  LONGWAVE_RETURN_IF_ERROR(made.Precede(*out_queue_));
  LONGWAVE_RETURN_IF_ERROR(out_queue_->CopyToHost(out_[half_].as<float>() + offsets_[index],
                                                  aside->memory.data(), bytes(index)));
  LONGWAVE_RETURN_IF_ERROR(copied_[half_][index].Record(*out_queue_));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    leaving_.push_back({after_, index, half_, std::move(aside)});
  }
  changed_.notify_all();
  return absl::OkStatus();
}

void LinkFlow::HandOn() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !leaving_.empty(); });
    if (leaving_.empty()) return;
    const Leaving next = leaving_.front();
    lock.unlock();
    const absl::Status copied = copied_[next.half][next.index].Wait();
    if (copied.ok()) {
      StateBytes on_host =
          BytesOf(out_[next.half].as<float>() + offsets_[next.index], bytes(next.index));
      next.stream->Put(next.index, {std::move(on_host), next.on_device});
    } else {
      next.stream->Fail(copied);
    }
    lock.lock();
    leaving_.pop_front();
    changed_.notify_all();
  }
}

}  // namespace longwave

#include "services/cluster/dispatch_loop.h"

#include <utility>

#include "services/cluster/api.h"

namespace longwave {
namespace {

constexpr int64_t kTickMs = 100;  // leases and retries are looked at so often

}  // namespace

DispatchLoop::DispatchLoop(JobStore& store, const DispatcherOptions& options,
                           std::unique_ptr<MessageSocket> socket,
                           std::function<void(const absl::Status&)> health)
    : socket_(std::move(socket)),
      dispatcher_(store, options,
                  [this](const std::string& worker, const Message& message) {
                    return socket_->Send(worker, message);
                  }),
      health_(std::move(health)) {}

DispatchLoop::~DispatchLoop() {
  stop_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
}

absl::Status DispatchLoop::Start() {
  absl::Status started = dispatcher_.Start(WallClockMs());
  if (started.ok()) thread_ = std::thread([this] { Run(); });
  return started;
}

void DispatchLoop::Post(std::function<void()> work) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    posted_.push_back(std::move(work));
  }
  Wake();
}

void DispatchLoop::WorkerEnded(const std::string& worker) {
  // A failure leaves the lease to run out.
  Post([this, worker] { dispatcher_.WorkerEnded(worker, WallClockMs()).IgnoreError(); });
}

void DispatchLoop::StartDrain() {
  Post([this] { dispatcher_.StartDrain(); });
}

size_t DispatchLoop::workers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return workers_.size();
}

std::vector<WorkerInfo> DispatchLoop::Workers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return workers_;
}

void DispatchLoop::Run() {
  bool well = true;
  while (!stop_) {
    socket_->Wait(kTickMs);
    std::vector<std::function<void()>> posted;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      posted.swap(posted_);
    }
    for (const auto& work : posted) work();
    while (std::optional<Received> received = socket_->Receive()) {
      // What is no message is from no worker of ours: it gets no answer.
      if (received->message.ok()) {
        dispatcher_.Receive(received->peer, *received->message, WallClockMs());
      }
    }
    const absl::Status status = dispatcher_.Tick(WallClockMs());
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      workers_ = dispatcher_.Workers();
    }
    if (status.ok() != well) {
      well = status.ok();
      health_(status);
    }
  }
}

}  // namespace longwave

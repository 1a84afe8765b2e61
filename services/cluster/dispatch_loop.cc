#include "services/cluster/dispatch_loop.h"

#include <utility>

#include "observability/log.h"
#include "services/cluster/api.h"

namespace longwave {
namespace {

constexpr int64_t kTickMs = 100;   // leases and retries are looked at so often
constexpr int64_t kBeatMs = 1000;  // and who leads
constexpr int64_t kTellMs = 1000;  // and metrics of workers

}  // namespace

DispatchLoop::DispatchLoop(JobStore& store, const DispatcherOptions& options,
                           std::unique_ptr<MessageSocket> socket, const std::string& advertise,
                           std::function<void(const absl::Status&)> health)
    : store_(store),
      options_(options),
      socket_(std::move(socket)),
      endpoint_(advertise.empty() ? socket_->endpoint() : advertise),
      leadership_(store.database(), NewId(), endpoint_),
      health_(std::move(health)) {}

DispatchLoop::~DispatchLoop() {
  stop_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
}

void DispatchLoop::Start() {
  thread_ = std::thread([this] { Run(); });
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
  Post([this, worker] {
    if (dispatcher_ != nullptr) dispatcher_->WorkerEnded(worker, WallClockMs()).IgnoreError();
  });
}

void DispatchLoop::StartDrain() {
  Post([this] {
    draining_ = true;
    if (dispatcher_ != nullptr) dispatcher_->StartDrain();
  });
}

size_t DispatchLoop::workers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return workers_.size();
}

std::vector<WorkerInfo> DispatchLoop::Workers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return workers_;
}

absl::Status DispatchLoop::Beat() {
  const int64_t now = WallClockMs();
  if (now < beat_ms_ + kBeatMs) return absl::OkStatus();
  beat_ms_ = now;
  const absl::StatusOr<Leader> leader = leadership_.Beat();
  if (!leader.ok()) return leader.status();
  const bool led = dispatcher_ != nullptr && leader_.term == leader->term;
  leader_ = *leader;
  if (!leader_.self) {
    Follow(leader_);
  } else if (!led) {
    Lead(leader_);
  }
  return absl::OkStatus();
}

void DispatchLoop::Lead(const Leader& leader) {
  log::Info("leads", {{"term", leader.term}, {"endpoint", endpoint_}});
  store_.SetTerm(leader.term);
  dispatcher_ = std::make_unique<Dispatcher>(
      store_, options_, [this](const std::string& worker, const Message& message) {
        return socket_->Send(worker, message);
      });
  const absl::Status started = dispatcher_->Start(WallClockMs());
  if (!started.ok()) {
    log::Error("cannot lead", {{"error", started.message()}});
    dispatcher_.reset();
    return;
  }
  if (draining_) dispatcher_->StartDrain();
  dispatched_ = 0;
  leads_ = true;
  options_.probe->Leads(true, leader.term);
}

void DispatchLoop::Follow(const Leader& leader) {
  if (dispatcher_ != nullptr) {
    log::Warning("leads no longer", {{"term", leader.term}, {"leader", leader.endpoint}});
  }
  dispatcher_.reset();
  leads_ = false;
  options_.probe->Leads(false, leader.term);
}

void DispatchLoop::Receive() {
  while (std::optional<Received> received = socket_->Receive()) {
    if (!received->message.ok()) continue;  // from no worker of ours: it gets no answer
    if (dispatcher_ != nullptr) {
      dispatcher_->Receive(received->peer, *received->message, WallClockMs());
    } else if (!leader_.self && !leader_.endpoint.empty()) {
      socket_->Send(received->peer, Redirect{leader_.endpoint});
    }
  }
}

void DispatchLoop::TellProbe() {
  told_ms_ = WallClockMs();
  using State = ServerProbe::WorkerState;
  for (const WorkerInfo& worker : dispatcher_->Workers()) {
    const State state = worker.slots == 0       ? State::kDraining
                        : worker.chunks.empty() ? State::kIdle
                                                : State::kBusy;
    options_.probe->WorkerIs(worker.name, worker.device, state);
  }
}

// All that the scheduler does is for the chunks that it gives out: messages, commits, leases.
void DispatchLoop::TellDispatch(std::chrono::steady_clock::duration took) {
  unsaid_ += took;
  const int64_t chunks = dispatcher_->dispatched() - dispatched_;
  for (int64_t i = 0; i < chunks; ++i) {
    options_.probe->DispatchTook(std::chrono::duration<double>(unsaid_).count() /
                                 static_cast<double>(chunks));
  }
  if (chunks > 0) unsaid_ = {};
  dispatched_ += chunks;
}

void DispatchLoop::TellWorkers() {
  const size_t count = dispatcher_ == nullptr ? 0 : dispatcher_->workers();
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (count == workers_.size() && now < copied_ + std::chrono::milliseconds(kTickMs)) return;
  workers_ = count == 0 ? std::vector<WorkerInfo>() : dispatcher_->Workers();
  copied_ = now;
}

void DispatchLoop::Run() {
  bool well = true;
  while (!stop_) {
    socket_->Wait(kTickMs);
    absl::Status status = Beat();
    std::vector<std::function<void()>> posted;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      posted.swap(posted_);
    }
    const auto began = std::chrono::steady_clock::now();
    for (const auto& work : posted) work();
    Receive();
    if (dispatcher_ != nullptr) {
      const absl::Status ticked = dispatcher_->Tick(WallClockMs());
      if (absl::IsAborted(ticked)) {
        log::Warning("what it writes is refused",
                     {{"term", leader_.term}, {"error", ticked.message()}});
        beat_ms_ = 0;  // another leads: the next turn tells who
        Follow(leader_);
      } else {
        status.Update(ticked);
      }
    }
    if (dispatcher_ != nullptr) TellDispatch(std::chrono::steady_clock::now() - began);
    if (dispatcher_ != nullptr && WallClockMs() >= told_ms_ + kTellMs) TellProbe();
    TellWorkers();
    if (status.ok() != well) {
      well = status.ok();
      health_(status);
    }
  }
  if (leads_) leadership_.Resign().IgnoreError();
}

}  // namespace longwave

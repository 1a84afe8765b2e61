#include "services/cluster/worker_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

// The tokens of a chunk may take so much; the scheduler gives no longer chunk.
constexpr int64_t kCreditBytes = int64_t{1} << 30;
constexpr int64_t kFirstHeartbeatMs = 500;  // until the scheduler has said its own
constexpr int64_t kStopLookMs = 100;        // how soon a signal is seen

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

WorkerLoop::~WorkerLoop() {
  if (thread_.joinable()) thread_.join();
}

absl::Status WorkerLoop::Run(const std::function<bool()>& stop) {
  int64_t spoken_ms = 0, leaving_ms = 0;
  welcome_.heartbeat_ms = kFirstHeartbeatMs;
  while (true) {
    leaving_ = leaving_ || stop();
    if (leaving_ && leaving_ms == 0) leaving_ms = NowMs();
    if (Computing()) leaving_ms = leaving_ms == 0 ? 0 : NowMs();  // only silence counts
    const bool given_up = leaving_ms > 0 && NowMs() > leaving_ms + welcome_.lease_ms;
    if (leaving_ && !Computing() && (!work_.has_value() || given_up)) {
      socket_->Send("", Goodbye{});
      return health_;
    }
    if (NowMs() >= spoken_ms + welcome_.heartbeat_ms) {
      Speak();
      spoken_ms = NowMs();
    }
    socket_->Wait(std::clamp<int64_t>(spoken_ms + welcome_.heartbeat_ms - NowMs(), 0, kStopLookMs));
    TakeResult();
    while (std::optional<Received> received = socket_->Receive()) {
      absl::Status status =
          received->message.ok() ? Handle(*received->message) : received->message.status();
      if (!status.ok()) return status;
    }
  }
}

void WorkerLoop::Speak() {
  if (!known_) {
    socket_->Send("", Hello{kProtocolVersion, device_});
  } else if (result_.has_value()) {
    socket_->Send("", *result_);
  } else if (work_.has_value()) {
    socket_->Send("", Progress{work_->key});
  } else if (!leaving_) {
    socket_->Send("", Ready{kCreditBytes});
  }
}

absl::Status WorkerLoop::Handle(const Message& message) {
  if (const auto* welcome = std::get_if<Welcome>(&message)) {
    welcome_ = *welcome;
    welcome_.heartbeat_ms = std::max<int64_t>(welcome_.heartbeat_ms, 1);
    if (execute_ == nullptr) {
      absl::StatusOr<ExecuteFn> execute = prepare_(welcome_);
      if (!execute.ok()) return execute.status();
      execute_ = *std::move(execute);
    }
    known_ = true;
    Speak();
  } else if (std::holds_alternative<Unknown>(message)) {
    known_ = false;
    Speak();
  } else if (const auto* assign = std::get_if<Assign>(&message)) {
    if (work_.has_value()) {
      Speak();  // the same again, or one that waits for its answer: the scheduler learns which
    } else if (leaving_ || execute_ == nullptr) {
      socket_->Send("", HandBack{assign->key});
    } else {
      Start(*assign);
    }
  } else if (const auto* committed = std::get_if<Committed>(&message)) {
    Settled(committed->key);
  } else if (const auto* dropped = std::get_if<Dropped>(&message)) {
    Settled(dropped->key);
  } else if (std::holds_alternative<Drain>(message)) {
    leaving_ = true;
  }
  return absl::OkStatus();
}

void WorkerLoop::Start(const Assign& assign) {
  work_ = assign;
  thread_ = std::thread([this, assign] { Compute(assign); });
  Speak();
}

void WorkerLoop::Compute(const Assign& assign) {
  Executed result{Failed{assign.key, false, "out of memory"}, absl::OkStatus()};
  try {
    result = execute_(assign);
  } catch (const std::bad_alloc&) {
  } catch (const std::exception& e) {
    result.message = Failed{assign.key, false, e.what()};
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  computed_ = std::move(result);
  socket_->waker().Wake();
}

void WorkerLoop::TakeResult() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!computed_.has_value()) return;
    result_ = std::move(computed_->message);
    health_ = std::move(computed_->health);
    computed_.reset();
  }
  leaving_ = leaving_ || !health_.ok();
  thread_.join();
  Speak();
}

void WorkerLoop::Settled(const ChunkKey& key) {
  // A chunk that was dropped while it is computed goes on to its end: its result is refused then.
  if (!result_.has_value() || work_->key != key) return;
  work_.reset();
  result_.reset();
  Speak();
}

}  // namespace longwave

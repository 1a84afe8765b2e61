#include "services/cluster/worker_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "observability/log.h"

namespace longwave {
namespace {

// The tokens of a chunk may take so much; the scheduler gives no longer chunk.
constexpr int64_t kCreditBytes = int64_t{1} << 30;
constexpr int64_t kFirstHeartbeatMs = 500;  // until the scheduler has said its own
constexpr int64_t kStopLookMs = 100;        // how soon a signal is seen
constexpr int64_t kRestHeartbeats = 2;      // after a drain
constexpr int64_t kSayRestMs = 60000;       // not more often

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

absl::Status WorkerLoop::Run(const std::function<bool()>& stop) {
  int64_t spoken_ms = 0;
  welcome_.heartbeat_ms = kFirstHeartbeatMs;
  welcome_.lease_ms = options_.silence_ms;
  started_ms_ = heard_ms_ = tried_ms_ = NowMs();
  while (true) {
    if (!for_good_ && stop()) Leave(true);
    const int64_t pause = leaving_ && held_.empty() ? 0 : kStopLookMs;
    const int64_t speak_ms = std::max(spoken_ms + welcome_.heartbeat_ms, rest_until_ms_);
    socket_->Wait(std::clamp<int64_t>(speak_ms - NowMs(), 0, pause));
    TakeResults();
    // First what has come: where this thread could not run for a while, the scheduler was not
    // silent.
    while (std::optional<Received> received = socket_->Receive()) {
      heard_ms_ = NowMs();
      absl::Status status =
          received->message.ok() ? Handle(*received->message) : received->message.status();
      if (!status.ok()) return status;
    }
    // Without a scheduler nothing can be committed, and states that the chunk waits for never come.
    const int64_t patience = std::max(welcome_.lease_ms, 2 * welcome_.heartbeat_ms);
    const bool alone = NowMs() > heard_ms_ + patience;
    if (leaving_ && (held_.empty() || alone)) {
      if (held_.empty() || for_good_) socket_->Send("", Goodbye{!health_.ok()});
      if (for_good_) return health_;
      Rest();
    }
    if (NowMs() >= std::max(spoken_ms + welcome_.heartbeat_ms, rest_until_ms_)) {
      if (resting_) {
        resting_ = false;
        TryNextServer();
      } else {
        LeaveSilentServer();
      }
      Speak();
      spoken_ms = NowMs();
    }
  }
}

void WorkerLoop::Speak() {
  if (resting_) return;
  // Hello is answered, and reports of which all is right are not: one that leaves, or heard nothing
  // for a while, learns whether the scheduler is still there.
  if (!known_ || leaving_ || NowMs() >= heard_ms_ + welcome_.lease_ms / 2) {
    socket_->Send("", Hello{kProtocolVersion, options_.device, options_.links,
                            NowMs() - started_ms_, options_.uid});
  }
  if (!known_) return;
  Report report{leaving_ ? 0 : options_.slots, kCreditBytes, {}};
  for (const auto& [key, held] : held_) report.held.push_back(held.key);
  socket_->Send("", report);
  for (const auto& [key, held] : held_) {
    if (held.result.has_value()) socket_->Send("", *held.result);
  }
}

absl::Status WorkerLoop::Handle(const Message& message) {
  if (const auto* welcome = std::get_if<Welcome>(&message)) {
    welcome_ = *welcome;
    welcome_.heartbeat_ms = std::max<int64_t>(welcome_.heartbeat_ms, 1);
    if (pipeline_ == nullptr) {
      auto pipeline = prepare_(welcome_, [this](const ChunkPipeline::Finished& finished) {
        const std::lock_guard<std::mutex> lock(mutex_);
        finished_.push_back(finished);
        socket_->waker().Wake();
      });
      if (!pipeline.ok()) return pipeline.status();
      pipeline_ = *std::move(pipeline);
    }
    Known(true);
    Speak();
  } else if (std::holds_alternative<Unknown>(message)) {
    Known(false);
    Speak();
  } else if (const auto* assign = std::get_if<Assign>(&message)) {
    Take(*assign);
  } else if (const auto* ready = std::get_if<BoundaryReady>(&message)) {
    if (Find(ready->key) != nullptr) pipeline_->BoundaryReady(ready->key, ready->boundary);
  } else if (const auto* committed = std::get_if<Committed>(&message)) {
    Settled(committed->key, true);
  } else if (const auto* dropped = std::get_if<Dropped>(&message)) {
    Settled(dropped->key, false);
  } else if (std::holds_alternative<Drain>(message)) {
    Leave(!options_.stays);
  } else if (const auto* redirect = std::get_if<Redirect>(&message)) {
    return Follow(redirect->endpoint);
  }
  return absl::OkStatus();
}

void WorkerLoop::Known(bool known) {
  known_ = known;
  options_.probe->Connected(known);
}

WorkerLoop::Held* WorkerLoop::Find(const ChunkKey& key) {
  const auto found = held_.find({key.job, key.chunk});
  return found != held_.end() && found->second.key == key ? &found->second : nullptr;
}

void WorkerLoop::Take(const Assign& assign) {
  const ChunkKey& key = assign.key;
  if (Find(key) != nullptr) return;  // the same again
  if (leaving_ || pipeline_ == nullptr) {
    socket_->Send("", HandBack{key});
    return;
  }
  const auto older = held_.find({key.job, key.chunk});
  if (older != held_.end()) {
    if (older->second.key.epoch > key.epoch) return;  // of an older epoch, late
    Settled(ChunkKey(older->second.key), false);
  }
  held_[{key.job, key.chunk}] = {key, std::nullopt};
  pipeline_->Add(assign);
}

// The chunk in work is finished; those that wait for it are not begun.
void WorkerLoop::Leave(bool for_good) {
  for_good_ = for_good_ || for_good;
  if (leaving_) return;
  leaving_ = true;
  if (pipeline_ == nullptr) return;
  for (const ChunkKey& key : pipeline_->TakeBackQueued()) {
    socket_->Send("", HandBack{key});
    held_.erase({key.job, key.chunk});
  }
  Speak();
}

// The server takes no more work from here: it is about to end, or of another version.
void WorkerLoop::Rest() {
  leaving_ = false;
  resting_ = true;
  Known(false);
  const int64_t now = NowMs();
  if (rest_until_ms_ == 0 || now >= said_ms_ + kSayRestMs) {
    log::Info("the server drains, or is of another version: waits for one that is not",
              {{"endpoint", socket_->endpoint()}});
    said_ms_ = now;
  }
  rest_until_ms_ = now + kRestHeartbeats * welcome_.heartbeat_ms;
}

void WorkerLoop::TakeResults() {
  std::vector<ChunkPipeline::Finished> finished;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished.swap(finished_);
  }
  for (ChunkPipeline::Finished& one : finished) {
    health_.Update(one.health);
    const ChunkKey key = std::visit(
        [](const auto& message) {
          if constexpr (requires { message.key; }) return message.key;
          return ChunkKey();
        },
        one.message);
    Held* held = Find(key);
    if (held == nullptr) continue;  // dropped meanwhile
    if (const auto* failed = std::get_if<Failed>(&one.message)) {
      options_.probe->ChunkFailed();
      log::Warning(
          "chunk failed",
          {{"job", key.job}, {"chunk", key.chunk}, {"epoch", key.epoch}, {"error", failed->error}});
    }
    socket_->Send("", one.message);
    held->result = std::move(one.message);
  }
  if (!health_.ok()) {
    options_.probe->DeviceHealth(false);
    Leave(true);
  }
}

absl::Status WorkerLoop::Connect(const std::string& endpoint) {
  auto socket = options_.connect(endpoint);
  if (!socket.ok()) return socket.status();
  const std::lock_guard<std::mutex> lock(mutex_);  // the pipeline's threads wake the socket's loop
  socket_ = *std::move(socket);
  tried_ms_ = NowMs();
  Known(false);
  return absl::OkStatus();
}

absl::Status WorkerLoop::Follow(const std::string& endpoint) {
  if (options_.connect == nullptr || endpoint == socket_->endpoint()) return absl::OkStatus();
  // The server does not know yet that the one that led is gone: it is asked again.
  if (endpoint == silent_ && NowMs() < silent_until_ms_) return absl::OkStatus();
  log::Info("follows the server that leads", {{"endpoint", endpoint}});
  return Connect(endpoint);
}

void WorkerLoop::LeaveSilentServer() {
  if (options_.connect == nullptr || options_.servers.empty()) return;
  const int64_t patience = std::max(welcome_.lease_ms, 2 * welcome_.heartbeat_ms);
  if (NowMs() < std::max(heard_ms_, tried_ms_) + patience) return;
  if (options_.servers.size() == 1 && socket_->endpoint() == options_.servers[0] &&
      NowMs() < std::max(heard_ms_, tried_ms_) + 4 * patience) {
    return;  // ZeroMQ tries that one again itself; its name may lead to another server meanwhile
  }
  silent_ = socket_->endpoint();
  silent_until_ms_ = NowMs() + 2 * welcome_.lease_ms;
  log::Warning("the server is silent", {{"endpoint", silent_}});
  TryNextServer();
}

void WorkerLoop::TryNextServer() {
  server_ = (server_ + 1) % options_.servers.size();
  const std::string& next = options_.servers[server_];
  tried_ms_ = NowMs();
  const absl::Status connected = Connect(next);
  if (!connected.ok()) {
    log::Warning("cannot connect", {{"endpoint", next}, {"error", connected.message()}});
  }
}

void WorkerLoop::Settled(const ChunkKey& key, bool committed) {
  if (Find(key) == nullptr) return;
  held_.erase({key.job, key.chunk});
  if (committed) {
    pipeline_->Committed(key);
  } else {
    options_.probe->ChunkDropped();
    pipeline_->Drop(key);
  }
}

}  // namespace longwave

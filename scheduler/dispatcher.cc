#include "scheduler/dispatcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr int64_t kHeartbeatsInALease = 6;
constexpr int64_t kFinishAtOnce = 16;  // jobs in one Tick

}  // namespace

absl::Status Dispatcher::Start(int64_t now_ms) {
  const absl::StatusOr<std::vector<LeasedChunk>> leased = store_.Leased();
  if (!leased.ok()) return leased.status();
  for (const LeasedChunk& chunk : *leased) {
    leases_[chunk.key.job] = {chunk.key, chunk.worker, now_ms + options_.lease_ms, std::nullopt};
  }
  return absl::OkStatus();
}

Dispatcher::Held* Dispatcher::Find(const ChunkKey& key) {
  auto found = leases_.find(key.job);
  return found != leases_.end() && found->second.key == key ? &found->second : nullptr;
}

Dispatcher::Held* Dispatcher::HeldBy(const std::string& worker) {
  for (auto& [job, held] : leases_) {
    if (held.worker == worker) return &held;
  }
  return nullptr;
}

void Dispatcher::Receive(const std::string& worker, const Message& message, int64_t now_ms) {
  now_ms_ = now_ms;
  auto known = workers_.find(worker);
  if (known == workers_.end() && !std::holds_alternative<Hello>(message)) {
    if (!std::holds_alternative<Goodbye>(message)) send_(worker, Unknown{});
    return;
  }
  if (known != workers_.end()) known->second.seen_ms = now_ms;
  std::visit([&](const auto& content) { On(worker, content); }, message);
}

void Dispatcher::On(const std::string& worker, const Hello& message) {
  if (message.version != kProtocolVersion) {
    send_(worker, Drain{});
    return;
  }
  Worker& now = workers_[worker];
  now.device = message.device;
  now.seen_ms = now_ms_;
  send_(worker, Welcome{objects_.uri(), options_.models, options_.lease_ms / kHeartbeatsInALease,
                        options_.lease_ms});
  if (draining_) send_(worker, Drain{});
}

void Dispatcher::On(const std::string& worker, const Ready& message) {
  Held* held = HeldBy(worker);
  if (held == nullptr) {
    workers_[worker].credit_bytes = message.credit_bytes;
  } else if (held->assign.has_value()) {
    send_(worker, *held->assign);  // it was lost, or is under way: then the worker ignores this one
  } else if (const ChunkKey key = held->key; store_.HandBack(key).ok()) {
    // Leased by a scheduler that ended before it could say so.
    leases_.erase(key.job);
    workers_[worker].credit_bytes = message.credit_bytes;
  }
}

void Dispatcher::On(const std::string& worker, const Progress& message) {
  Held* held = Find(message.key);
  if (held != nullptr && held->worker == worker) {
    held->until_ms = now_ms_ + options_.lease_ms;
  } else {
    send_(worker, Dropped{message.key, "the chunk is not leased under this epoch"});
  }
}

void Dispatcher::Settle(const std::string& worker, const ChunkKey& key, const absl::Status& status,
                        const char* reason) {
  if (!status.ok() && !absl::IsAborted(status) && !absl::IsNotFound(status)) {
    return;  // the store is not well: the worker asks again
  }
  if (Find(key) != nullptr) leases_.erase(key.job);
  send_(worker, Dropped{key, status.ok() ? reason : std::string(status.message())});
}

void Dispatcher::On(const std::string& worker, const Done& message) {
  const absl::StatusOr<std::vector<absl::StatusOr<Job>>> answers =
      store_.CommitChunks({{message.key,
                            {message.key.chunk, message.key.epoch, message.output_bytes,
                             message.output_sha256, message.boundary_sha256}}},
                          now_ms_);
  const absl::StatusOr<Job> job = answers.ok() ? answers->front() : answers.status();
  if (absl::IsAborted(job.status()) || absl::IsNotFound(job.status())) {
    // Nobody will ever name these. A failure to remove them leaves litter, nothing worse.
    for (auto* name : {OutputName, BoundaryName}) {
      objects_.Delete(name(message.key.job, message.key.epoch, message.key.chunk)).IgnoreError();
    }
  }
  if (!job.ok()) {
    Settle(worker, message.key, job.status(), "");
    return;
  }
  if (Find(message.key) != nullptr) leases_.erase(message.key.job);
  complete_ = complete_ || job->committed >= job->chunks();
  send_(worker, Committed{message.key});
}

void Dispatcher::On(const std::string& worker, const Failed& message) {
  Settle(worker, message.key,
         store_.Fail(message.key, message.error, message.final, now_ms_).status(),
         "its failure is noted");
}

void Dispatcher::On(const std::string& worker, const HandBack& message) {
  Settle(worker, message.key, store_.HandBack(message.key).status(), "it was handed back");
}

void Dispatcher::On(const std::string& worker, const Goodbye& message) {
  if (const Held* held = HeldBy(worker)) {
    const ChunkKey key = held->key;
    const absl::Status back = store_.HandBack(key).status();
    if (back.ok() || absl::IsAborted(back)) leases_.erase(key.job);  // else it runs out
  }
  workers_.erase(worker);
}

absl::Status Dispatcher::WorkerEnded(const std::string& worker, int64_t now_ms) {
  now_ms_ = now_ms;
  workers_.erase(worker);
  Held* held = HeldBy(worker);
  if (held == nullptr) return absl::OkStatus();
  held->until_ms = now_ms;
  return Expire();
}

void Dispatcher::StartDrain() {
  draining_ = true;
  for (const auto& [name, worker] : workers_) send_(name, Drain{});
}

absl::Status Dispatcher::Tick(int64_t now_ms) {
  now_ms_ = now_ms;
  absl::Status status = Expire();
  if (status.ok()) status = Finish();
  if (status.ok() && !draining_) status = AssignChunks();
  return status;
}

absl::Status Dispatcher::Expire() {
  for (auto it = leases_.begin(); it != leases_.end();) {
    if (it->second.until_ms > now_ms_) {
      ++it;
      continue;
    }
    absl::Status lost = store_.Lose(it->second.key, true, now_ms_).status();
    if (!lost.ok() && !absl::IsAborted(lost) && !absl::IsNotFound(lost)) return lost;
    it = leases_.erase(it);
  }
  std::erase_if(workers_, [&](const auto& entry) {
    return entry.second.seen_ms + options_.lease_ms <= now_ms_;
  });
  return absl::OkStatus();
}

absl::Status Dispatcher::AssignChunks() {
  for (auto& [name, worker] : workers_) {
    if (worker.credit_bytes == 0) continue;
    absl::StatusOr<std::vector<std::optional<Lease>>> leases =
        store_.LeaseChunks({{name, worker.credit_bytes, false}}, now_ms_);
    if (!leases.ok()) return leases.status();
    const std::optional<Lease>& lease = leases->front();
    if (!lease.has_value()) break;
    const Job& job = lease->job;
    Assign assign;
    assign.key = lease->key;
    assign.boundary_epoch = lease->before_epoch;
    assign.model = job.spec.model;
    assign.model_hash = job.model_hash;
    assign.task = static_cast<uint8_t>(job.spec.task);
    assign.chunk_tokens = job.spec.chunk;
    assign.window = job.spec.window;
    assign.max_logits_bytes = job.spec.max_logits_bytes;
    assign.length = job.length;
    assign.token_bytes = static_cast<uint8_t>(job.token_bytes);
    worker.credit_bytes = 0;
    if (!send_(name, assign)) {
      absl::Status back = store_.HandBack(assign.key).status();
      if (!back.ok()) return back;
      continue;
    }
    leases_[job.id] = {assign.key, name, now_ms_ + options_.lease_ms, std::move(assign)};
  }
  return absl::OkStatus();
}

absl::Status Dispatcher::Finish() {
  if (!complete_) return absl::OkStatus();
  const absl::StatusOr<std::vector<Job>> jobs = store_.Complete(kFinishAtOnce);
  if (!jobs.ok()) return jobs.status();
  for (const Job& job : *jobs) {
    absl::Status finished = FinishJob(job, store_, objects_, now_ms_);
    if (!finished.ok()) return finished;
  }
  complete_ = static_cast<int64_t>(jobs->size()) == kFinishAtOnce;
  return absl::OkStatus();
}

}  // namespace longwave

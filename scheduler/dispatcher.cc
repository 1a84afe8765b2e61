#include "scheduler/dispatcher.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "observability/log.h"

namespace longwave {
namespace {

constexpr int64_t kHeartbeatsInALease = 6;
constexpr int64_t kReconcileMs = 1000;  // how soon a cancelled job's workers hear of it
constexpr int64_t kLossesTogetherMs = 60000;
constexpr int64_t kTurnMs = 50;  // a worker that has work waits so long for those before it

constexpr char kNotComputed[] = "not computed";

bool IsRefusal(const absl::Status& status) {
  return absl::IsAborted(status) || absl::IsNotFound(status);
}

Commit CommitOf(const Done& done) {
  return {done.key,
          {done.key.chunk, done.key.epoch, done.output_bytes, done.output_sha256,
           done.boundary_sha256}};
}

}  // namespace

absl::Status Dispatcher::Start(int64_t now_ms) {
  const absl::StatusOr<std::vector<LeasedChunk>> leased = store_.Leased();
  if (!leased.ok()) return leased.status();
  for (const LeasedChunk& chunk : *leased) {
    leases_[{chunk.key.job, chunk.key.chunk}] = {
        chunk.key, chunk.worker, now_ms + options_.lease_ms, {}, {}};
  }
  return absl::OkStatus();
}

std::vector<WorkerInfo> Dispatcher::Workers() const {
  std::vector<WorkerInfo> infos;
  for (const auto& [name, worker] : workers_) {
    infos.push_back(worker.info);
    infos.back().name = name;
    for (const Place& place : worker.leases) infos.back().chunks.push_back(leases_.at(place).key);
  }
  return infos;
}

Dispatcher::Held* Dispatcher::Find(const std::string& worker, const ChunkKey& key) {
  const auto found = leases_.find({key.job, key.chunk});
  const bool his =
      found != leases_.end() && found->second.key == key && found->second.worker == worker;
  return his ? &found->second : nullptr;
}

Dispatcher::Leases::iterator Dispatcher::Release(Leases::iterator lease) {
  const auto worker = workers_.find(lease->second.worker);
  if (worker != workers_.end()) std::erase(worker->second.leases, lease->first);
  return leases_.erase(lease);
}

void Dispatcher::Release(const ChunkKey& key) {
  const auto found = leases_.find({key.job, key.chunk});
  if (found != leases_.end() && found->second.key == key) Release(found);
}

void Dispatcher::Receive(const std::string& worker, const Message& message, int64_t now_ms) {
  now_ms_ = now_ms;
  auto known = workers_.find(worker);
  if (known == workers_.end() && !std::holds_alternative<Hello>(message)) {
    if (!std::holds_alternative<Goodbye>(message)) send_(worker, Unknown{});
    return;
  }
  if (known != workers_.end()) known->second.info.seen_ms = now_ms;
  std::visit([&](const auto& content) { On(worker, content); }, message);
}

void Dispatcher::On(const std::string& worker, const Hello& message) {
  if (message.version != kProtocolVersion) {
    send_(worker, Drain{});
    return;
  }
  const auto [entry, is_new] = workers_.try_emplace(worker);
  Worker& now = entry->second;
  now.info.device = message.device;
  now.info.seen_ms = now_ms_;
  now.links = message.links;
  if (is_new) {
    now.removal = {now_ms_ - message.age_ms, message.uid};
    for (const auto& [place, held] : leases_) {
      if (held.worker == worker) now.leases.push_back(place);
    }
  }
  send_(worker, Welcome{options_.objects, options_.models, options_.lease_ms / kHeartbeatsInALease,
                        options_.lease_ms});
  if (draining_) send_(worker, Drain{});
}

// A worker removes what it stored of a chunk that is dropped. So only the store may say so: perhaps
// the chunk is committed, and the answer to its worker was lost.
void Dispatcher::AnswerUnknown(const std::string& worker, const ChunkKey& key) {
  const absl::StatusOr<std::string> state = store_.StateOf(key);
  if (!state.ok()) return;  // the worker asks again
  if (*state == "committed") {
    send_(worker, longwave::Committed{key});
  } else if (state->empty()) {
    send_(worker, Dropped{key, "the chunk is not leased under this epoch"});
  }
}

void Dispatcher::On(const std::string& worker, const Report& message) {
  Worker& now = workers_[worker];
  now.info.slots = std::min(message.slots, kMostSlots);
  now.credit_bytes = message.credit_bytes;
  std::set<Place> held_there;
  for (const ChunkKey& key : message.held) {
    if (Held* held = Find(worker, key)) {
      held->until_ms = now_ms_ + options_.lease_ms;
      held_there.insert({key.job, key.chunk});
    } else {
      AnswerUnknown(worker, key);
    }
  }
  const std::vector<Place> leases = now.leases;
  for (const Place& place : leases) {
    const auto held = leases_.find(place);
    if (held == leases_.end() || held->second.done.has_value()) continue;
    if (held_there.count(place) > 0) continue;
    if (held->second.assign.has_value()) {
      send_(worker, *held->second.assign);  // it was lost, or the report crossed it
    } else {
      // Leased by a scheduler that ended before it could say so.
      TakeBack(held->second.key);
    }
  }
}

void Dispatcher::Cut(const std::vector<ChunkKey>& keys, const std::string& reason) {
  if (keys.empty()) return;
  options_.probe->ChunksCut(static_cast<int64_t>(keys.size()));
  for (const ChunkKey& key : keys) {
    const auto found = leases_.find({key.job, key.chunk});
    if (found == leases_.end() || found->second.key != key) continue;
    send_(found->second.worker, Dropped{key, reason});
    Release(found);
  }
}

bool Dispatcher::End(const ChunkKey& key, const absl::StatusOr<std::vector<ChunkKey>>& cut,
                     const char* why) {
  if (!cut.ok() && !IsRefusal(cut.status())) return false;
  Release(key);
  if (cut.ok()) Cut(*cut, absl::StrCat("the chunk before it was ", why));
  return true;
}

void Dispatcher::TakeBack(const ChunkKey& key) {
  End(key, store_.HandBack(key), kNotComputed);  // else the lease runs out
}

void Dispatcher::Settle(const std::string& worker, const ChunkKey& key,
                        const absl::StatusOr<std::vector<ChunkKey>>& cut, const char* reason) {
  if (!End(key, cut, kNotComputed)) return;  // the worker asks again
  send_(worker, Dropped{key, cut.ok() ? reason : std::string(cut.status().message())});
}

void Dispatcher::On(const std::string& worker, const Failed& message) {
  log::Warning("chunk failed", {{"job", message.key.job},
                                {"chunk", message.key.chunk},
                                {"epoch", message.key.epoch},
                                {"worker", worker},
                                {"error", message.error}});
  options_.probe->Retried();
  Settle(worker, message.key, store_.Fail(message.key, message.error, message.final, now_ms_),
         "its failure is noted");
}

void Dispatcher::On(const std::string& worker, const HandBack& message) {
  options_.probe->ChunkHandedBack();
  Settle(worker, message.key, store_.HandBack(message.key), "it was handed back");
}

void Dispatcher::On(const std::string& worker, const Goodbye& message) {
  if (message.device_failed) {
    options_.probe->DeviceFailed();
    log::Error("a worker's device failed",
               {{"worker", worker}, {"device", workers_[worker].info.device}});
  }
  const std::vector<Place> leases = workers_[worker].leases;
  for (const Place& place : leases) {
    const auto held = leases_.find(place);
    if (held == leases_.end() || held->second.done.has_value()) continue;
    TakeBack(held->second.key);
  }
  Forget(worker);
}

void Dispatcher::Forget(const std::string& worker) {
  if (workers_.erase(worker) > 0) options_.probe->WorkerGone(worker);
}

void Dispatcher::On(const std::string& worker, const Done& message) {
  Held* held = Find(worker, message.key);
  if (held != nullptr) {
    held->until_ms = now_ms_ + options_.lease_ms;
    if (!held->done.has_value()) workers_[worker].done_ms = now_ms_;
    held->done = message;
    done_ = true;
    return;
  }
  // Not leased, as far as is known here: the store knows. The answer to a commit may have been
  // lost.
  const Commit commit = CommitOf(message);
  const auto committed = store_.CommitChunks({commit}, now_ms_);
  if (!committed.ok()) return;
  const absl::StatusOr<AfterCommit>& job = committed->front();
  if (job.ok()) {
    Committed(worker, commit, *job);
  } else if (IsRefusal(job.status())) {
    options_.probe->StaleReport();
    send_(worker, Dropped{message.key, std::string(job.status().message())});
  }
}

void Dispatcher::Committed(const std::string& worker, const Commit& commit,
                           const AfterCommit& job) {
  const ChunkKey& key = commit.key;
  options_.probe->ChunkCommitted(job.chunk_tokens);
  log::Info("chunk committed",
            {{"job", key.job}, {"chunk", key.chunk}, {"epoch", key.epoch}, {"worker", worker}});
  if (job.committed >= job.chunk_count) options_.complete();
  send_(worker, longwave::Committed{key});
  const auto next = leases_.find({key.job, key.chunk + 1});
  if (next == leases_.end()) return;
  if (next->second.assign.has_value() && next->second.assign->before.empty()) return;
  BoundaryReady ready{next->second.key,
                      {BoundaryName(key.job, key.epoch, key.chunk), commit.result.boundary_sha256}};
  if (next->second.assign.has_value()) {
    next->second.assign->boundary = ready.boundary;  // should it have to be sent again
  }
  send_(next->second.worker, ready);
}

absl::Status Dispatcher::CommitDone() {
  if (!done_) return absl::OkStatus();
  std::vector<Commit> commits;
  std::vector<std::string> workers;
  const Held* before = nullptr;  // the lease of the chunk before, where it commits now
  for (const auto& [place, held] : leases_) {
    const auto previous = leases_.find({place.first, place.second - 1});
    const bool turn = previous == leases_.end() || &previous->second == before;
    if (!held.done.has_value() || !turn) continue;
    commits.push_back(CommitOf(*held.done));
    workers.push_back(held.worker);
    before = &held;
  }
  const auto results = commits.empty() ? std::vector<absl::StatusOr<AfterCommit>>()
                                       : store_.CommitChunks(commits, now_ms_);
  if (!results.ok()) return results.status();
  done_ = false;
  for (size_t i = 0; i < commits.size(); ++i) {
    const ChunkKey& key = commits[i].key;
    const absl::StatusOr<AfterCommit>& job = (*results)[i];
    if (job.ok()) {
      const auto worker = workers_.find(workers[i]);
      const Held& held = leases_.find({key.job, key.chunk})->second;
      if (worker != workers_.end()) {
        WorkerInfo& info = worker->second.info;
        info.tokens += job->chunk_tokens;
        worker->second.busy_us += held.done->busy_us;
        if (worker->second.busy_us > 0) {
          info.tokens_per_second =
              1e6 * static_cast<double>(info.tokens) / static_cast<double>(worker->second.busy_us);
          options_.probe->WorkerSpeed(workers[i], info.tokens_per_second);
        }
      }
      Release(key);
      Committed(workers[i], commits[i], *job);
    } else if (IsRefusal(job.status())) {
      options_.probe->StaleReport();
      send_(workers[i], Dropped{key, std::string(job.status().message())});
      Release(key);
    } else {
      done_ = true;  // not its turn after all, or the store is not well: the next Tick
    }
  }
  return absl::OkStatus();
}

absl::Status Dispatcher::WorkerEnded(const std::string& worker, int64_t now_ms) {
  now_ms_ = now_ms;
  WorkerLost(worker);
  Forget(worker);
  for (auto& [place, held] : leases_) {
    if (held.worker == worker && !held.done.has_value()) held.until_ms = now_ms;
  }
  return Expire();
}

void Dispatcher::WorkerLost(const std::string& worker) {
  const auto known = workers_.find(worker);
  if (known == workers_.end()) return;
  Place at;  // an idle worker's: of no chunk
  for (const Place& place : known->second.leases) {
    const auto held = leases_.find(place);
    if (held == leases_.end() || held->second.done.has_value()) continue;
    at = place;
    break;
  }
  losses_.push_back({now_ms_, at});
}

void Dispatcher::StartDrain() {
  draining_ = true;
  for (const auto& [name, worker] : workers_) send_(name, Drain{});
}

absl::Status Dispatcher::Tick(int64_t now_ms) {
  now_ms_ = now_ms;
  absl::Status status = CommitDone();
  if (status.ok()) status = Expire();
  if (status.ok()) status = Reconcile();
  // Once nobody is idle the busy ones get a chunk to go on with, now and not at the next tick.
  for (bool given = !draining_; status.ok() && given;) {
    const absl::StatusOr<bool> gave = GiveChunks();
    status = gave.status();
    given = gave.ok() && *gave;
  }
  return status;
}

absl::Status Dispatcher::Lose(Leases::iterator lease) {
  const Held& held = lease->second;
  const ChunkKey key = held.key;
  // A chunk that kills its workers is one thing; where others are lost as well, the chunk is not to
  // blame. Nor is one that waited behind another in its worker's queue.
  const auto worker = workers_.find(held.worker);
  bool blame = true;
  if (worker != workers_.end()) {
    const auto& leases = worker->second.leases;
    blame = leases.empty() || leases.front() == lease->first;
  }
  for (const auto& [ms, place] : losses_) blame = blame && place == lease->first;
  const auto cut = store_.Lose(key, blame, now_ms_);
  const std::string name = held.worker;
  if (!End(key, cut, "lost")) return cut.status();
  options_.probe->LeaseLost();
  log::Warning("chunk lost", {{"job", key.job},
                              {"chunk", key.chunk},
                              {"epoch", key.epoch},
                              {"worker", name},
                              {"blamed", blame}});
  return absl::OkStatus();
}

absl::Status Dispatcher::Expire() {
  while (!losses_.empty() && losses_.front().first + kLossesTogetherMs <= now_ms_) {
    losses_.pop_front();
  }
  std::vector<std::string> silent;
  for (const auto& [name, worker] : workers_) {
    if (worker.info.seen_ms + options_.lease_ms <= now_ms_) silent.push_back(name);
  }
  for (const std::string& name : silent) WorkerLost(name);
  // From each job's first: what it takes with it is not lost as well.
  std::vector<Place> over;
  for (const auto& [place, held] : leases_) {
    // A result only waits for its turn: nobody needs its worker any more.
    if (held.until_ms <= now_ms_ && !held.done.has_value()) over.push_back(place);
  }
  for (const Place& place : over) {
    const auto lease = leases_.find(place);
    if (lease == leases_.end()) continue;
    absl::Status lost = Lose(lease);
    if (!lost.ok()) return lost;
  }
  for (const std::string& name : silent) Forget(name);
  return absl::OkStatus();
}

// Jobs that were cancelled, or whose time is over: their workers need not go on.
absl::Status Dispatcher::Reconcile() {
  if (now_ms_ < reconciled_ms_ + kReconcileMs) return absl::OkStatus();
  reconciled_ms_ = now_ms_;
  absl::Status expired = store_.ExpireJobs(now_ms_).status();
  if (!expired.ok()) return expired;
  if (leases_.empty()) return absl::OkStatus();
  const absl::StatusOr<std::vector<LeasedChunk>> leased = store_.Leased();
  if (!leased.ok()) return leased.status();
  std::map<Place, int64_t> epochs;
  for (const LeasedChunk& chunk : *leased) {
    epochs[{chunk.key.job, chunk.key.chunk}] = chunk.key.epoch;
  }
  for (auto it = leases_.begin(); it != leases_.end();) {
    const auto found = epochs.find(it->first);
    // A result is settled by its commit: it may be there already.
    if (it->second.done.has_value() ||
        (found != epochs.end() && found->second == it->second.key.epoch)) {
      ++it;
      continue;
    }
    send_(it->second.worker, Dropped{it->second.key, "its job is over"});
    it = Release(it);
  }
  return absl::OkStatus();
}

Assign Dispatcher::AssignOf(const Lease& lease) const {
  const Job& job = lease.job;
  Assign assign;
  assign.key = lease.key;
  if (lease.place.first == 0) {
    // That of a session, whose hash no row has: the object's own must do.
    if (job.start_position > 0) assign.boundary = {job.start_boundary, ""};
  } else if (lease.before_worker.empty()) {
    assign.boundary = {BoundaryName(job.id, lease.before_epoch, lease.key.chunk - 1),
                       lease.before_sha256};
  } else {
    assign.before = StreamName({job.id, lease.key.chunk - 1, lease.before_epoch});
    const auto before = workers_.find(lease.before_worker);
    if (before != workers_.end()) assign.before_links = before->second.links;
  }
  assign.model = job.spec.model;
  assign.model_hash = job.model_hash;
  assign.task = static_cast<uint8_t>(job.spec.task);
  assign.chunk_tokens = std::min(job.spec.chunk, job.length);
  assign.window = job.spec.window;
  assign.max_logits_bytes = job.spec.max_logits_bytes;
  if (job.spec.task == Task::kGenerate) assign.sampling = FormatSampling(job.spec);
  assign.first = lease.place.first;
  assign.tokens = lease.place.tokens;
  assign.length = lease.place.length;
  assign.given = lease.place.given;
  assign.first_token = lease.place.first_token;
  assign.start_position = job.start_position;
  assign.token_bytes = job.token_bytes;
  assign.serial = job.serial;
  assign.trace = job.trace;
  // Where a session began, it goes on.
  assign.last = lease.place.ends() && job.start_boundary.empty();
  return assign;
}

// Those without work first, the one that would be removed last before all. The others get a chunk
// to go on with only where nobody is idle, and in turn: whoever began first is ready first, and
// nobody is to wait for the states of one who will begin later. They have work, so that they can
// wait a little for those before them.
std::vector<LeaseRequest> Dispatcher::Requests() const {
  struct Turn {
    int64_t given;
    std::string name;
    const Worker* worker;
    int64_t chunks;  // that it has work with
    bool free;
    auto operator<=>(const Turn& other) const {
      return std::tie(given, name) <=> std::tie(other.given, other.name);
    }
  };
  std::vector<Turn> turns;
  bool any_idle = false;
  for (const auto& [name, worker] : workers_) {
    const int64_t slots = worker.info.slots;
    if (slots == 0) continue;
    const int64_t chunks =
        std::count_if(worker.leases.begin(), worker.leases.end(),
                      [&](const Place& place) { return !leases_.at(place).done.has_value(); });
    const bool free = chunks < slots && static_cast<int64_t>(worker.leases.size()) <= 2 * slots;
    any_idle = any_idle || (free && chunks == 0);
    turns.push_back({worker.given, name, &worker, chunks, free});
  }
  std::sort(turns.begin(), turns.end());
  std::vector<LeaseRequest> requests;
  if (any_idle) {
    std::erase_if(turns, [](const Turn& turn) { return !turn.free || turn.chunks > 0; });
    std::stable_sort(turns.begin(), turns.end(), [&](const Turn& a, const Turn& b) {
      return RemovedBefore(b.worker->removal, a.worker->removal, now_ms_);
    });
    for (const Turn& turn : turns) requests.push_back({turn.name, turn.worker->credit_bytes});
    return requests;
  }
  bool in_turn = true;
  for (const Turn& turn : turns) {
    const bool now = in_turn || now_ms_ >= turn.worker->done_ms + kTurnMs;
    if (turn.free && now) requests.push_back({turn.name, turn.worker->credit_bytes});
    in_turn = in_turn && turn.free;
  }
  return requests;
}

absl::StatusOr<bool> Dispatcher::GiveChunks() {
  const std::vector<LeaseRequest> requests = Requests();
  if (requests.empty()) return false;
  auto leases = store_.LeaseChunks(requests, now_ms_);
  if (!leases.ok()) return leases.status();
  bool gave = false;
  std::set<Place> taken_back;  // with another of these leases
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!(*leases)[i].has_value()) continue;
    const Lease& lease = *(*leases)[i];
    const std::string& name = requests[i].worker;
    const Place place{lease.key.job, lease.key.chunk};
    if (taken_back.count(place) > 0) continue;
    Assign assign = AssignOf(lease);
    if (!send_(name, assign)) {
      workers_[name].info.slots = 0;  // until it speaks
      const auto cut = store_.HandBack(lease.key);
      if (!cut.ok()) return cut.status();
      for (const ChunkKey& key : *cut) taken_back.insert({key.job, key.chunk});
      Cut(*cut, "the chunk before it was not computed");
      continue;
    }
    ++dispatched_;
    options_.probe->Dispatched(lease.place.tokens);
    leases_[place] = {lease.key, name, now_ms_ + options_.lease_ms, std::move(assign), {}};
    workers_[name].leases.push_back(place);
    gave = true;
    workers_[name].given = dispatched_;
  }
  return gave;
}

}  // namespace longwave

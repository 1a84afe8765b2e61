// Gives chunks to workers and takes their results: the logic of one scheduler, with no socket, no
// thread and no clock of its own.
//
// Consecutive chunks of a job are given to whoever is free, each with the name of the stream in
// which the chunk before it hands on its states, so that they are computed at the same time.
// They commit in order: a result that comes before its turn waits here. A chunk that is lost takes
// those after it with it.
//
// The job store decides what is true; here is only what may be forgotten: which workers there are,
// and until when each lease is believed in. A scheduler that starts anew believes in every lease it
// finds for one lease time, so that workers that went on computing lose nothing.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "observability/server_probe.h"
#include "scheduler/job_store.h"
#include "scheduler/protocol/messages.h"
#include "scheduler/removal_order.h"
#include "scheduler/worker_info.h"

namespace longwave {

struct DispatcherOptions {
  int64_t lease_ms = 6000;      // a worker unheard of for so long is lost
  std::string objects, models;  // for Welcome
  // Called where a job's last chunk is committed: its manifest is to be written.
  std::function<void()> complete = [] {};
  ServerProbe* probe = nullptr;  // outlives the dispatcher
};

class Dispatcher {
 public:
  // False where the worker cannot be reached.
  using SendFn = std::function<bool(const std::string& worker, const Message& message)>;

  Dispatcher(JobStore& store, DispatcherOptions options, SendFn send)
      : store_(store), options_(std::move(options)), send_(std::move(send)) {}

  // Once, first: leases of before are believed in for one lease time.
  absl::Status Start(int64_t now_ms);
  void Receive(const std::string& worker, const Message& message, int64_t now_ms);
  // Results whose turn it is, leases that ran out, chunks for those who are free. An error is the
  // store's; what was not done is done by a later call.
  absl::Status Tick(int64_t now_ms);
  // That process has ended: no need to wait for its lease to run out.
  absl::Status WorkerEnded(const std::string& worker, int64_t now_ms);
  // No more chunks from now on; every worker is told to finish and leave.
  void StartDrain();

  size_t workers() const { return workers_.size(); }
  size_t leases() const { return leases_.size(); }
  int64_t dispatched() const { return dispatched_; }  // chunks given out since the start
  std::vector<WorkerInfo> Workers() const;

 private:
  using Place = std::pair<std::string, int64_t>;  // job, chunk
  struct Worker {
    WorkerInfo info;
    std::string links;
    RemovalRank removal;
    int64_t credit_bytes = 0;
    int64_t busy_us = 0;        // for `tokens`
    std::vector<Place> leases;  // in the order they were given
    int64_t given = 0;          // the number of the latest chunk that was
    int64_t done_ms = 0;        // when it reported its latest result
  };
  struct Held {
    ChunkKey key;
    std::string worker;
    int64_t until_ms = 0;
    std::optional<Assign> assign;  // none: of a scheduler before this one
    std::optional<Done> done;      // waits for its turn
  };
  using Leases = std::map<Place, Held>;

  void On(const std::string& worker, const Hello& message);
  void On(const std::string& worker, const Report& message);
  void On(const std::string& worker, const Done& message);
  void On(const std::string& worker, const Failed& message);
  void On(const std::string& worker, const HandBack& message);
  void On(const std::string& worker, const Goodbye& message);
  template <typename NotForUs>
  void On(const std::string& worker, const NotForUs& message) {}

  Held* Find(const std::string& worker, const ChunkKey& key);  // its lease of exactly this key
  // To a worker that holds a chunk of which no lease is known.
  void AnswerUnknown(const std::string& worker, const ChunkKey& key);
  // The lease is over. Returns the next one.
  Leases::iterator Release(Leases::iterator lease);
  void Release(const ChunkKey& key);  // if it is held
  // The store answered to a chunk's end of another kind than a commit: its lease is over, and `cut`
  // is taken from its workers, who are told that the chunk before it was `why`. False, and nothing
  // is done, where the store is not well.
  bool End(const ChunkKey& key, const absl::StatusOr<std::vector<ChunkKey>>& cut, const char* why);
  void TakeBack(const ChunkKey& key);  // nobody computes it
  // End(), and `worker` is told.
  void Settle(const std::string& worker, const ChunkKey& key,
              const absl::StatusOr<std::vector<ChunkKey>>& cut, const char* reason);
  void Cut(const std::vector<ChunkKey>& keys, const std::string& reason);
  void Committed(const std::string& worker, const Commit& commit, const AfterCommit& job);
  absl::Status Lose(Leases::iterator lease);
  void WorkerLost(const std::string& worker);
  void Forget(const std::string& worker);
  absl::Status CommitDone();
  absl::Status Expire();
  absl::Status Reconcile();
  // A round: whether a chunk was given.
  absl::StatusOr<bool> GiveChunks();
  Assign AssignOf(const Lease& lease) const;
  // Those who are to get a chunk now, in the order of their turns.
  std::vector<LeaseRequest> Requests() const;

  JobStore& store_;
  const DispatcherOptions options_;
  SendFn send_;
  int64_t now_ms_ = 0;
  int64_t reconciled_ms_ = 0;
  int64_t dispatched_ = 0;
  bool draining_ = false;
  bool done_ = false;  // some lease has a result that was not offered to the store
  std::map<std::string, Worker> workers_;
  Leases leases_;
  // Workers that were lost lately: when, and at which chunk.
  std::deque<std::pair<int64_t, Place>> losses_;
};

}  // namespace longwave

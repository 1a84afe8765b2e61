// Gives chunks to workers and takes their results: the logic of one scheduler, with no socket, no
// thread and no clock of its own.
//
// The job store decides what is true; here is only what may be forgotten: which workers there are,
// and until when each lease is believed in. A scheduler that starts anew believes in every lease it
// finds for one lease time, so that workers that went on computing lose nothing.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"
#include "scheduler/protocol/messages.h"

namespace longwave {

struct DispatcherOptions {
  int64_t lease_ms = 6000;  // a worker unheard of for so long is lost
  std::string models;       // for Welcome
};

class Dispatcher {
 public:
  // False where the worker cannot be reached.
  using SendFn = std::function<bool(const std::string& worker, const Message& message)>;

  Dispatcher(JobStore& store, ObjectStore& objects, DispatcherOptions options, SendFn send)
      : store_(store), objects_(objects), options_(std::move(options)), send_(std::move(send)) {}

  // Once, first: leases of before are believed in for one lease time.
  absl::Status Start(int64_t now_ms);
  void Receive(const std::string& worker, const Message& message, int64_t now_ms);
  // Leases that ran out, chunks for idle workers, jobs that are complete. An error is the store's
  // or the object store's; what was not done is done by a later call.
  absl::Status Tick(int64_t now_ms);
  // That process has ended: no need to wait for its lease to run out.
  absl::Status WorkerEnded(const std::string& worker, int64_t now_ms);
  // No more chunks from now on; every worker is told to finish and leave.
  void StartDrain();

  size_t workers() const { return workers_.size(); }
  size_t leases() const { return leases_.size(); }

 private:
  struct Worker {
    std::string device;
    int64_t seen_ms = 0;
    int64_t credit_bytes = 0;  // 0: not idle
  };
  struct Held {
    ChunkKey key;
    std::string worker;
    int64_t until_ms = 0;
    std::optional<Assign> assign;  // none: of a scheduler before this one
  };

  void On(const std::string& worker, const Hello& message);
  void On(const std::string& worker, const Ready& message);
  void On(const std::string& worker, const Progress& message);
  void On(const std::string& worker, const Done& message);
  void On(const std::string& worker, const Failed& message);
  void On(const std::string& worker, const HandBack& message);
  void On(const std::string& worker, const Goodbye& message);
  template <typename NotForUs>
  void On(const std::string& worker, const NotForUs& message) {}

  Held* Find(const ChunkKey& key);  // the lease of exactly this key; null: none
  Held* HeldBy(const std::string& worker);
  // The store has settled `key` one way or another, or refused: tells the worker.
  void Settle(const std::string& worker, const ChunkKey& key, const absl::Status& status,
              const char* reason);
  absl::Status Expire();
  absl::Status AssignChunks();
  absl::Status Finish();

  JobStore& store_;
  ObjectStore& objects_;
  const DispatcherOptions options_;
  SendFn send_;
  int64_t now_ms_ = 0;
  bool draining_ = false;
  bool complete_ = true;  // there may be complete jobs without a manifest
  std::map<std::string, Worker> workers_;
  std::map<std::string, Held> leases_;  // by job: one chunk of a job is leased at a time
};

// (rows), or (rows, columns).
std::vector<int64_t> OutputShape(const Job& job);
// Writes the manifest of a job whose chunks are all committed, marks it succeeded and removes what
// no committed chunk names.
absl::Status FinishJob(const Job& job, JobStore& store, ObjectStore& objects, int64_t now_ms);
// Removes all of a job that is over from the object store, but for the committed outputs and the
// manifest if `keep_outputs`.
absl::Status RemoveObjects(const Job& job, bool keep_outputs, JobStore& store,
                           ObjectStore& objects);

}  // namespace longwave

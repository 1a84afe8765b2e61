// Jobs, their chunks and uploaded files: what a server must not forget. Every change is one
// transaction, and is on the disk when its call returns.
//
// A chunk is *leased* to a worker under an epoch, a number that grows with each lease of its job.
// Whoever reports on a chunk names the epoch; a report under another epoch than the one that stands
// in the chunk's row is refused (Aborted) and changes nothing. When a lease has run out is not
// decided here but by the dispatcher, which calls Lose(): time fences nothing.
//
//   job:   queued -> running -> succeeded       any of the first two -> failed, cancelled
//   chunk: (no row) -> leased -> committed      leased -> idle -> leased: lost, failed, handed back
//
// Chunks of a job are leased in order, one at a time: chunk k needs the boundary that k-1
// committed.
//
// Thread safety: safe. Time: milliseconds, given by the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/job.h"
#include "scheduler/sql_database.h"

namespace longwave {

enum class JobState { kQueued, kRunning, kSucceeded, kFailed, kCancelled };
const char* Name(JobState state);  // "queued"
absl::StatusOr<JobState> ParseJobState(absl::string_view name);
inline bool IsOver(JobState state) { return state >= JobState::kSucceeded; }

struct Job {
  std::string id;
  int64_t number = 0;  // in the order of creation
  JobSpec spec;        // model: a name; input: an uploaded file's id
  std::string model_hash;
  JobState state = JobState::kQueued;
  std::string error;        // failed: why
  int64_t length = -1;      // tokens; -1 until the job is planned
  int64_t token_bytes = 0;  // of one token in the job's token file: 1 or 4
  int64_t columns = 0;      // of the output; 0: it is a vector
  int64_t committed = 0;    // chunks 0 to committed - 1 are
  int64_t epoch = 0;        // of the latest lease
  int64_t computed = 0;     // tokens of leases granted: above `length` by what was computed again
  int64_t output_bytes = 0;
  int64_t created_ms = 0, started_ms = 0, finished_ms = 0;  // 0: not yet

  int64_t chunks() const {  // 0 until the job is planned
    return length < 0 ? 0 : length / spec.chunk + (length % spec.chunk != 0);
  }
  int64_t ChunkTokens(int64_t chunk) const;
  int64_t tokens_committed() const;
};

struct NewJob {
  std::string id;
  std::string idempotency_key;  // empty: none
  JobSpec spec;
  std::string model_hash;
  int64_t columns = 0;
};

struct Plan {
  int64_t length = 0, token_bytes = 0;
};

struct ChunkKey {
  std::string job;
  int64_t chunk = 0, epoch = 0;

  bool operator==(const ChunkKey&) const = default;
  std::string ToString() const;  // "job ID chunk 3 epoch 5"
};

struct Lease {
  Job job;
  ChunkKey key;
  int64_t boundary_epoch = 0;  // of the committed chunk before; 0 for chunk 0
};

struct LeasedChunk {
  ChunkKey key;
  std::string worker;
};

struct CommittedChunk {
  int64_t chunk = 0, epoch = 0, output_bytes = 0;
  std::string output_sha256, boundary_sha256;
};

struct StoredFile {
  std::string id, name, sha256;
  int64_t bytes = 0, created_ms = 0;
};

class JobStore {
 public:
  static constexpr int64_t kMostLosses = 3;    // workers lost on one chunk
  static constexpr int64_t kMostFailures = 3;  // errors reported of one chunk
  static constexpr int64_t kRetryMs = 500;     // after the first failure; doubled each time

  // Makes or upgrades the schema. FailedPrecondition: the database is of a later program.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(std::unique_ptr<SqlDatabase> database);

  // Jobs. NotFound where there is none of that id.
  // The job of `job.idempotency_key`, where there is one and it asked for the same;
  // FailedPrecondition where it asked for something else.
  absl::StatusOr<Job> Create(const NewJob& job, int64_t now_ms);
  absl::StatusOr<Job> Get(const std::string& id);
  // Newest first, `before` (a number) excluded.
  absl::StatusOr<std::vector<Job>> List(std::optional<JobState> state, int64_t before,
                                        int64_t limit);
  // Aborted if the job is over.
  absl::StatusOr<Job> Cancel(const std::string& id, int64_t now_ms);
  // FailedPrecondition unless the job is over.
  absl::Status Delete(const std::string& id);

  // Planning.
  absl::StatusOr<std::vector<Job>> Unplanned(int64_t limit);
  // Once; Aborted if the job is over by now or planned.
  absl::Status SetPlan(const std::string& id, const Plan& plan);
  // A job that cannot go on. Aborted if it is over.
  absl::Status FailJob(const std::string& id, const std::string& error, int64_t now_ms);

  // Chunks.
  // The next chunk of the oldest job that has one to give, whose tokens take at most `most_bytes`.
  absl::StatusOr<std::optional<Lease>> LeaseNext(const std::string& worker, int64_t most_bytes,
                                                 int64_t now_ms);
  // What is leased now: whoever starts to dispatch learns what may still be under way.
  absl::StatusOr<std::vector<LeasedChunk>> Leased();
  // Compare-and-set on the chunk's epoch. A second time for the same chunk and epoch changes
  // nothing and succeeds: an answer may have been lost. Returns the job.
  absl::StatusOr<Job> Commit(const ChunkKey& key, const CommittedChunk& result);
  // The worker reported an error. It is tried again, after a while, unless the error is `final` or
  // the last of kMostFailures: then the job fails.
  absl::Status Fail(const ChunkKey& key, const std::string& error, bool final, int64_t now_ms);
  // The worker is gone. The kMostLosses-th time the job fails, naming the workers.
  absl::Status Lose(const ChunkKey& key, int64_t now_ms);
  // The worker gives the chunk back uncomputed.
  absl::Status HandBack(const ChunkKey& key);

  // In order.
  absl::StatusOr<std::vector<CommittedChunk>> Committed(const std::string& id);
  // Running jobs whose chunks are all committed: their manifest is to be written.
  absl::StatusOr<std::vector<Job>> Complete(int64_t limit);
  absl::Status Succeed(const std::string& id, int64_t now_ms);

  // Files. NotFound where there is none of that id.
  absl::Status AddFile(const StoredFile& file);
  absl::StatusOr<StoredFile> GetFile(const std::string& id);

 private:
  explicit JobStore(std::unique_ptr<SqlDatabase> database) : database_(std::move(database)) {}
  using Values = std::vector<SqlValue>;
  absl::Status Migrate();
  absl::StatusOr<int64_t> Change(const char* sql, const Values& values);
  absl::StatusOr<std::vector<Job>> Jobs(const std::string& where, const Values& values);
  absl::StatusOr<Job> GetLocked(const std::string& id);
  absl::Status End(const std::string& id, JobState state, const std::string& error, int64_t now_ms);
  // REQUIRES: in a transaction. Takes the chunk from its worker. Aborted where the epoch is
  // another.
  absl::Status TakeBack(const ChunkKey& key);

  std::mutex mutex_;
  std::unique_ptr<SqlDatabase> database_;
};

}  // namespace longwave

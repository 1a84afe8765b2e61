// Jobs, their chunks and events, uploaded files and tenants: what a server must not forget. Every
// change is one transaction, and is on the disk when its call returns.
//
// A chunk is *leased* to a worker under an epoch, a number that grows with each lease of its job.
// Whoever reports on a chunk names the epoch; a report under another epoch than the one that stands
// in the chunk's row is refused (Aborted) and changes nothing. When a lease has run out is not
// decided here but by the dispatcher, which calls Lose(): time fences nothing.
//
//   job:   queued -> running -> succeeded       any of the first two -> failed, cancelled
//   chunk: (no row) -> leased -> committed      leased -> idle -> leased: lost, failed, handed back
//
// Several chunks of a job may be leased at a time. They are leased in order and committed in order:
// chunks 0 to committed - 1 are committed, committed to next - 1 are leased, all others idle. Where
// a leased chunk is taken back, so are all later ones of its job, without blame: they are *cut*.
//
// Scheduling calls are refused with Aborted, and change nothing, unless the term of leadership in
// the database is the one of SetTerm(): a server that led once, and was frozen while another took
// over, cannot write.
//
// Thread safety: safe. Time: milliseconds, given by the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "observability/server_probe.h"
#include "scheduler/job.h"
#include "scheduler/sequences.h"
#include "scheduler/sql_database.h"

namespace longwave {

inline constexpr char kDefaultTenant[] = "default";
inline constexpr int64_t kMostPriority = 100;  // and the least is -100

enum class JobState { kQueued, kRunning, kSucceeded, kFailed, kCancelled };
const char* Name(JobState state);  // "queued"
absl::StatusOr<JobState> ParseJobState(absl::string_view name);
inline bool IsOver(JobState state) { return state >= JobState::kSucceeded; }

struct NewJob {
  std::string id;
  std::string idempotency_key;  // of the tenant; empty: none
  JobSpec spec;                 // model: a name; input: an uploaded file's id
  std::string model_hash;
  int64_t columns = 0;  // of the output; 0: it is a vector
  std::string tenant = kDefaultTenant;
  std::string created_by;      // who, for people
  int64_t priority = 0;        // among the tenant's jobs; the highest goes first
  int64_t time_limit_ms = 0;   // from its first lease on; 0: none
  std::string start_boundary;  // the object that the sequence goes on from; empty: from its start
  int64_t start_position = 0;  // of its first token: how many came before
  bool trace = false;          // its workers write down what they do when
  // A chunk needs all of the one before, which is committed first: generate, and attention.
  bool serial = false;
};

// What is not over.
struct QueueSummary {
  int64_t jobs_queued = 0, jobs_running = 0;
  int64_t tokens = 0;  // not committed, of jobs that are planned
  int64_t chunks_waiting = 0, chunks_leased = 0, chunks_committed = 0;
};

struct Job : NewJob {  // idempotency_key is not read back
  int64_t number = 0;  // in the order of creation
  JobState state = JobState::kQueued;
  std::string error;        // failed: why
  int64_t length = -1;      // tokens of all sequences; -1 until the job is planned
  int64_t token_bytes = 0;  // of one token in the job's token file: 1 or 4; transform: of a row
  int64_t sequences = 1;    // how many
  int64_t batch = 0;        // they are that many rows of one array; 0: records, or one sequence
  int64_t chunk_count = 0;  // 0 until the job is planned
  int64_t tokens_done = 0;  // of committed chunks
  int64_t committed = 0;    // chunks 0 to committed - 1 are
  int64_t next = 0;         // the first chunk that is neither committed nor leased
  int64_t epoch = 0;        // of the latest lease
  int64_t computed = 0;     // tokens of leases granted: above `length` by what was computed again
  int64_t output_bytes = 0;
  int64_t created_ms = 0, started_ms = 0, finished_ms = 0;  // 0: not yet

  int64_t leases() const { return next - committed; }
  // The row of its only sequence. REQUIRES: it is planned and has one.
  SequenceRow only() const { return {"", 1, length, spec.given(length)}; }
};

struct JobFilter {  // what is not given holds for every job
  std::optional<JobState> state;
  std::string tenant, model;
  std::optional<Task> task;
};

struct Plan {
  int64_t length = 0, token_bytes = 0;
  int64_t batch = 0;
  std::vector<SequenceRow> sequences = {};  // in order, not placed yet; none: one of `length`
};

struct ChunkKey {
  std::string job;
  int64_t chunk = 0, epoch = 0;

  bool operator==(const ChunkKey&) const = default;
  std::string ToString() const;  // "job ID chunk 3 epoch 5"
};

struct LeaseRequest {
  std::string worker;
  int64_t most_bytes = 0;  // the tokens of a chunk may take so many
  // Chunks of jobs that other workers are at already may be given too, where no job waits: the job
  // spreads.
  bool spread = true;
};

struct Lease {
  Job job;  // as it stands after the lease
  ChunkKey key;
  ChunkPlace place;
  int64_t before_epoch = 0;   // of chunk key.chunk - 1; 0 where a sequence begins
  std::string before_worker;  // who has that chunk leased now; empty: it is committed, or none is
  std::string before_sha256;  // of its boundary, where it is committed
};

struct LeasedChunk {
  ChunkKey key;
  std::string worker;
};

struct CommittedChunk {
  int64_t chunk = 0, epoch = 0, output_bytes = 0;
  std::string output_sha256, boundary_sha256;
};

struct Commit {
  ChunkKey key;
  CommittedChunk result;
};
struct AfterCommit : Job {
  int64_t chunk_tokens = 0;  // of the chunk
};

// What happened to a job. Numbers grow, are never given twice, and become visible in their order.
struct Event {
  int64_t number = 0;
  std::string job, tenant;
  // created, planned, started, committed (a chunk), lost, chunk_failed, succeeded, failed,
  // cancelled
  std::string kind;
  int64_t at_ms = 0;
  std::string data;  // a JSON object; docs/jobs.md says what is in it
};

struct EventFilter {  // an empty one: every job's
  std::string job, tenant;
};

struct StoredFile {
  std::string id, name, sha256;
  int64_t bytes = 0, created_ms = 0;
  std::string tenant = kDefaultTenant;
  int64_t number = 0;  // in the order of AddFile(), which gives it
};

struct Tenant {
  std::string name;
  int64_t weight = 1;            // its part of the workers, in relation to other tenants that wait
  int64_t most_queued_jobs = 0;  // quotas; 0: none
  int64_t most_leases = 0;
  int64_t most_bytes = 0;  // of files
};

class JobTransaction;
struct Fairness;

class JobStore {
 public:
  static constexpr int64_t kMostLosses = 3;           // workers lost on one chunk
  static constexpr int64_t kMostUnblamedLosses = 25;  // and those it was not blamed for
  static constexpr int64_t kMostFailures = 3;         // errors reported of one chunk
  static constexpr int64_t kRetryMs = 500;            // after the first failure; doubled each time

  // Makes or upgrades the schema. FailedPrecondition: the database is of a later program.
  // `probe` (null: none) is told of jobs that end and of the database, and outlives the store.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(std::unique_ptr<SqlDatabase> database,
                                                        ServerProbe* probe = nullptr);
  ~JobStore();
  // For the other stores on it.
  SqlDatabase& database() { return *database_; }

  // Jobs. NotFound where there is none of that id.
  // The job of `job.idempotency_key`, where there is one and it asked for the same;
  // FailedPrecondition where it asked for something else. ResourceExhausted: the tenant's quota.
  absl::StatusOr<Job> Create(const NewJob& job, int64_t now_ms);
  absl::StatusOr<Job> Get(const std::string& id);
  // Newest first, `before` (a number) excluded.
  absl::StatusOr<std::vector<Job>> List(const JobFilter& filter, int64_t before, int64_t limit);
  // Aborted if the job is over.
  absl::StatusOr<Job> Cancel(const std::string& id, int64_t now_ms);
  // With its events. FailedPrecondition unless the job is over.
  absl::Status Delete(const std::string& id);
  // Oldest first, `after` (a number) excluded.
  absl::StatusOr<std::vector<Event>> Events(const EventFilter& filter, int64_t after,
                                            int64_t limit);
  // The number of the latest event; 0: there was none yet.
  absl::StatusOr<int64_t> LastEvent();

  // Planning.
  absl::StatusOr<std::vector<Job>> Unplanned(int64_t limit);
  // Once; Aborted if the job is over by now or planned.
  absl::Status SetPlan(const std::string& id, const Plan& plan, int64_t now_ms);
  // The rows of a planned job from that which has sequence `number` on; fewer than `limit` only at
  // the end.
  absl::StatusOr<std::vector<SequenceRow>> Sequences(const Job& job, int64_t number, int64_t limit);
  // A job that cannot go on. Aborted if it is over.
  absl::Status FailJob(const std::string& id, const std::string& error, int64_t now_ms);

  // Scheduling. 0, the term until another is set, is that of a database where nobody ever led.
  void SetTerm(int64_t term) { term_ = term; }

  // One transaction for all requests, in their order; none where there is nothing to give.
  // A serial job has one chunk leased at a time, but where its next one begins a sequence.
  // Jobs that wait (a chunk to give, none leased) go before those that spread. Among jobs that
  // wait: of the tenant with the fewest leases in relation to its weight (where several have as
  // few, the one that was given the fewest until now), the highest priority, running before queued,
  // the oldest. Among those that spread: the fewest leases, the highest priority, the oldest. A
  // tenant at its quota of leases gets none.
  absl::StatusOr<std::vector<std::optional<Lease>>> LeaseChunks(
      absl::Span<const LeaseRequest> requests, int64_t now_ms);
  // What is leased now, of one job or of all: whoever starts to dispatch learns what may still be
  // under way.
  absl::StatusOr<std::vector<LeasedChunk>> Leased(const std::string& job = "");
  // What has become of a chunk that was leased under this epoch: "leased", "committed", or "" where
  // it was taken back.
  absl::StatusOr<std::string> StateOf(const ChunkKey& key);
  // Compare-and-set on each chunk's epoch, in the order given, in one transaction. An answer for
  // each: the job; Aborted: another epoch; NotFound; Unavailable: the chunk before is not committed
  // yet, ask again. A second time for the same chunk and epoch changes nothing and succeeds: an
  // answer may have been lost.
  absl::StatusOr<std::vector<absl::StatusOr<AfterCommit>>> CommitChunks(
      absl::Span<const Commit> commits, int64_t now_ms);
  // These three take a chunk back, and return what else is taken back with it: the later ones of
  // its job, or all others where the job fails. The worker reported an error. It is tried again,
  // after a while, unless the error is `final` or the last of kMostFailures: then the job fails.
  absl::StatusOr<std::vector<ChunkKey>> Fail(const ChunkKey& key, const std::string& error,
                                             bool final, int64_t now_ms);
  // The worker is gone. `blame`: perhaps because of the chunk; the kMostLosses-th time the job
  // fails, naming the workers. Without blame it fails at the kMostUnblamedLosses-th such time.
  absl::StatusOr<std::vector<ChunkKey>> Lose(const ChunkKey& key, bool blame, int64_t now_ms);
  // The worker gives the chunk back uncomputed.
  absl::StatusOr<std::vector<ChunkKey>> HandBack(const ChunkKey& key);
  // Jobs that run longer than they may fail; their ids.
  absl::StatusOr<std::vector<std::string>> ExpireJobs(int64_t now_ms);

  // In order; of the chunks [first, first + count).
  absl::StatusOr<std::vector<CommittedChunk>> Committed(
      const std::string& id, int64_t first = 0,
      int64_t count = std::numeric_limits<int64_t>::max());
  // Jobs whose chunks are all committed: their manifest is to be written.
  absl::StatusOr<std::vector<Job>> Complete(int64_t limit);
  absl::StatusOr<QueueSummary> Queue();
  absl::Status Succeed(const std::string& id, int64_t now_ms);

  // Files. NotFound where there is none of that id.
  // ResourceExhausted: the tenant's quota.
  absl::Status AddFile(const StoredFile& file);
  absl::StatusOr<StoredFile> GetFile(const std::string& id);
  // Newest first, `before` (a number) excluded; an empty tenant: all of them.
  absl::StatusOr<std::vector<StoredFile>> ListFiles(const std::string& tenant, int64_t before,
                                                    int64_t limit);
  // FailedPrecondition while a job that is not over reads it.
  absl::Status DeleteFile(const std::string& id);

  // Tenants. A job or file of a tenant that was not put yet makes one without quotas.
  // InvalidArgument: a name or number that cannot be.
  absl::Status PutTenant(const Tenant& tenant);
  absl::StatusOr<Tenant> GetTenant(const std::string& name);
  absl::StatusOr<std::vector<Tenant>> ListTenants();  // by name

 private:
  using Values = std::vector<SqlValue>;
  using Work = absl::FunctionRef<absl::Status(JobTransaction&)>;

  JobStore(std::unique_ptr<SqlDatabase> database, ServerProbe* probe);
  absl::Status Write(int64_t now_ms, Work work);
  void Tell(const std::vector<Event>& events);
  absl::Status Schedule(int64_t now_ms, Work work);  // a Write that checks the term
  absl::StatusOr<std::vector<Job>> Jobs(const std::string& where, const Values& values);
  absl::StatusOr<std::vector<StoredFile>> Files(const std::string& where, const Values& values);

  std::unique_ptr<SqlDatabase> database_;
  ServerProbe* const probe_;
  std::atomic<int64_t> term_{0};

  std::mutex mutex_;
  std::unique_ptr<Fairness> fairness_;
};

}  // namespace longwave

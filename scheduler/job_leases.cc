// The job store's part about chunks that are leased.
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/job_store.h"
#include "scheduler/job_transaction.h"
#include "scheduler/lease_round.h"

namespace longwave {
namespace {

absl::Status Stale(const ChunkKey& key) {
  return absl::AbortedError(absl::StrCat(key.ToString(), " is not what is leased now"));
}

struct ChunkRow {
  std::string state, worker, lost_by;
  int64_t losses = 0, unblamed_losses = 0, failures = 0, tokens = 0;
};

// The chunk's row. Aborted unless its epoch is that of `key`, NotFound where there is no such job.
absl::StatusOr<ChunkRow> FindChunk(JobTransaction& change, const ChunkKey& key) {
  const absl::StatusOr<SqlResult> result = change.Run(
      "SELECT state, worker, lost_by, losses, unblamed_losses, failures, tokens, epoch FROM chunks "
      "WHERE job = $1 AND chunk = $2",
      {{key.job, key.chunk}});
  if (!result.ok()) return result.status();
  if (result->rows.empty()) {
    const absl::Status job = change.Find(key.job).status();
    return job.ok() ? Stale(key) : job;
  }
  RowReader row(result->rows[0]);
  ChunkRow chunk;
  chunk.state = row.Text();
  chunk.worker = row.Text();
  chunk.lost_by = row.Text();
  chunk.losses = row.Number();
  chunk.unblamed_losses = row.Number();
  chunk.failures = row.Number();
  chunk.tokens = row.Number();
  if (row.Number() != key.epoch) return Stale(key);
  return chunk;
}

absl::StatusOr<std::vector<ChunkKey>> LeasedFrom(JobTransaction& change, const std::string& job,
                                                 int64_t chunk) {
  const absl::StatusOr<SqlResult> result = change.Run(
      "SELECT chunk, epoch FROM chunks WHERE job = $1 AND state = 'leased' AND chunk >= $2 "
      "ORDER BY chunk",
      {{job, chunk}});
  if (!result.ok()) return result.status();
  std::vector<ChunkKey> keys;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    const int64_t at = row.Number();
    keys.push_back({job, at, row.Number()});
  }
  return keys;
}

// A chunk taken from its worker, and what is cut with it.
struct Taken {
  ChunkRow row;
  std::vector<ChunkKey> cut;
};

absl::StatusOr<Taken> TakeBack(JobTransaction& change, const ChunkKey& key) {
  Taken taken;
  absl::StatusOr<ChunkRow> row = FindChunk(change, key);
  if (!row.ok()) return row.status();
  if (row->state != "leased") return Stale(key);
  taken.row = *std::move(row);
  absl::StatusOr<std::vector<ChunkKey>> cut = LeasedFrom(change, key.job, key.chunk + 1);
  if (!cut.ok()) return cut.status();
  taken.cut = *std::move(cut);
  absl::Status status = change
                            .Change(
                                "UPDATE chunks SET state = 'idle' "
                                "WHERE job = $1 AND state = 'leased' AND chunk >= $2",
                                {{key.job, key.chunk}})
                            .status();
  if (!status.ok()) return status;
  status = change
               .Change("UPDATE jobs SET next_chunk = $1, leased = $1 - committed WHERE id = $2",
                       {{key.chunk, key.job}})
               .status();
  if (!status.ok()) return status;
  return taken;
}

// What of the job was leased before `key` ends with it.
absl::Status FailWith(JobTransaction& change, const ChunkKey& key, const std::string& error,
                      std::vector<ChunkKey>& cut) {
  const absl::StatusOr<std::vector<ChunkKey>> earlier = LeasedFrom(change, key.job, 0);
  if (!earlier.ok()) return earlier.status();
  cut.insert(cut.begin(), earlier->begin(), earlier->end());
  return change.End(key.job, JobState::kFailed, error);
}

// Why nothing was changed by the commit of `key`: perhaps it was committed before. An error of the
// database is put into `broken`.
absl::StatusOr<Job> WhyNot(JobTransaction& change, const ChunkKey& key, absl::Status& broken) {
  const absl::StatusOr<ChunkRow> chunk = FindChunk(change, key);
  absl::StatusOr<Job> job = chunk.ok() ? change.Find(key.job) : chunk.status();
  if (!job.ok()) {
    if (!absl::IsAborted(job.status()) && !absl::IsNotFound(job.status())) broken = job.status();
    return job.status();
  }
  if (chunk->state == "committed") return job;
  if (chunk->state != "leased") return Stale(key);
  return absl::UnavailableError(
      absl::StrCat(key.ToString(), " waits for chunk ", job->committed, " to be committed"));
}

// The answer to one commit. An error of the database is put into `broken`.
absl::StatusOr<AfterCommit> CommitOne(JobTransaction& change, const Commit& commit,
                                      absl::Status& broken) {
  const ChunkKey& key = commit.key;
  const CommittedChunk& result = commit.result;
  const absl::StatusOr<SqlResult> chunk = change.Run(
      "UPDATE chunks SET state = 'committed', output_bytes = $1, output_sha256 = $2, "
      "boundary_sha256 = $3 WHERE job = $4 AND chunk = $5 AND epoch = $6 AND state = 'leased' "
      "AND chunk = (SELECT committed FROM jobs WHERE id = $4) RETURNING worker, tokens",
      {result.output_bytes, result.output_sha256, result.boundary_sha256, key.job, key.chunk,
       key.epoch});
  broken = chunk.status();
  if (!broken.ok()) return broken;
  if (chunk->rows.empty()) {
    absl::StatusOr<Job> job = WhyNot(change, key, broken);
    if (!job.ok()) return job.status();
    return AfterCommit{*std::move(job)};  // of no more tokens
  }
  RowReader committed(chunk->rows[0]);
  const std::string worker = committed.Text();
  const int64_t tokens = committed.Number();
  const absl::StatusOr<SqlResult> row =
      change.Run(absl::StrCat("UPDATE jobs SET committed = committed + 1, leased = leased - 1, "
                              "output_bytes = output_bytes + $1, tokens_done = tokens_done + $2 "
                              "WHERE id = $3 RETURNING ",
                              JobColumns())
                     .c_str(),
                 {result.output_bytes, tokens, key.job});
  broken = row.status();
  if (!broken.ok()) return broken;
  const absl::StatusOr<std::vector<Job>> jobs = JobsOf(*row);
  broken = jobs.status();
  if (!broken.ok()) return broken;
  const Job& job = jobs->front();
  change.Log(job, "committed",
             {{"chunk", key.chunk},
              {"epoch", key.epoch},
              {"worker", worker},
              {"chunks_done", job.committed},
              {"tokens_done", job.tokens_done}});
  return AfterCommit{job, tokens};
}

}  // namespace

absl::StatusOr<std::vector<std::optional<Lease>>> JobStore::LeaseChunks(
    absl::Span<const LeaseRequest> requests, int64_t now_ms) {
  std::vector<std::optional<Lease>> leases;
  Fairness fairness;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    fairness = *fairness_;
  }
  absl::Status status = Schedule(now_ms, [&](JobTransaction& change) {
    leases.clear();
    LeaseRound round(change);
    absl::Status started = round.Start(fairness);
    if (!started.ok()) return started;
    for (const LeaseRequest& request : requests) {
      absl::StatusOr<std::optional<Lease>> lease = round.Give(request);
      if (!lease.ok()) return lease.status();
      leases.push_back(*std::move(lease));
    }
    round.Finish(fairness);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  const std::lock_guard<std::mutex> lock(mutex_);
  *fairness_ = std::move(fairness);
  return leases;
}

absl::StatusOr<std::vector<LeasedChunk>> JobStore::Leased(const std::string& job) {
  const bool all = job.empty();
  const absl::StatusOr<SqlResult> result = database_->Read(
      absl::StrCat("SELECT job, chunk, epoch, worker FROM chunks WHERE state = 'leased'",
                   all ? "" : " AND job = $1", " ORDER BY job, chunk")
          .c_str(),
      all ? Values() : Values{job});
  if (!result.ok()) return result.status();
  std::vector<LeasedChunk> leased;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    LeasedChunk& chunk = leased.emplace_back();
    chunk.key.job = row.Text();
    chunk.key.chunk = row.Number();
    chunk.key.epoch = row.Number();
    chunk.worker = row.Text();
  }
  return leased;
}

absl::StatusOr<std::string> JobStore::StateOf(const ChunkKey& key) {
  const absl::StatusOr<SqlResult> result = database_->Read(
      "SELECT state FROM chunks WHERE job = $1 AND chunk = $2 AND epoch = $3 AND state <> 'idle'",
      {key.job, key.chunk, key.epoch});
  if (!result.ok()) return result.status();
  return result->rows.empty() ? "" : RowReader(result->rows[0]).Text();
}

absl::StatusOr<std::vector<absl::StatusOr<AfterCommit>>> JobStore::CommitChunks(
    absl::Span<const Commit> commits, int64_t now_ms) {
  std::vector<absl::StatusOr<AfterCommit>> answers;
  absl::Status status = Schedule(now_ms, [&](JobTransaction& change) {
    answers.clear();
    for (const Commit& commit : commits) {
      absl::Status broken;
      answers.push_back(CommitOne(change, commit, broken));
      if (!broken.ok()) return broken;
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return answers;
}

absl::StatusOr<std::vector<ChunkKey>> JobStore::Fail(const ChunkKey& key, const std::string& error,
                                                     bool final, int64_t now_ms) {
  std::vector<ChunkKey> cut;
  const std::string reason = CleanText(error);
  absl::Status status = Schedule(now_ms, [&](JobTransaction& change) {
    absl::StatusOr<Taken> taken = TakeBack(change, key);
    if (!taken.ok()) return taken.status();
    cut = std::move(taken->cut);
    const int64_t failures = taken->row.failures + 1;
    const absl::StatusOr<Job> job = change.Find(key.job);
    if (!job.ok()) return job.status();
    change.Log(*job, "chunk_failed",
               {{"chunk", key.chunk},
                {"epoch", key.epoch},
                {"worker", taken->row.worker},
                {"error", reason}});
    if (final) return FailWith(change, key, reason, cut);
    if (failures >= kMostFailures) {
      return FailWith(
          change, key,
          absl::StrCat("chunk ", key.chunk, " failed ", failures, " times, at last: ", reason),
          cut);
    }
    absl::Status counted = change
                               .Change(
                                   "UPDATE chunks SET failures = $1 WHERE job = $2 "
                                   "AND chunk = $3",
                                   {{failures, key.job, key.chunk}})
                               .status();
    if (!counted.ok()) return counted;
    return change
        .Change("UPDATE jobs SET not_before_ms = $1 WHERE id = $2",
                {{now_ms + (kRetryMs << (failures - 1)), key.job}})
        .status();
  });
  if (!status.ok()) return status;
  return cut;
}

absl::StatusOr<std::vector<ChunkKey>> JobStore::Lose(const ChunkKey& key, bool blame,
                                                     int64_t now_ms) {
  std::vector<ChunkKey> cut;
  absl::Status status = Schedule(now_ms, [&](JobTransaction& change) {
    absl::StatusOr<Taken> taken = TakeBack(change, key);
    if (!taken.ok()) return taken.status();
    cut = std::move(taken->cut);
    ChunkRow& row = taken->row;
    const absl::StatusOr<Job> job = change.Find(key.job);
    if (!job.ok()) return job.status();
    change.Log(*job, "lost", {{"chunk", key.chunk}, {"epoch", key.epoch}, {"worker", row.worker}});
    if (!blame) {
      if (++row.unblamed_losses >= kMostUnblamedLosses) {
        return FailWith(change, key,
                        absl::StrCat("chunk ", key.chunk, " lost its worker ", row.unblamed_losses,
                                     " times, and not by its own doing: it is not tried again"),
                        cut);
      }
    } else {
      absl::StrAppend(&row.lost_by, row.lost_by.empty() ? "" : ", ", row.worker);
      if (++row.losses >= kMostLosses) {
        return FailWith(change, key,
                        absl::StrCat("chunk ", key.chunk, " lost its worker ", row.losses,
                                     " times (workers ", row.lost_by, "): it is not tried again"),
                        cut);
      }
    }
    return change
        .Change(
            "UPDATE chunks SET losses = $1, lost_by = $2, unblamed_losses = $3 "
            "WHERE job = $4 AND chunk = $5",
            {{row.losses, row.lost_by, row.unblamed_losses, key.job, key.chunk}})
        .status();
  });
  if (!status.ok()) return status;
  return cut;
}

absl::StatusOr<std::vector<ChunkKey>> JobStore::HandBack(const ChunkKey& key) {
  std::vector<ChunkKey> cut;
  absl::Status status = Schedule(0, [&](JobTransaction& change) {
    absl::StatusOr<Taken> taken = TakeBack(change, key);
    if (!taken.ok()) return taken.status();
    cut = std::move(taken->cut);
    return change
        .Change("UPDATE jobs SET computed = computed - $1 WHERE id = $2",
                {{taken->row.tokens, key.job}})
        .status();
  });
  if (!status.ok()) return status;
  return cut;
}

}  // namespace longwave

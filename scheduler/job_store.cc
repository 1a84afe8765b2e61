#include "scheduler/job_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/job_store_schema.h"

namespace longwave {
namespace {

constexpr const char* kStateNames[] = {"queued", "running", "succeeded", "failed", "cancelled"};

constexpr char kJobColumns[] =
    "id, number, model, model_hash, input, task, chunk, window_tokens, max_logits_bytes, "
    "output_columns, state, error, length, token_bytes, committed, epoch, computed, output_bytes, "
    "created_ms, started_ms, finished_ms";

int64_t Number(const SqlValue& value) { return std::get<int64_t>(value); }
const std::string& Text(const SqlValue& value) { return std::get<std::string>(value); }

absl::StatusOr<Job> JobOf(const std::vector<SqlValue>& row) {
  size_t i = 0;
  const auto text = [&] { return Text(row[i++]); };
  const auto number = [&] { return Number(row[i++]); };
  Job job;
  job.id = text();
  job.number = number();
  job.spec.model = text();
  job.model_hash = text();
  job.spec.input = text();
  const absl::StatusOr<Task> task = ParseTask(text());
  if (!task.ok()) return task.status();
  job.spec.task = *task;
  job.spec.chunk = number();
  job.spec.window = number();
  job.spec.max_logits_bytes = number();
  job.columns = number();
  const absl::StatusOr<JobState> state = ParseJobState(text());
  if (!state.ok()) return state.status();
  job.state = *state;
  job.error = text();
  for (int64_t* field : {&job.length, &job.token_bytes, &job.committed, &job.epoch, &job.computed,
                         &job.output_bytes, &job.created_ms, &job.started_ms, &job.finished_ms}) {
    *field = number();
  }
  return job;
}

bool SameRequest(const Job& job, const NewJob& other) {
  const JobSpec &a = job.spec, &b = other.spec;
  return a.model == b.model && a.input == b.input && a.task == b.task && a.chunk == b.chunk &&
         a.window == b.window && a.max_logits_bytes == b.max_logits_bytes;
}

absl::Status Stale(const ChunkKey& key) {
  return absl::AbortedError(absl::StrCat(key.ToString(), " is not what is leased now"));
}

}  // namespace

const char* Name(JobState state) { return kStateNames[static_cast<int>(state)]; }

absl::StatusOr<JobState> ParseJobState(absl::string_view name) {
  for (size_t i = 0; i < std::size(kStateNames); ++i) {
    if (name == kStateNames[i]) return static_cast<JobState>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "state \"", name, "\": must be one of queued, running, succeeded, failed, cancelled"));
}

int64_t Job::ChunkTokens(int64_t index) const {
  return std::min(spec.chunk, length - index * spec.chunk);
}

int64_t Job::tokens_committed() const {
  return committed == 0 ? 0 : (committed - 1) * spec.chunk + ChunkTokens(committed - 1);
}

std::string ChunkKey::ToString() const {
  return absl::StrCat("job ", job, " chunk ", chunk, " epoch ", epoch);
}

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(std::unique_ptr<SqlDatabase> database) {
  std::unique_ptr<JobStore> store(new JobStore(std::move(database)));
  absl::Status migrated = store->Migrate();
  if (!migrated.ok()) return migrated;
  return store;
}

absl::Status JobStore::Migrate() {
  return database_->Transaction([&] {
    absl::Status status =
        Change("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)", {}).status();
    if (!status.ok()) return status;
    const absl::StatusOr<SqlResult> found =
        database_->Run("SELECT version FROM schema_version", {});
    if (!found.ok()) return found.status();
    if (found->rows.empty()) {
      status = Change("INSERT INTO schema_version VALUES (0)", {}).status();
    }
    const int64_t known = static_cast<int64_t>(SchemaVersions().size());
    const int64_t version = found->rows.empty() ? 0 : Number(found->rows[0][0]);
    if (version > known) {
      return absl::FailedPreconditionError(absl::StrCat("the database has schema version ", version,
                                                        ", this program knows up to ", known));
    }
    for (int64_t i = version; status.ok() && i < known; ++i) {
      for (const char* sql : SchemaVersions()[i]) {
        if (status.ok()) status = Change(sql, {}).status();
      }
    }
    if (!status.ok()) return status;
    return Change("UPDATE schema_version SET version = $1", {known}).status();
  });
}

absl::StatusOr<int64_t> JobStore::Change(const char* sql, const Values& values) {
  const absl::StatusOr<SqlResult> result = database_->Run(sql, values);
  if (!result.ok()) return result.status();
  return result->changed;
}

absl::StatusOr<std::vector<Job>> JobStore::Jobs(const std::string& where, const Values& values) {
  const absl::StatusOr<SqlResult> result = database_->Run(
      absl::StrCat("SELECT ", kJobColumns, " FROM jobs WHERE ", where).c_str(), values);
  if (!result.ok()) return result.status();
  std::vector<Job> jobs;
  for (const auto& row : result->rows) {
    absl::StatusOr<Job> job = JobOf(row);
    if (!job.ok()) return job.status();
    jobs.push_back(*std::move(job));
  }
  return jobs;
}

absl::StatusOr<Job> JobStore::GetLocked(const std::string& id) {
  absl::StatusOr<std::vector<Job>> jobs = Jobs("id = $1", {id});
  if (!jobs.ok()) return jobs.status();
  if (jobs->empty()) return absl::NotFoundError(absl::StrCat("there is no job \"", id, "\""));
  return std::move(jobs->front());
}

absl::StatusOr<Job> JobStore::Create(const NewJob& job, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<Job> created;
  absl::Status status = database_->Transaction([&] {
    if (!job.idempotency_key.empty()) {
      absl::StatusOr<std::vector<Job>> same = Jobs("idempotency_key = $1", {job.idempotency_key});
      if (!same.ok()) return same.status();
      if (!same->empty()) {
        if (!SameRequest(same->front(), job)) {
          return absl::FailedPreconditionError(
              absl::StrCat("idempotency key \"", job.idempotency_key, "\" was used for job ",
                           same->front().id, ", which asked for something else"));
        }
        created = std::move(same->front());
        return absl::OkStatus();
      }
    }
    const JobSpec& spec = job.spec;
    absl::Status inserted =
        Change(
            "INSERT INTO jobs (id, number, idempotency_key, model, model_hash, input, task, chunk, "
            "window_tokens, max_logits_bytes, output_columns, state, error, length, token_bytes, "
            "committed, epoch, computed, output_bytes, leased, not_before_ms, created_ms, "
            "started_ms, finished_ms) SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, "
            "$7, $8, $9, $10, 'queued', '', -1, 0, 0, 0, 0, 0, 0, 0, $11, 0, 0 FROM jobs",
            {job.id, job.idempotency_key.empty() ? SqlValue() : SqlValue(job.idempotency_key),
             spec.model, job.model_hash, spec.input, std::string(Name(spec.task)), spec.chunk,
             spec.window, spec.max_logits_bytes, job.columns, now_ms})
            .status();
    if (inserted.ok()) created = GetLocked(job.id);
    return inserted;
  });
  if (!status.ok()) return status;
  return created;
}

absl::StatusOr<Job> JobStore::Get(const std::string& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return GetLocked(id);
}

absl::StatusOr<std::vector<Job>> JobStore::List(std::optional<JobState> state, int64_t before,
                                                int64_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!state.has_value()) {
    return Jobs("number < $1 ORDER BY number DESC LIMIT $2", {before, limit});
  }
  return Jobs("number < $1 AND state = $2 ORDER BY number DESC LIMIT $3",
              {before, std::string(Name(*state)), limit});
}

absl::Status JobStore::End(const std::string& id, JobState state, const std::string& error,
                           int64_t now_ms) {
  const absl::StatusOr<int64_t> changed = Change(
      "UPDATE jobs SET state = $1, error = $2, finished_ms = $3, leased = 0 "
      "WHERE id = $4 AND state IN ('queued', 'running')",
      {std::string(Name(state)), error, now_ms, id});
  if (!changed.ok()) return changed.status();
  if (*changed == 0) {
    const absl::StatusOr<Job> job = GetLocked(id);
    if (!job.ok()) return job.status();
    return absl::AbortedError(absl::StrCat("job ", id, " is ", Name(job->state), " already"));
  }
  // What a worker still holds of it is refused from here on.
  return Change("UPDATE chunks SET state = 'idle' WHERE job = $1 AND state = 'leased'", {id})
      .status();
}

absl::StatusOr<Job> JobStore::Cancel(const std::string& id, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  absl::Status status =
      database_->Transaction([&] { return End(id, JobState::kCancelled, "", now_ms); });
  if (!status.ok()) return status;
  return GetLocked(id);
}

absl::Status JobStore::Delete(const std::string& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] {
    const absl::StatusOr<Job> job = GetLocked(id);
    if (!job.ok()) return job.status();
    if (!IsOver(job->state)) {
      return absl::FailedPreconditionError(
          absl::StrCat("job ", id, " is ", Name(job->state), ": cancel it first"));
    }
    return Change("DELETE FROM jobs WHERE id = $1", {id}).status();
  });
}

absl::StatusOr<std::vector<Job>> JobStore::Unplanned(int64_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Jobs("state = 'queued' AND length < 0 ORDER BY number LIMIT $1", {limit});
}

absl::Status JobStore::SetPlan(const std::string& id, const Plan& plan) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] {
    const absl::StatusOr<int64_t> changed = Change(
        "UPDATE jobs SET length = $1, token_bytes = $2 "
        "WHERE id = $3 AND state = 'queued' AND length < 0",
        {plan.length, plan.token_bytes, id});
    if (!changed.ok()) return changed.status();
    if (*changed > 0) return absl::OkStatus();
    const absl::StatusOr<Job> job = GetLocked(id);
    if (!job.ok()) return job.status();
    return absl::AbortedError(absl::StrCat("job ", id, " is ", Name(job->state), ", of length ",
                                           job->length, ": it is not planned now"));
  });
}

absl::Status JobStore::FailJob(const std::string& id, const std::string& error, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] { return End(id, JobState::kFailed, error, now_ms); });
}

absl::StatusOr<std::optional<Lease>> JobStore::LeaseNext(const std::string& worker,
                                                         int64_t most_bytes, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::optional<Lease> lease;
  absl::Status status = database_->Transaction([&] {
    // A running job goes on before a queued one starts.
    absl::StatusOr<std::vector<Job>> jobs;
    for (const char* state : {"running", "queued"}) {
      jobs = Jobs(
          "state = $1 AND leased = 0 AND length > committed * chunk AND not_before_ms <= $2 "
          "AND (CASE WHEN length < chunk THEN length ELSE chunk END + 1) * token_bytes <= $3 "
          "ORDER BY number LIMIT 1",
          {std::string(state), now_ms, most_bytes});
      if (!jobs.ok()) return jobs.status();
      if (!jobs->empty()) break;
    }
    if (jobs->empty()) return absl::OkStatus();
    Job job = std::move(jobs->front());
    const int64_t chunk = job.committed;
    absl::StatusOr<SqlResult> before = database_->Run(
        "SELECT epoch FROM chunks WHERE job = $1 AND chunk = $2", {job.id, chunk - 1});
    if (!before.ok()) return before.status();
    ++job.epoch;
    job.computed += job.ChunkTokens(chunk);
    if (job.state == JobState::kQueued) job.started_ms = now_ms;
    job.state = JobState::kRunning;
    absl::Status changed =
        Change(
            "UPDATE jobs SET state = 'running', epoch = $1, computed = $2, started_ms = $3, "
            "leased = 1 WHERE id = $4",
            {job.epoch, job.computed, job.started_ms, job.id})
            .status();
    if (!changed.ok()) return changed;
    changed = Change(
                  "INSERT INTO chunks (job, chunk, state, epoch, worker, losses, lost_by, "
                  "failures, output_bytes, output_sha256, boundary_sha256) "
                  "VALUES ($1, $2, 'leased', $3, $4, 0, '', 0, 0, '', '') "
                  "ON CONFLICT (job, chunk) DO UPDATE SET state = 'leased', "
                  "epoch = excluded.epoch, worker = excluded.worker",
                  {job.id, chunk, job.epoch, worker})
                  .status();
    if (!changed.ok()) return changed;
    lease.emplace();
    lease->key = {job.id, chunk, job.epoch};
    lease->boundary_epoch = before->rows.empty() ? 0 : Number(before->rows[0][0]);
    lease->job = std::move(job);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return lease;
}

absl::StatusOr<std::vector<LeasedChunk>> JobStore::Leased() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const absl::StatusOr<SqlResult> result =
      database_->Run("SELECT job, chunk, epoch, worker FROM chunks WHERE state = 'leased'", {});
  if (!result.ok()) return result.status();
  std::vector<LeasedChunk> leased;
  for (const auto& row : result->rows) {
    leased.push_back({{Text(row[0]), Number(row[1]), Number(row[2])}, Text(row[3])});
  }
  return leased;
}

absl::StatusOr<Job> JobStore::Commit(const ChunkKey& key, const CommittedChunk& result) {
  const std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<Job> job;
  absl::Status status = database_->Transaction([&] {
    absl::StatusOr<int64_t> changed = Change(
        "UPDATE chunks SET state = 'committed', output_bytes = $1, output_sha256 = $2, "
        "boundary_sha256 = $3 WHERE job = $4 AND chunk = $5 AND epoch = $6 AND state = 'leased'",
        {result.output_bytes, result.output_sha256, result.boundary_sha256, key.job, key.chunk,
         key.epoch});
    if (!changed.ok()) return changed.status();
    if (*changed == 1) {
      changed = Change(
          "UPDATE jobs SET committed = committed + 1, output_bytes = output_bytes + $1, leased = 0 "
          "WHERE id = $2 AND committed = $3 AND state = 'running'",
          {result.output_bytes, key.job, key.chunk});
      if (!changed.ok()) return changed.status();
      if (*changed != 1) {
        return absl::InternalError(absl::StrCat(key.ToString(), " is not its job's next"));
      }
    } else {
      const absl::StatusOr<SqlResult> again = database_->Run(
          "SELECT 1 FROM chunks WHERE job = $1 AND chunk = $2 AND epoch = $3 "
          "AND state = 'committed'",
          {key.job, key.chunk, key.epoch});
      if (!again.ok()) return again.status();
      if (again->rows.empty()) return Stale(key);
    }
    job = GetLocked(key.job);
    return job.status();
  });
  if (!status.ok()) return status;
  return job;
}

absl::Status JobStore::TakeBack(const ChunkKey& key) {
  const absl::StatusOr<int64_t> changed = Change(
      "UPDATE chunks SET state = 'idle' "
      "WHERE job = $1 AND chunk = $2 AND epoch = $3 AND state = 'leased'",
      {key.job, key.chunk, key.epoch});
  if (!changed.ok()) return changed.status();
  if (*changed == 0) return Stale(key);
  return Change("UPDATE jobs SET leased = 0 WHERE id = $1", {key.job}).status();
}

absl::Status JobStore::Fail(const ChunkKey& key, const std::string& error, bool final,
                            int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] {
    absl::Status status = TakeBack(key);
    if (!status.ok()) return status;
    status = Change("UPDATE chunks SET failures = failures + 1 WHERE job = $1 AND chunk = $2",
                    {key.job, key.chunk})
                 .status();
    if (!status.ok()) return status;
    const absl::StatusOr<SqlResult> row = database_->Run(
        "SELECT failures FROM chunks WHERE job = $1 AND chunk = $2", {key.job, key.chunk});
    if (!row.ok()) return row.status();
    const int64_t failures = Number(row->rows[0][0]);
    if (final) return End(key.job, JobState::kFailed, error, now_ms);
    if (failures >= kMostFailures) {
      return End(
          key.job, JobState::kFailed,
          absl::StrCat("chunk ", key.chunk, " failed ", failures, " times, at last: ", error),
          now_ms);
    }
    return Change("UPDATE jobs SET not_before_ms = $1 WHERE id = $2",
                  {now_ms + (kRetryMs << (failures - 1)), key.job})
        .status();
  });
}

absl::Status JobStore::Lose(const ChunkKey& key, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] {
    absl::Status status = TakeBack(key);
    if (!status.ok()) return status;
    status = Change(
                 "UPDATE chunks SET losses = losses + 1, lost_by = "
                 "CASE WHEN lost_by = '' THEN worker ELSE lost_by || ', ' || worker END "
                 "WHERE job = $1 AND chunk = $2",
                 {key.job, key.chunk})
                 .status();
    if (!status.ok()) return status;
    const absl::StatusOr<SqlResult> row = database_->Run(
        "SELECT losses, lost_by FROM chunks WHERE job = $1 AND chunk = $2", {key.job, key.chunk});
    if (!row.ok()) return row.status();
    const int64_t losses = Number(row->rows[0][0]);
    if (losses < kMostLosses) return absl::OkStatus();
    return End(key.job, JobState::kFailed,
               absl::StrCat("chunk ", key.chunk, " lost its worker ", losses, " times (workers ",
                            Text(row->rows[0][1]), "): it is not tried again"),
               now_ms);
  });
}

absl::Status JobStore::HandBack(const ChunkKey& key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] { return TakeBack(key); });
}

absl::StatusOr<std::vector<CommittedChunk>> JobStore::Committed(const std::string& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const absl::StatusOr<SqlResult> result = database_->Run(
      "SELECT chunk, epoch, output_bytes, output_sha256, boundary_sha256 FROM chunks "
      "WHERE job = $1 AND state = 'committed' ORDER BY chunk",
      {id});
  if (!result.ok()) return result.status();
  std::vector<CommittedChunk> chunks;
  for (const auto& row : result->rows) {
    chunks.push_back({Number(row[0]), Number(row[1]), Number(row[2]), Text(row[3]), Text(row[4])});
  }
  return chunks;
}

absl::StatusOr<std::vector<Job>> JobStore::Complete(int64_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Jobs("state = 'running' AND leased = 0 AND length <= committed * chunk LIMIT $1", {limit});
}

absl::Status JobStore::Succeed(const std::string& id, int64_t now_ms) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return database_->Transaction([&] {
    const absl::StatusOr<Job> job = GetLocked(id);
    if (!job.ok()) return job.status();
    if (job->length < 0 || job->committed < job->chunks()) {
      return absl::FailedPreconditionError(absl::StrCat("job ", id, " has ", job->committed, " of ",
                                                        job->chunks(), " chunks committed"));
    }
    return End(id, JobState::kSucceeded, "", now_ms);
  });
}

absl::Status JobStore::AddFile(const StoredFile& file) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Change(
             "INSERT INTO files (id, name, sha256, bytes, created_ms) VALUES ($1, $2, $3, $4, $5)",
             {file.id, file.name, file.sha256, file.bytes, file.created_ms})
      .status();
}

absl::StatusOr<StoredFile> JobStore::GetFile(const std::string& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const absl::StatusOr<SqlResult> result =
      database_->Run("SELECT id, name, sha256, bytes, created_ms FROM files WHERE id = $1", {id});
  if (!result.ok()) return result.status();
  if (result->rows.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no file \"", id, "\""));
  }
  const auto& row = result->rows[0];
  return StoredFile{Text(row[0]), Text(row[1]), Text(row[2]), Number(row[3]), Number(row[4])};
}

}  // namespace longwave

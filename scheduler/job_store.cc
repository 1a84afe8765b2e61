#include "scheduler/job_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/job_transaction.h"
#include "scheduler/lease_round.h"
#include "scheduler/schema.h"

namespace longwave {
namespace {

constexpr const char* kStateNames[] = {"queued", "running", "succeeded", "failed", "cancelled"};

bool SameRequest(const NewJob& job, const NewJob& other) {
  const JobSpec &a = job.spec, &b = other.spec;
  return a.model == b.model && a.input == b.input && a.task == b.task && a.chunk == b.chunk &&
         a.window == b.window && a.max_logits_bytes == b.max_logits_bytes &&
         FormatSampling(a) == FormatSampling(b) && job.priority == other.priority &&
         job.time_limit_ms == other.time_limit_ms && job.start_boundary == other.start_boundary &&
         job.start_position == other.start_position && job.trace == other.trace;
}

absl::Status Check(const NewJob& job) {
  if (job.priority < -kMostPriority || job.priority > kMostPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority ", job.priority, ": must be from ",
                                                   -kMostPriority, " to ", kMostPriority));
  }
  if (job.time_limit_ms < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("time_limit_ms ", job.time_limit_ms, ": must be 0 (no limit) or above"));
  }
  if (job.start_position < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("start_position ", job.start_position, ": must be 0 or above"));
  }
  return absl::OkStatus();
}

absl::Status CheckQueue(JobTransaction& change, const std::string& name) {
  const absl::StatusOr<Tenant> tenant = change.GetTenant(name);
  if (!tenant.ok()) return tenant.status();
  if (tenant->most_queued_jobs == 0) return absl::OkStatus();
  const absl::StatusOr<SqlResult> queued = change.Run(
      "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE tenant = $1 AND state = 'queued' "
      "LIMIT $2) AS first",
      {{name, tenant->most_queued_jobs}});
  if (!queued.ok()) return queued.status();
  if (RowReader(queued->rows[0]).Number() < tenant->most_queued_jobs) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("tenant \"", name, "\" has ",
                                                   tenant->most_queued_jobs,
                                                   " queued jobs, as many as its quota allows"));
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

std::string ChunkKey::ToString() const {
  return absl::StrCat("job ", job, " chunk ", chunk, " epoch ", epoch);
}

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(std::unique_ptr<SqlDatabase> database,
                                                         ServerProbe* probe) {
  if (probe != nullptr) database->Observe(probe->database());
  absl::Status migrated = Migrate(*database);
  if (!migrated.ok()) return migrated;
  return std::unique_ptr<JobStore>(new JobStore(std::move(database), probe));
}

JobStore::JobStore(std::unique_ptr<SqlDatabase> database, ServerProbe* probe)
    : database_(std::move(database)), probe_(probe), fairness_(std::make_unique<Fairness>()) {}

JobStore::~JobStore() = default;

absl::Status JobStore::Write(int64_t now_ms, Work work) {
  std::vector<Event> events;
  absl::Status status = database_->Write([&](SqlConnection& connection) {
    JobTransaction change(connection, now_ms);
    absl::Status worked = work(change);
    if (worked.ok()) worked = change.WriteEvents();
    events = change.events();
    return worked;
  });
  if (status.ok() && probe_ != nullptr) Tell(events);
  return status;
}

void JobStore::Tell(const std::vector<Event>& events) {
  bool lost = false;  // a job that fails with the loss of a worker fails because of it
  for (const Event& event : events) {
    const absl::StatusOr<JobState> state = ParseJobState(event.kind);
    if (state.ok() && IsOver(*state)) probe_->JobOver(event.kind);
    if (state.ok() && *state == JobState::kFailed && lost) probe_->JobPoisoned();
    lost = event.kind == "lost";
  }
}

absl::Status JobStore::Schedule(int64_t now_ms, Work work) {
  return Write(now_ms, [&](JobTransaction& change) {
    const absl::StatusOr<SqlResult> row =
        change.Run("SELECT term, server FROM leadership WHERE id = 1", {});
    if (!row.ok()) return row.status();
    RowReader leadership(row->rows[0]);
    const int64_t term = leadership.Number(), ours = term_;
    if (term != ours) {
      return absl::AbortedError(absl::StrCat("server ", leadership.Text(), " leads in term ", term,
                                             ", this one's term is ", ours));
    }
    return work(change);
  });
}

absl::StatusOr<std::vector<Job>> JobStore::Jobs(const std::string& where, const Values& values) {
  const absl::StatusOr<SqlResult> result = database_->Read(SelectJobs(where).c_str(), values);
  if (!result.ok()) return result.status();
  return JobsOf(*result);
}

absl::StatusOr<Job> JobStore::Create(const NewJob& job, int64_t now_ms) {
  absl::Status checked = Check(job);
  if (!checked.ok()) return checked;
  SqlValue key;
  if (!job.idempotency_key.empty()) key = absl::StrCat(job.tenant, "/", job.idempotency_key);
  absl::StatusOr<Job> created;
  absl::Status status = Write(now_ms, [&](JobTransaction& change) {
    if (!job.idempotency_key.empty()) {
      absl::StatusOr<std::vector<Job>> same = change.Jobs("idempotency_key = $1", {{key}});
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
    absl::Status status = CheckQueue(change, job.tenant);
    if (!status.ok()) return status;
    const JobSpec& spec = job.spec;
    const std::string insert = absl::StrCat(
        "INSERT INTO jobs (id, number, idempotency_key, model, model_hash, input, "
        "task, chunk, window_tokens, max_logits_bytes, output_columns, state, error, "
        "length, token_bytes, committed, epoch, computed, output_bytes, leased, "
        "not_before_ms, created_ms, started_ms, finished_ms, tenant, created_by, "
        "priority, time_limit_ms, start_boundary, start_position, trace, serial, "
        "sampling, next_chunk) "
        "SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9, "
        "$10, 'queued', '', -1, 0, 0, 0, 0, 0, 0, 0, $11, 0, 0, $12, $13, $14, $15, "
        "$16, $17, $18, $19, $20, 0 FROM jobs RETURNING ",
        JobColumns());
    const absl::StatusOr<SqlResult> row = change.Run(
        insert.c_str(), {{job.id,
                          key,
                          spec.model,
                          job.model_hash,
                          spec.input,
                          std::string(Name(spec.task)),
                          spec.chunk,
                          spec.window,
                          spec.max_logits_bytes,
                          job.columns,
                          now_ms,
                          job.tenant,
                          job.created_by,
                          job.priority,
                          job.time_limit_ms,
                          job.start_boundary,
                          job.start_position,
                          int64_t{job.trace},
                          int64_t{job.serial},
                          spec.task == Task::kGenerate ? FormatSampling(spec) : std::string()}});
    if (!row.ok()) return row.status();
    absl::StatusOr<std::vector<Job>> jobs = JobsOf(*row);
    if (!jobs.ok()) return jobs.status();
    created = std::move(jobs->front());
    change.Log(*created, "created", {});
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return created;
}

absl::StatusOr<Job> JobStore::Get(const std::string& id) {
  absl::StatusOr<std::vector<Job>> jobs = Jobs("id = $1", {id});
  if (!jobs.ok()) return jobs.status();
  if (jobs->empty()) return absl::NotFoundError(absl::StrCat("there is no job \"", id, "\""));
  return std::move(jobs->front());
}

absl::StatusOr<QueueSummary> JobStore::Queue() {
  const absl::StatusOr<SqlResult> result = database_->Read(
      "SELECT state, COUNT(*), "
      "CAST(SUM(CASE WHEN length < 0 THEN 0 ELSE length - tokens_done END) AS BIGINT), "
      "CAST(SUM(chunk_count - next_chunk) AS BIGINT), "
      "CAST(SUM(leased) AS BIGINT), CAST(SUM(committed) AS BIGINT) "
      "FROM jobs WHERE state IN ('queued', 'running') GROUP BY state",
      {});
  if (!result.ok()) return result.status();
  QueueSummary queue;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    const bool running = row.Text() == "running";
    (running ? queue.jobs_running : queue.jobs_queued) = row.Number();
    queue.tokens += row.Number();
    queue.chunks_waiting += row.Number();
    queue.chunks_leased += row.Number();
    queue.chunks_committed += row.Number();
  }
  return queue;
}

absl::StatusOr<std::vector<Job>> JobStore::List(const JobFilter& filter, int64_t before,
                                                int64_t limit) {
  std::string where = "number IN (SELECT number FROM jobs WHERE number < $1";
  Values values;
  values.emplace_back(before);
  const auto add = [&](const char* column, const std::string& value) {
    values.emplace_back(value);
    absl::StrAppend(&where, " AND ", column, " = $", values.size());
  };
  if (filter.state.has_value()) add("state", Name(*filter.state));
  if (filter.task.has_value()) add("task", Name(*filter.task));
  if (!filter.tenant.empty()) add("tenant", filter.tenant);
  if (!filter.model.empty()) add("model", filter.model);
  values.emplace_back(limit);
  absl::StrAppend(&where, " ORDER BY number DESC LIMIT $", values.size(), ") ORDER BY number DESC");
  return Jobs(where, values);
}

absl::StatusOr<Job> JobStore::Cancel(const std::string& id, int64_t now_ms) {
  absl::StatusOr<Job> job;
  absl::Status status = Write(now_ms, [&](JobTransaction& change) {
    absl::Status ended = change.End(id, JobState::kCancelled, "");
    if (!ended.ok()) return ended;
    job = change.Find(id);
    return job.status();
  });
  if (!status.ok()) return status;
  return job;
}

absl::Status JobStore::Delete(const std::string& id) {
  return Write(0, [&](JobTransaction& change) {
    const absl::StatusOr<Job> job = change.Find(id);
    if (!job.ok()) return job.status();
    if (!IsOver(job->state)) {
      return absl::FailedPreconditionError(
          absl::StrCat("job ", id, " is ", Name(job->state), ": cancel it first"));
    }
    absl::Status gone = change.Change("DELETE FROM events WHERE job = $1", {id}).status();
    if (!gone.ok()) return gone;
    return change.Change("DELETE FROM jobs WHERE id = $1", {id}).status();
  });
}

absl::StatusOr<std::vector<Event>> JobStore::Events(const EventFilter& filter, int64_t after,
                                                    int64_t limit) {
  std::string sql = "SELECT number, job, tenant, kind, at_ms, data FROM events WHERE number > $1";
  Values values = {after, limit};
  for (const auto& [column, value] :
       {std::pair(" AND job = $", &filter.job), std::pair(" AND tenant = $", &filter.tenant)}) {
    if (value->empty()) continue;
    values.push_back(*value);
    absl::StrAppend(&sql, column, values.size());
  }
  absl::StrAppend(&sql, " ORDER BY number LIMIT $2");
  const absl::StatusOr<SqlResult> result = database_->Read(sql.c_str(), values);
  if (!result.ok()) return result.status();
  std::vector<Event> events;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    Event& event = events.emplace_back();
    event.number = row.Number();
    for (std::string* field : {&event.job, &event.tenant, &event.kind}) *field = row.Text();
    event.at_ms = row.Number();
    event.data = row.Text();
  }
  return events;
}

absl::StatusOr<int64_t> JobStore::LastEvent() {
  const absl::StatusOr<SqlResult> result =
      database_->Read("SELECT value FROM counters WHERE name = 'event'", {});
  if (!result.ok()) return result.status();
  return RowReader(result->rows[0]).Number();
}

absl::StatusOr<std::vector<Job>> JobStore::Unplanned(int64_t limit) {
  return Jobs("finished_ms = 0 AND length < 0 ORDER BY number LIMIT $1", {limit});
}

absl::Status JobStore::SetPlan(const std::string& id, const Plan& plan, int64_t now_ms) {
  return Write(now_ms, [&](JobTransaction& change) {
    absl::StatusOr<Job> job = change.Find(id);
    if (!job.ok()) return job.status();
    if (job->state != JobState::kQueued || job->length >= 0) {
      return absl::AbortedError(absl::StrCat("job ", id, " is ", Name(job->state), ", of length ",
                                             job->length, ": it is not planned now"));
    }
    std::vector<SequenceRow> rows = plan.sequences;
    if (rows.empty()) rows.push_back({"", 1, plan.length});
    const int64_t chunks = PlaceSequences(job->spec.chunk, rows);
    const int64_t sequences = rows.back().number + rows.back().repeats;
    change.Log(*job, "planned",
               {{"tokens", plan.length}, {"chunks", chunks}, {"sequences", sequences}});
    if (sequences > 1) {
      absl::Status written = change.WriteSequences(*job, rows);
      if (!written.ok()) return written;
    }
    return change
        .Change(
            "UPDATE jobs SET length = $1, token_bytes = $2, sequences = $3, batch = $4, "
            "chunk_count = $5 WHERE id = $6",
            {{plan.length, plan.token_bytes, sequences, plan.batch, chunks, id}})
        .status();
  });
}

absl::StatusOr<std::vector<SequenceRow>> JobStore::Sequences(const Job& job, int64_t number,
                                                             int64_t limit) {
  if (job.sequences == 1) {
    std::vector<SequenceRow> rows;
    if (number == 0 && job.length >= 0) rows.push_back(job.only());
    return rows;
  }
  const absl::StatusOr<SqlResult> result = database_->Read(
      SelectSequences("job = $1 AND number + repeats > $2 ORDER BY number LIMIT $3").c_str(),
      {job.id, number, limit});
  if (!result.ok()) return result.status();
  std::vector<SequenceRow> rows;
  for (const SqlRow& row : result->rows) rows.push_back(SequenceOf(row));
  return rows;
}

absl::Status JobStore::FailJob(const std::string& id, const std::string& error, int64_t now_ms) {
  return Write(now_ms,
               [&](JobTransaction& change) { return change.End(id, JobState::kFailed, error); });
}

absl::StatusOr<std::vector<CommittedChunk>> JobStore::Committed(const std::string& id,
                                                                int64_t first, int64_t count) {
  const absl::StatusOr<SqlResult> result = database_->Read(
      "SELECT chunk, epoch, output_bytes, output_sha256, boundary_sha256 FROM chunks "
      "WHERE job = $1 AND state = 'committed' AND chunk >= $2 AND chunk - $2 < $3 ORDER BY chunk",
      {id, first, count});
  if (!result.ok()) return result.status();
  std::vector<CommittedChunk> chunks;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    CommittedChunk& chunk = chunks.emplace_back();
    for (int64_t* field : {&chunk.chunk, &chunk.epoch, &chunk.output_bytes}) *field = row.Number();
    chunk.output_sha256 = row.Text();
    chunk.boundary_sha256 = row.Text();
  }
  return chunks;
}

absl::StatusOr<std::vector<Job>> JobStore::Complete(int64_t limit) {
  return Jobs(
      "finished_ms = 0 AND length >= 0 AND committed >= chunk_count ORDER BY number LIMIT $1",
      {limit});
}

absl::Status JobStore::Succeed(const std::string& id, int64_t now_ms) {
  return Schedule(now_ms, [&](JobTransaction& change) {
    const absl::StatusOr<Job> job = change.Find(id);
    if (!job.ok()) return job.status();
    if (job->length < 0 || job->committed < job->chunk_count) {
      return absl::FailedPreconditionError(absl::StrCat("job ", id, " has ", job->committed, " of ",
                                                        job->chunk_count, " chunks committed"));
    }
    return change.End(id, JobState::kSucceeded, "");
  });
}

absl::StatusOr<std::vector<std::string>> JobStore::ExpireJobs(int64_t now_ms) {
  std::vector<std::string> ended;
  const char* too_long =
      "time_limit_ms > 0 AND finished_ms = 0 AND started_ms > 0 AND started_ms + time_limit_ms <= "
      "$1 ORDER BY number";
  const absl::StatusOr<std::vector<Job>> any = Jobs(too_long, {now_ms});
  if (!any.ok()) return any.status();
  if (any->empty()) return ended;
  absl::Status status = Schedule(now_ms, [&](JobTransaction& change) {
    ended.clear();
    const absl::StatusOr<std::vector<Job>> jobs = change.Jobs(too_long, {{now_ms}});
    if (!jobs.ok()) return jobs.status();
    for (const Job& job : *jobs) {
      absl::Status over = change.End(
          job.id, JobState::kFailed,
          absl::StrCat("it ran for longer than its time limit of ", job.time_limit_ms,
                       " ms: ", job.committed, " of ", job.chunk_count, " chunks are done"));
      if (!over.ok()) return over;
      ended.push_back(job.id);
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return ended;
}

}  // namespace longwave

#include "scheduler/job_transaction.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/json/serialize.hpp"

namespace longwave {
namespace {

constexpr char kJobColumns[] =
    "id, number, model, model_hash, input, task, chunk, window_tokens, max_logits_bytes, "
    "output_columns, tenant, created_by, priority, time_limit_ms, start_boundary, start_position, "
    "trace, serial, sampling, "
    "state, error, length, token_bytes, sequences, batch, chunk_count, tokens_done, committed, "
    "next_chunk, epoch, computed, output_bytes, created_ms, started_ms, finished_ms";

// One statement makes so many events at most: each number of them is a statement to prepare.
constexpr size_t kMostEventsAtOnce = 16;
constexpr size_t kMostRowsAtOnce = 100;  // of sequences

absl::StatusOr<Job> JobOf(const SqlRow& columns) {
  RowReader row(columns);
  Job job;
  job.id = row.Text();
  job.number = row.Number();
  job.spec.model = row.Text();
  job.model_hash = row.Text();
  job.spec.input = row.Text();
  const absl::StatusOr<Task> task = ParseTask(row.Text());
  if (!task.ok()) return task.status();
  job.spec.task = *task;
  job.spec.chunk = row.Number();
  job.spec.window = row.Number();
  job.spec.max_logits_bytes = row.Number();
  job.columns = row.Number();
  job.tenant = row.Text();
  job.created_by = row.Text();
  job.priority = row.Number();
  job.time_limit_ms = row.Number();
  job.start_boundary = row.Text();
  job.start_position = row.Number();
  job.trace = row.Number() != 0;
  job.serial = row.Number() != 0;
  if (const std::string sampling = row.Text(); !sampling.empty()) {
    absl::Status parsed = ParseSampling(sampling, job.spec);
    if (!parsed.ok()) return parsed;
  }
  const absl::StatusOr<JobState> state = ParseJobState(row.Text());
  if (!state.ok()) return state.status();
  job.state = *state;
  job.error = row.Text();
  for (int64_t* field :
       {&job.length, &job.token_bytes, &job.sequences, &job.batch, &job.chunk_count,
        &job.tokens_done, &job.committed, &job.next, &job.epoch, &job.computed, &job.output_bytes,
        &job.created_ms, &job.started_ms, &job.finished_ms}) {
    *field = row.Number();
  }
  return job;
}

}  // namespace

const char* JobColumns() { return kJobColumns; }

std::string SelectJobs(const std::string& where) {
  return absl::StrCat("SELECT ", kJobColumns, " FROM jobs WHERE ", where);
}

absl::StatusOr<std::vector<Job>> JobsOf(const SqlResult& result) {
  std::vector<Job> jobs;
  for (const SqlRow& row : result.rows) {
    absl::StatusOr<Job> job = JobOf(row);
    if (!job.ok()) return job.status();
    jobs.push_back(*std::move(job));
  }
  return jobs;
}

std::string SelectSequences(const std::string& where) {
  return absl::StrCat(
      "SELECT name, repeats, length, given, number, first_chunk, first_token FROM sequences WHERE ",
      where);
}

SequenceRow SequenceOf(const SqlRow& columns) {
  RowReader row(columns);
  SequenceRow sequence;
  sequence.name = row.Text();
  for (int64_t* field : {&sequence.repeats, &sequence.length, &sequence.given, &sequence.number,
                         &sequence.first_chunk, &sequence.first_token}) {
    *field = row.Number();
  }
  return sequence;
}

absl::StatusOr<ChunkPlace> JobTransaction::Place(const Job& job, int64_t chunk) {
  if (job.sequences == 1) return PlaceOf(job.only(), job.spec.chunk, chunk);
  const absl::StatusOr<SqlResult> row = connection_.Run(
      SelectSequences("job = $1 AND first_chunk <= $2 ORDER BY first_chunk DESC LIMIT 1").c_str(),
      {{job.id, chunk}});
  if (!row.ok()) return row.status();
  if (row->rows.empty()) {
    return absl::InternalError(absl::StrCat("job ", job.id, ": no sequence has chunk ", chunk));
  }
  return PlaceOf(SequenceOf(row->rows[0]), job.spec.chunk, chunk);
}

absl::Status JobTransaction::WriteSequences(const Job& job, const std::vector<SequenceRow>& rows) {
  for (size_t done = 0; done < rows.size();) {
    const size_t end = std::min(rows.size(), done + kMostRowsAtOnce);
    std::string sql =
        "INSERT INTO sequences (job, first_chunk, chunks, number, repeats, length, given, "
        "first_token, name) VALUES ";
    std::vector<SqlValue> values = {job.id};
    for (; done < end; ++done) {
      const size_t i = values.size();
      absl::StrAppend(&sql, i == 1 ? "($1" : ", ($1");
      for (size_t k = 1; k <= 8; ++k) absl::StrAppend(&sql, ", $", i + k);
      absl::StrAppend(&sql, ")");
      const SequenceRow& row = rows[done];
      values.insert(values.end(), {row.first_chunk, row.chunks(job.spec.chunk), row.number,
                                   row.repeats, row.length, row.given, row.first_token, row.name});
    }
    absl::Status status = connection_.Run(sql.c_str(), values).status();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> JobTransaction::Change(const char* sql, absl::Span<const SqlValue> values) {
  const absl::StatusOr<SqlResult> result = connection_.Run(sql, values);
  if (!result.ok()) return result.status();
  return result->changed;
}

absl::StatusOr<std::vector<Job>> JobTransaction::Jobs(const std::string& where,
                                                      absl::Span<const SqlValue> values) {
  const absl::StatusOr<SqlResult> result = connection_.Run(SelectJobs(where).c_str(), values);
  if (!result.ok()) return result.status();
  return JobsOf(*result);
}

absl::StatusOr<Job> JobTransaction::Find(const std::string& id) {
  absl::StatusOr<std::vector<Job>> jobs = Jobs("id = $1", {{id}});
  if (!jobs.ok()) return jobs.status();
  if (jobs->empty()) return absl::NotFoundError(absl::StrCat("there is no job \"", id, "\""));
  return std::move(jobs->front());
}

absl::Status JobTransaction::End(const std::string& id, JobState state, const std::string& error) {
  const absl::StatusOr<Job> job = Find(id);
  if (!job.ok()) return job.status();
  if (IsOver(job->state)) {
    return absl::AbortedError(absl::StrCat("job ", id, " is ", Name(job->state), " already"));
  }
  absl::Status status = Change(
                            "UPDATE jobs SET state = $1, error = $2, finished_ms = $3, leased = 0, "
                            "next_chunk = committed WHERE id = $4",
                            {{std::string(Name(state)), error, now_ms_, id}})
                            .status();
  if (!status.ok()) return status;
  boost::json::object data;
  if (!error.empty()) data["error"] = error;
  Log(*job, Name(state), data);
  if (job->leases() == 0) return absl::OkStatus();
  return Change("UPDATE chunks SET state = 'idle' WHERE job = $1 AND state = 'leased'", {{id}})
      .status();
}

void JobTransaction::Log(const Job& job, const char* kind, const boost::json::object& data) {
  events_.push_back({0, job.id, job.tenant, kind, now_ms_, boost::json::serialize(data)});
}

absl::Status JobTransaction::WriteEvents() {
  if (events_.empty()) return absl::OkStatus();
  const int64_t count = static_cast<int64_t>(events_.size());
  const absl::StatusOr<SqlResult> last = connection_.Run(
      "UPDATE counters SET value = value + $1 WHERE name = 'event' RETURNING value", {{count}});
  if (!last.ok()) return last.status();
  int64_t number = RowReader(last->rows[0]).Number() - count;
  for (size_t done = 0; done < events_.size();) {
    const size_t end = std::min(events_.size(), done + kMostEventsAtOnce);
    std::string sql = "INSERT INTO events (number, job, tenant, kind, at_ms, data) VALUES ";
    std::vector<SqlValue> values;
    for (; done < end; ++done) {
      const size_t i = values.size();
      absl::StrAppend(&sql, i == 0 ? "($" : ", ($", i + 1, ", $", i + 2, ", $", i + 3, ", $", i + 4,
                      ", $", i + 5, ", $", i + 6, ")");
      Event& event = events_[done];
      values.insert(values.end(),
                    {++number, event.job, event.tenant, event.kind, event.at_ms, event.data});
    }
    absl::Status status = connection_.Run(sql.c_str(), values).status();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string SelectTenants(const std::string& where) {
  return absl::StrCat(
      "SELECT name, weight, most_queued_jobs, most_leases, most_bytes FROM tenants WHERE ", where);
}

Tenant TenantOf(const SqlRow& columns) {
  RowReader row(columns);
  Tenant tenant;
  tenant.name = row.Text();
  for (int64_t* field :
       {&tenant.weight, &tenant.most_queued_jobs, &tenant.most_leases, &tenant.most_bytes}) {
    *field = row.Number();
  }
  return tenant;
}

absl::StatusOr<Tenant> JobTransaction::GetTenant(const std::string& name) {
  const absl::StatusOr<SqlResult> result =
      connection_.Run(SelectTenants("name = $1").c_str(), {{name}});
  if (!result.ok()) return result.status();
  if (!result->rows.empty()) return TenantOf(result->rows[0]);
  absl::Status made = Change("INSERT INTO tenants VALUES ($1, 1, 0, 0, 0)", {{name}}).status();
  if (!made.ok()) return made;
  Tenant tenant;
  tenant.name = name;
  return tenant;
}

}  // namespace longwave

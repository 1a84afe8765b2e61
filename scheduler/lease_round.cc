#include "scheduler/lease_round.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

// The bytes of a chunk's tokens and of the one after them.
// At most.
constexpr char kBytes[] = "(CASE WHEN length < chunk THEN length ELSE chunk END + 1) * token_bytes";

}  // namespace

absl::Status LeaseRound::Start(const Fairness& before) {
  const absl::StatusOr<SqlResult> result = change_.Run(
      "SELECT name, weight, most_leases, "
      "(SELECT CAST(COALESCE(SUM(leased), 0) AS BIGINT) FROM jobs "
      " WHERE tenant = name AND leased > 0), "
      // Not EXISTS: PostgreSQL might read all jobs that wait, for a table of their tenants.
      "COALESCE((SELECT 1 FROM jobs WHERE tenant = name AND finished_ms = 0 AND leased = 0 "
      " AND next_chunk < chunk_count LIMIT 1), 0) FROM tenants",
      {});
  if (!result.ok()) return result.status();
  now_ = before.now;
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    Candidate tenant;
    tenant.name = row.Text();
    tenant.weight = row.Number();
    tenant.most_leases = row.Number();
    tenant.leases = row.Number();
    tenant.waiting = row.Number() != 0;
    if (tenant.leases == 0 && !tenant.waiting) continue;
    const auto given = before.given.find(tenant.name);
    tenant.given = given == before.given.end() ? 0 : given->second;
    tenants_.emplace(tenant.name, std::move(tenant));
  }
  return absl::OkStatus();
}

void LeaseRound::Finish(Fairness& after) const {
  after.now = now_;
  for (const auto& [name, tenant] : tenants_) after.given[name] = tenant.given;
}

absl::StatusOr<std::optional<Lease>> LeaseRound::Give(const LeaseRequest& request) {
  absl::StatusOr<std::optional<Job>> job = TakeWaiting(request);
  if (job.ok() && !job->has_value() && request.spread) job = TakeSpreading(request);
  if (!job.ok()) return job.status();
  if (!job->has_value()) return std::nullopt;
  const absl::StatusOr<ChunkPlace> place = change_.Place(**job, (*job)->next - 1);
  if (!place.ok()) return place.status();
  absl::Status counted = Count(**job, place->tokens);
  if (!counted.ok()) return counted;
  absl::StatusOr<Lease> lease = WriteChunk(**std::move(job), *place, request.worker);
  if (!lease.ok()) return lease.status();
  return std::move(*lease);
}

absl::StatusOr<std::optional<Job>> LeaseRound::Take(const std::string& which,
                                                    std::vector<SqlValue> values, bool runs) {
  const std::string now = absl::StrCat("$", values.size() + 1);
  values.emplace_back(change_.now_ms());
  const std::string sql = absl::StrCat(
      "UPDATE jobs SET ", runs ? "" : "state = 'running', ",
      "epoch = epoch + 1, next_chunk = next_chunk + 1, "
      "leased = leased + 1, computed = computed + CASE WHEN sequences > 1 THEN 0 "
      "WHEN length - next_chunk * chunk < chunk THEN length - next_chunk * chunk ELSE chunk END, "
      "started_ms = CASE WHEN epoch = 0 THEN ",
      now, " ELSE started_ms END WHERE id = ", which, " RETURNING ", JobColumns());
  const absl::StatusOr<SqlResult> result = change_.Run(sql.c_str(), values);
  if (!result.ok()) return result.status();
  absl::StatusOr<std::vector<Job>> jobs = JobsOf(*result);
  if (!jobs.ok()) return jobs.status();
  if (jobs->empty()) return std::nullopt;
  return std::move(jobs->front());
}

absl::StatusOr<std::optional<Job>> LeaseRound::TakeWaiting(const LeaseRequest& request) {
  std::vector<Candidate*> order;
  for (auto& [name, tenant] : tenants_) {
    if (tenant.waiting && !tenant.full() && request.most_bytes > tenant.nothing_below) {
      order.push_back(&tenant);
    }
  }
  std::sort(order.begin(), order.end(), [](const Candidate* a, const Candidate* b) {
    const int64_t of_a = a->leases * b->weight, of_b = b->leases * a->weight;
    return std::tie(of_a, a->given, a->name) < std::tie(of_b, b->given, b->name);
  });
  const std::string first = absl::StrCat(
      "(SELECT id FROM jobs WHERE tenant = $1 AND finished_ms = 0 AND leased = 0 "
      "AND next_chunk < chunk_count AND not_before_ms <= $2 AND ",
      kBytes, " <= $3 ORDER BY priority DESC, state DESC, number LIMIT 1)");
  for (Candidate* tenant : order) {
    absl::StatusOr<std::optional<Job>> job =
        Take(first, {tenant->name, change_.now_ms(), request.most_bytes}, false);
    if (!job.ok() || job->has_value()) return job;
    tenant->nothing_below = request.most_bytes;
  }
  return std::nullopt;
}

absl::Status LeaseRound::LoadSpreading() {
  const absl::StatusOr<SqlResult> result =
      change_.Run(absl::StrCat("SELECT id, tenant, leased, priority, number, ", kBytes,
                               ", not_before_ms FROM jobs "
                               "WHERE leased > 0 AND next_chunk < chunk_count AND (serial = 0 OR "
                               "EXISTS (SELECT 1 FROM sequences WHERE job = id "
                               "AND first_chunk <= next_chunk "
                               "AND next_chunk < first_chunk + repeats * chunks "
                               "AND (next_chunk - first_chunk) % chunks = 0))")
                      .c_str(),
                  {});
  if (!result.ok()) return result.status();
  spreading_.emplace();
  for (const SqlRow& columns : result->rows) {
    RowReader row(columns);
    Spreading& job = spreading_->emplace_back();
    job.id = row.Text();
    job.tenant = row.Text();
    for (int64_t* field :
         {&job.leases, &job.priority, &job.number, &job.bytes, &job.not_before_ms}) {
      *field = row.Number();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Job>> LeaseRound::TakeSpreading(const LeaseRequest& request) {
  absl::Status status = spreading_.has_value() ? absl::OkStatus() : LoadSpreading();
  if (!status.ok()) return status;
  const Spreading* best = nullptr;
  for (const Spreading& job : *spreading_) {
    if (tenants_.at(job.tenant).full() || job.bytes > request.most_bytes ||
        job.not_before_ms > change_.now_ms()) {
      continue;
    }
    if (best == nullptr || std::tuple(job.leases, -job.priority, job.number) <
                               std::tuple(best->leases, -best->priority, best->number)) {
      best = &job;
    }
  }
  if (best == nullptr) return std::nullopt;
  return Take("$1", {best->id}, true);
}

absl::Status LeaseRound::Count(const Job& job, int64_t tokens) {
  Candidate& tenant = tenants_.at(job.tenant);
  ++tenant.leases;
  now_ = std::max(now_, tenant.given);
  tenant.given = now_ + static_cast<double>(tokens) / static_cast<double>(tenant.weight);
  if (!spreading_.has_value()) return absl::OkStatus();
  std::erase_if(*spreading_, [&](const Spreading& other) { return other.id == job.id; });
  if (job.next == job.chunk_count) return absl::OkStatus();
  if (job.serial) {
    const absl::StatusOr<ChunkPlace> next = change_.Place(job, job.next);
    if (!next.ok()) return next.status();
    if (next->first > 0) return absl::OkStatus();
  }
  const int64_t bytes = (std::min(job.length, job.spec.chunk) + 1) * job.token_bytes;
  spreading_->push_back({job.id, job.tenant, job.leases(), job.priority, job.number, bytes, 0});
  return absl::OkStatus();
}

absl::StatusOr<Lease> LeaseRound::WriteChunk(Job job, const ChunkPlace& place,
                                             const std::string& worker) {
  Lease lease;
  lease.key = {job.id, job.next - 1, job.epoch};
  lease.place = place;
  if (job.sequences > 1) {
    absl::Status counted = change_
                               .Change("UPDATE jobs SET computed = computed + $1 WHERE id = $2",
                                       {place.tokens, job.id})
                               .status();
    if (!counted.ok()) return counted;
    job.computed += place.tokens;
  }
  if (place.first > 0) {
    const absl::StatusOr<SqlResult> before = change_.Run(
        "SELECT epoch, CASE WHEN state = 'leased' THEN worker ELSE '' END, boundary_sha256 FROM "
        "chunks "
        "WHERE job = $1 AND chunk = $2",
        {job.id, lease.key.chunk - 1});
    if (!before.ok()) return before.status();
    RowReader row(before->rows[0]);
    lease.before_epoch = row.Number();
    lease.before_worker = row.Text();
    lease.before_sha256 = row.Text();
  }
  absl::Status status =
      change_
          .Change(
              "INSERT INTO chunks (job, chunk, state, epoch, worker, losses, lost_by, failures, "
              "output_bytes, output_sha256, boundary_sha256, tokens) "
              "VALUES ($1, $2, 'leased', $3, $4, 0, '', 0, 0, '', '', $5) "
              "ON CONFLICT (job, chunk) DO UPDATE SET state = 'leased', epoch = excluded.epoch, "
              "worker = excluded.worker",
              {job.id, lease.key.chunk, job.epoch, worker, place.tokens})
          .status();
  if (!status.ok()) return status;
  if (job.epoch == 1) change_.Log(job, "started", {{"worker", worker}});
  lease.job = std::move(job);
  return lease;
}

}  // namespace longwave

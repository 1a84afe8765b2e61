// One change of the job store, with the events that tell of it. Internal to the job store.
//
// Thread safety: its transaction's alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "boost/json/object.hpp"
#include "scheduler/job_store.h"
#include "scheduler/sql_database.h"

namespace longwave {

// The columns that JobsOf() reads.
const char* JobColumns();
// SELECT ... FROM jobs WHERE `where`.
std::string SelectJobs(const std::string& where);
absl::StatusOr<std::vector<Job>> JobsOf(const SqlResult& result);
// SELECT ... FROM sequences WHERE `where`.
std::string SelectSequences(const std::string& where);
SequenceRow SequenceOf(const SqlRow& row);
// SELECT ... FROM tenants WHERE `where`.
std::string SelectTenants(const std::string& where);
Tenant TenantOf(const SqlRow& row);

class JobTransaction {
 public:
  JobTransaction(SqlConnection& connection, int64_t now_ms)
      : connection_(connection), now_ms_(now_ms) {}

  int64_t now_ms() const { return now_ms_; }
  absl::StatusOr<SqlResult> Run(const char* sql, absl::Span<const SqlValue> values) {
    return connection_.Run(sql, values);
  }
  // The rows that it changed.
  absl::StatusOr<int64_t> Change(const char* sql, absl::Span<const SqlValue> values);
  absl::StatusOr<std::vector<Job>> Jobs(const std::string& where,
                                        absl::Span<const SqlValue> values);
  absl::StatusOr<Job> Find(const std::string& id);  // NotFound
  // REQUIRES: the job is planned and has this chunk.
  absl::StatusOr<ChunkPlace> Place(const Job& job, int64_t chunk);
  absl::Status WriteSequences(const Job& job, const std::vector<SequenceRow>& rows);
  // Aborted if the job is over. All its leases are void from here on.
  absl::Status End(const std::string& id, JobState state, const std::string& error);
  // One that is not known yet is made.
  absl::StatusOr<Tenant> GetTenant(const std::string& name);

  void Log(const Job& job, const char* kind, const boost::json::object& data);
  absl::Status WriteEvents();  // last
  const std::vector<Event>& events() const { return events_; }

 private:
  SqlConnection& connection_;
  const int64_t now_ms_;
  std::vector<Event> events_;
};

}  // namespace longwave

#include "scheduler/schema.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

// Statements by version, each run once, in order. A version that was released is never changed;
// changes are a new version.
const std::vector<std::vector<const char*>>& SchemaVersions() {
  static const auto* versions = new std::vector<std::vector<const char*>>{
      {
          R"(CREATE TABLE files (
               id TEXT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL,
               bytes BIGINT NOT NULL, created_ms BIGINT NOT NULL))",
          R"(CREATE TABLE jobs (
               id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, idempotency_key TEXT UNIQUE,
               model TEXT NOT NULL, model_hash TEXT NOT NULL, input TEXT NOT NULL,
               task TEXT NOT NULL, chunk BIGINT NOT NULL, window_tokens BIGINT NOT NULL,
               max_logits_bytes BIGINT NOT NULL, output_columns BIGINT NOT NULL,
               state TEXT NOT NULL, error TEXT NOT NULL,
               length BIGINT NOT NULL, token_bytes BIGINT NOT NULL,
               committed BIGINT NOT NULL, epoch BIGINT NOT NULL, computed BIGINT NOT NULL,
               output_bytes BIGINT NOT NULL, leased BIGINT NOT NULL, not_before_ms BIGINT NOT NULL,
               created_ms BIGINT NOT NULL, started_ms BIGINT NOT NULL,
               finished_ms BIGINT NOT NULL))",
          "CREATE INDEX jobs_by_state ON jobs (state, number)",
          "CREATE INDEX jobs_to_lease ON jobs (state, leased, number)",
          "CREATE INDEX jobs_to_plan ON jobs (number) WHERE state = 'queued' AND length < 0",
          R"(CREATE TABLE chunks (
               job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, chunk BIGINT NOT NULL,
               state TEXT NOT NULL, epoch BIGINT NOT NULL, worker TEXT NOT NULL,
               losses BIGINT NOT NULL, lost_by TEXT NOT NULL, failures BIGINT NOT NULL,
               output_bytes BIGINT NOT NULL, output_sha256 TEXT NOT NULL,
               boundary_sha256 TEXT NOT NULL, PRIMARY KEY (job, chunk)))",
          "CREATE INDEX chunks_by_state ON chunks (state)",
      },
      {
          "ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
          "ALTER TABLE jobs ADD COLUMN created_by TEXT NOT NULL DEFAULT ''",
          "ALTER TABLE jobs ADD COLUMN priority BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN time_limit_ms BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN start_boundary TEXT NOT NULL DEFAULT ''",
          "ALTER TABLE jobs ADD COLUMN start_position BIGINT NOT NULL DEFAULT 0",
          // Chunks committed to next_chunk - 1 are leased, and so many are they: `leased`.
          "ALTER TABLE jobs ADD COLUMN next_chunk BIGINT NOT NULL DEFAULT 0",
          "UPDATE jobs SET next_chunk = committed + leased",
          // From here on a key is its tenant's: TENANT/KEY.
          R"(UPDATE jobs SET idempotency_key = 'default/' || idempotency_key
             WHERE idempotency_key IS NOT NULL)",
          "DROP INDEX jobs_to_lease",
          R"(CREATE INDEX jobs_to_lease ON jobs (tenant, priority DESC, state DESC, number)
             WHERE finished_ms = 0 AND leased = 0 AND length > next_chunk * chunk)",
          "CREATE INDEX jobs_leased ON jobs (tenant, leased) WHERE leased > 0",
          R"(CREATE INDEX jobs_complete ON jobs (number)
             WHERE finished_ms = 0 AND length >= 0 AND length <= committed * chunk)",
          "CREATE INDEX jobs_limited ON jobs (number) WHERE time_limit_ms > 0 AND finished_ms = 0",
          "CREATE INDEX jobs_by_tenant ON jobs (tenant, number)",
          "CREATE INDEX jobs_by_tenant_and_state ON jobs (tenant, state, number)",
          "CREATE INDEX jobs_by_model ON jobs (model, number)",
          "CREATE INDEX jobs_by_input ON jobs (input) WHERE finished_ms = 0",
          "ALTER TABLE chunks ADD COLUMN unblamed_losses BIGINT NOT NULL DEFAULT 0",
          "DROP INDEX chunks_by_state",
          "CREATE INDEX chunks_leased ON chunks (job) WHERE state = 'leased'",

          "ALTER TABLE files ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
          "ALTER TABLE files ADD COLUMN number BIGINT NOT NULL DEFAULT 0",
          "UPDATE files SET number = (SELECT COUNT(*) FROM files f WHERE f.id <= files.id)",
          "CREATE INDEX files_by_number ON files (number)",
          "CREATE INDEX files_by_tenant ON files (tenant, number, bytes)",

          // Limits: 0 is none.
          R"(CREATE TABLE tenants (
               name TEXT PRIMARY KEY, weight BIGINT NOT NULL, most_queued_jobs BIGINT NOT NULL,
               most_leases BIGINT NOT NULL, most_bytes BIGINT NOT NULL))",
          "INSERT INTO tenants VALUES ('default', 1, 0, 0, 0)",
          // The last number given: of events, which must not be given twice.
          "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
          "INSERT INTO counters VALUES ('event', 0)",
          R"(CREATE TABLE events (
               number BIGINT PRIMARY KEY, job TEXT NOT NULL, tenant TEXT NOT NULL,
               kind TEXT NOT NULL, at_ms BIGINT NOT NULL, data TEXT NOT NULL))",
          "CREATE INDEX events_by_job ON events (job, number)",
          "CREATE INDEX events_by_tenant ON events (tenant, number)",
          R"(CREATE TABLE leadership (
               id BIGINT PRIMARY KEY, term BIGINT NOT NULL, server TEXT NOT NULL,
               endpoint TEXT NOT NULL, beat_ms BIGINT NOT NULL))",
          "INSERT INTO leadership VALUES (1, 0, '', '', 0)",
          R"(CREATE TABLE tokens (
               id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
               role TEXT NOT NULL, name TEXT NOT NULL, created_ms BIGINT NOT NULL,
               expires_ms BIGINT NOT NULL, last_used_ms BIGINT NOT NULL))",
          R"(CREATE TABLE sessions (
               id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, tenant TEXT NOT NULL,
               model TEXT NOT NULL, model_hash TEXT NOT NULL, position BIGINT NOT NULL,
               boundary TEXT NOT NULL, pending TEXT NOT NULL, version BIGINT NOT NULL,
               created_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL))",
          "CREATE INDEX sessions_by_tenant ON sessions (tenant, number)",
          "ALTER TABLE jobs ADD COLUMN trace BIGINT NOT NULL DEFAULT 0",
      },
      {
          // Chunks no longer follow from length and chunk alone: a job may have several sequences.
          "ALTER TABLE jobs ADD COLUMN sequences BIGINT NOT NULL DEFAULT 1",
          "ALTER TABLE jobs ADD COLUMN batch BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN chunk_count BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN tokens_done BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN serial BIGINT NOT NULL DEFAULT 0",
          "ALTER TABLE jobs ADD COLUMN sampling TEXT NOT NULL DEFAULT ''",
          R"(UPDATE jobs SET
               chunk_count = length / chunk + CASE WHEN length % chunk = 0 THEN 0 ELSE 1 END,
               tokens_done = CASE WHEN length < committed * chunk THEN length
                                  ELSE committed * chunk END
             WHERE length >= 0)",
          "ALTER TABLE chunks ADD COLUMN tokens BIGINT NOT NULL DEFAULT 0",
          R"(UPDATE chunks SET tokens =
               (SELECT CASE WHEN length - chunks.chunk * jobs.chunk < jobs.chunk
                            THEN length - chunks.chunk * jobs.chunk ELSE jobs.chunk END
                FROM jobs WHERE id = job))",
          "DROP INDEX jobs_to_lease",
          R"(CREATE INDEX jobs_to_lease ON jobs (tenant, priority DESC, state DESC, number)
             WHERE finished_ms = 0 AND leased = 0 AND next_chunk < chunk_count)",
          "DROP INDEX jobs_complete",
          R"(CREATE INDEX jobs_complete ON jobs (number)
             WHERE finished_ms = 0 AND length >= 0 AND committed >= chunk_count)",
          // A database that knows little of its rows prefers an index with an equality.
          "DROP INDEX jobs_to_plan",
          "CREATE INDEX jobs_to_plan ON jobs (number) WHERE finished_ms = 0 AND length < 0",
          // Lists: a filter that few rows pass is looked for in an index alone.
          "DROP INDEX jobs_by_state",
          "CREATE INDEX jobs_by_state ON jobs (state, number, tenant, model, task)",
          "DROP INDEX jobs_by_tenant",
          "CREATE INDEX jobs_by_tenant ON jobs (tenant, number, state, model, task)",
          "DROP INDEX jobs_by_tenant_and_state",
          "CREATE INDEX jobs_by_tenant_and_state ON jobs (tenant, state, number, model, task)",
          "DROP INDEX jobs_by_model",
          "CREATE INDEX jobs_by_model ON jobs (model, number, tenant, state, task)",
          "CREATE INDEX jobs_by_task ON jobs (task, number, tenant, state, model)",
          // Of jobs that have several; `chunks` is of each of the row's sequences.
          R"(CREATE TABLE sequences (
               job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
               first_chunk BIGINT NOT NULL, chunks BIGINT NOT NULL, number BIGINT NOT NULL,
               repeats BIGINT NOT NULL, length BIGINT NOT NULL, given BIGINT NOT NULL,
               first_token BIGINT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (job, first_chunk)))",
          "CREATE UNIQUE INDEX sequences_by_number ON sequences (job, number)",
      },
  };
  return *versions;
}

}  // namespace

absl::Status Migrate(SqlDatabase& database, int64_t up_to) {
  return database.Write([&](SqlConnection& connection) {
    const char* first = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";
    absl::Status status = connection.Run(first, {}).status();
    if (!status.ok()) return status;
    const absl::StatusOr<SqlResult> found =
        connection.Run("SELECT version FROM schema_version", {});
    if (!found.ok()) return found.status();
    if (found->rows.empty()) {
      status = connection.Run("INSERT INTO schema_version VALUES (0)", {}).status();
    }
    const int64_t version = found->rows.empty() ? 0 : RowReader(found->rows[0]).Number();
    if (version == up_to) return status;
    if (version > kSchemaVersion) {
      return absl::FailedPreconditionError(absl::StrCat(database.name(), " has schema version ",
                                                        version, ", this program knows up to ",
                                                        kSchemaVersion));
    }
    for (int64_t i = version; status.ok() && i < up_to; ++i) {
      for (const char* sql : SchemaVersions()[i]) {
        if (status.ok()) status = connection.Run(sql, {}).status();
      }
    }
    if (!status.ok()) return status;
    return connection.Run("UPDATE schema_version SET version = $1", {up_to}).status();
  });
}

}  // namespace longwave

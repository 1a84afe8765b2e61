// The job store's schema: statements by version, each run once, in order, in one transaction a
// version. A version that was released is never changed; changes are a new version.
#pragma once

#include <vector>

namespace longwave {

inline const std::vector<std::vector<const char*>>& SchemaVersions() {
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
  };
  return *versions;
}

}  // namespace longwave

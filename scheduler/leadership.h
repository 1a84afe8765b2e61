// Which of several servers on one database leads: the one that schedules. A row has the leader's
// term, name, worker endpoint and last beat, by the database's clock. Whoever finds the beat older
// than `stale_ms` takes over under the next term. That only decides who tries: what a leader may
// write is decided by the term, which JobStore checks in each scheduling transaction.
//
// A database that is one server's alone (SQLite) is led by whoever asks.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/sql_database.h"

namespace longwave {

struct Leader {
  int64_t term = 0;
  std::string server, endpoint;  // empty: nobody leads
  bool self = false;
};

class Leadership {
 public:
  static constexpr int64_t kStaleMs = 6000;

  // `server`: a name that no other process ever had. `endpoint`: where its workers connect to.
  Leadership(SqlDatabase& database, std::string server, std::string endpoint,
             int64_t stale_ms = kStaleMs)
      : database_(database),
        server_(std::move(server)),
        endpoint_(std::move(endpoint)),
        stale_ms_(stale_ms) {}

  // About once a second: the leader says that it is there, all others look whether it is. Returns
  // who leads now. After an error nobody can tell: the caller leads no longer than until the next
  // refusal, and asks again.
  absl::StatusOr<Leader> Beat();
  // At the end: another server need not wait. Nothing happens unless this server leads.
  absl::Status Resign();

 private:
  SqlDatabase& database_;
  const std::string server_, endpoint_;
  const int64_t stale_ms_;
};

}  // namespace longwave

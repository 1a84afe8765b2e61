// Sessions: streams of tokens that are appended to, with the state that a model has after them.
//
// The state is an object of the object store, a boundary; the row names it. A change is a
// compare-and-set on the row's version, so that of two that append at once one is refused.
//
// Thread safety: safe. Time: milliseconds, given by the caller.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/sql_database.h"

namespace longwave {

struct Session {
  std::string id, tenant, model, model_hash;
  int64_t number = 0;    // in the order of Create(), which gives it
  int64_t position = 0;  // tokens that went into the state
  std::string boundary;  // the object with the state after them; empty: the zero state
  std::string pending;   // the token after those, as a number; empty: none
  int64_t version = 0;   // grows with each change
  int64_t created_ms = 0, updated_ms = 0;
};

class SessionStore {
 public:
  // `database` has the tables (JobStore::Open makes them), and outlives this.
  explicit SessionStore(SqlDatabase& database) : database_(database) {}

  absl::StatusOr<Session> Create(const Session& session);  // AlreadyExists
  absl::StatusOr<Session> Get(const std::string& id);      // NotFound
  // Newest first, `before` (a number) excluded; an empty tenant: all of them.
  absl::StatusOr<std::vector<Session>> List(const std::string& tenant, int64_t before,
                                            int64_t limit);
  absl::Status Delete(const std::string& id);  // NotFound
  // Puts position, boundary, pending and updated_ms into the row, under the next version. Aborted
  // where the row has another version than `session`, or is of a session of that name that was made
  // since; NotFound. Returns the row.
  absl::StatusOr<Session> CompareAndSet(const Session& session);

 private:
  SqlDatabase& database_;
};

}  // namespace longwave

// The tables that all stores share, and how a database of an earlier program gets to them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "scheduler/sql_database.h"

namespace longwave {

// Makes or upgrades the tables, in one transaction; safe where several programs do so at once.
// FailedPrecondition: the database is of a later program. `up_to`: a test's, that wants a database
// of an earlier one.
inline constexpr int64_t kSchemaVersion = 3;
absl::Status Migrate(SqlDatabase& database, int64_t up_to = kSchemaVersion);

}  // namespace longwave

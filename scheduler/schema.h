// The tables that all stores share, and how a database of an earlier program gets to them.
#pragma once

#include "absl/status/status.h"
#include "scheduler/sql_database.h"

namespace longwave {

// Makes or upgrades the tables, in one transaction; safe where several programs do so at once.
// FailedPrecondition: the database is of a later program.
absl::Status Migrate(SqlDatabase& database);

}  // namespace longwave

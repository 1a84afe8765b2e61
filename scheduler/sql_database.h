// What the job store needs of a database, as small as it is: statements with values, and
// transactions. Statements keep to what SQLite and PostgreSQL both understand, with $1, $2, ... for
// values.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace longwave {

using SqlValue = std::variant<std::monostate, int64_t, std::string>;  // monostate: NULL

struct SqlResult {
  std::vector<std::vector<SqlValue>> rows;
  int64_t changed = 0;  // rows that the statement inserted, updated or deleted
};

class SqlDatabase {
 public:
  virtual ~SqlDatabase() = default;
  // One statement. AlreadyExists where it would break a uniqueness.
  virtual absl::StatusOr<SqlResult> Run(const char* sql, absl::Span<const SqlValue> values) = 0;
  // `work` sees no write of others while it runs, and takes effect whole and on the disk, or, where
  // it or the database answers an error, not at all.
  virtual absl::Status Transaction(absl::FunctionRef<absl::Status()> work) = 0;
};

// A file, or ":memory:".
absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenSqlite(const std::string& path);

}  // namespace longwave

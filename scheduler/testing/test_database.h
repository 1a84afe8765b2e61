// Databases for tests: SQLite's in a folder, and those of a real PostgreSQL server that the test
// process starts once, on a socket in a folder of its own, and ends with itself.
//
// Without PostgreSQL's programs the tests on it are skipped, saying so; with
// LONGWAVE_TEST_POSTGRES=required in the environment they fail instead.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/sql_database.h"

namespace longwave {

class PostgresServer {
 public:
  // NotFound: the programs are not there.
  static absl::StatusOr<std::unique_ptr<PostgresServer>> Start(bool durable = false);
  ~PostgresServer();

  // A new, empty database's URI.
  absl::StatusOr<std::string> NewDatabase();
  void Stop();
  absl::Status Restart();
  // It ends at once, its memory is lost, and starts again.
  absl::Status Crash();

 private:
  PostgresServer() = default;
  absl::Status Launch();
  void End(int signal);
  std::string Uri(const std::string& database) const;

  std::string folder_, programs_;
  pid_t process_ = 0;
  bool durable_ = false;
  int databases_ = 0;
};

// One server for the process. Skips or fails the running test and returns null where there is none.
PostgresServer* SharedPostgres();

enum class DatabaseKind { kSqlite, kPostgres };
inline const char* Name(DatabaseKind kind) {
  return kind == DatabaseKind::kSqlite ? "Sqlite" : "Postgres";
}

// A new database of a test; gone with this object.
class TestDatabase {
 public:
  explicit TestDatabase(DatabaseKind kind);
  ~TestDatabase();
  // Empty where the test is skipped.
  const std::string& uri() const { return uri_; }

 private:
  std::string uri_, folder_;
};

}  // namespace longwave

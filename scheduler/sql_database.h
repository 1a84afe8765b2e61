// What the stores need of a database, as small as it is. Statements keep to what SQLite and
// PostgreSQL both understand, with $1, $2, ... for values.
//
// There is one writer at a time, in the whole database and whichever server it is of: so a
// transaction sees no write of others while it runs, nothing is ever retried for a conflict, and
// what is numbered (jobs, events) becomes visible in the order of its numbers. Writers that wait go
// together in one transaction, so that they share its way to the disk. Readers wait for nobody.
//
// Thread safety: SqlDatabase is safe; a SqlConnection is its transaction's alone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "observability/request_probe.h"

namespace longwave {

using SqlValue = std::variant<std::monostate, int64_t, std::string>;  // monostate: a NULL of text
using SqlRow = std::vector<SqlValue>;

struct SqlResult {
  std::vector<SqlRow> rows;
  int64_t changed = 0;  // rows that the statement inserted, updated or deleted
};

// A row's values, one after another. REQUIRES: of the types that are asked for.
class RowReader {
 public:
  explicit RowReader(const SqlRow& row) : row_(row) {}
  int64_t Number() { return std::get<int64_t>(row_[next_++]); }
  std::string Text() { return std::get<std::string>(row_[next_++]); }

 private:
  const SqlRow& row_;
  size_t next_ = 0;
};

class SqlConnection {
 public:
  virtual ~SqlConnection() = default;
  // One statement. AlreadyExists where it would break a uniqueness, InvalidArgument for a text that
  // is not UTF-8 or has a zero byte (PostgreSQL keeps neither), Unavailable where the database is
  // away, busy or full, Internal for anything else. For what outsiders may read: PlainSqlError().
  virtual absl::StatusOr<SqlResult> Run(const char* sql, absl::Span<const SqlValue> values) = 0;
};

class SqlWriter : public SqlConnection {
 public:
  // Starts a transaction, once no other one writes.
  virtual absl::Status Begin() = 0;
  // False: the connection is lost, and with it what was not committed.
  virtual bool connected() const = 0;
};

class SqlDatabase {
 public:
  using Work = absl::FunctionRef<absl::Status(SqlConnection&)>;

  virtual ~SqlDatabase() = default;
  // Runs `work`, which takes effect whole and on the disk, or, where it or the database answers an
  // error, not at all; but for Unavailable from the last step, where nobody knows. `work` returns
  // every error of a statement. It may run again from its start, and in another caller's thread.
  absl::Status Write(Work work);
  // One statement that changes nothing, beside whoever writes. Not from within Write()'s work,
  // which sees by its own connection what it wrote.
  absl::StatusOr<SqlResult> Read(const char* sql, absl::Span<const SqlValue> values);
  // SQL for the database's clock, in milliseconds since 1970.
  virtual const char* clock_ms() const = 0;
  // For messages: without a password.
  virtual std::string name() const = 0;
  // Whether several servers may use it at a time.
  virtual bool shared() const = 0;
  // Whom to tell of transactions and reads, once, before the first; it outlives this.
  void Observe(RequestProbe& probe) { probe_ = &probe; }

 protected:
  virtual absl::StatusOr<SqlResult> ReadNow(const char* sql, absl::Span<const SqlValue> values) = 0;
  // The connection of the one thread that writes now; a new one where the last was lost.
  virtual absl::StatusOr<SqlWriter*> GetWriter() = 0;

 private:
  struct Waiting {
    Work work;
    absl::Status status;
    bool done = false;
  };
  void RunGroup(absl::Span<Waiting* const> group);
  // Unavailable and `again`: nothing of it can have taken effect.
  absl::Status TryGroup(absl::Span<Waiting* const> group, bool& again);

  RequestProbe* probe_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Waiting*> waiting_;
  bool writing_ = false;
};

// What a database said is for the log: it has paths, addresses and SQL. `plain` is for outsiders.
absl::Status SqlError(absl::StatusCode code, absl::string_view message, absl::string_view plain);
// Of an error that was made so; nullopt for any other, which names nothing of the database.
std::optional<std::string> PlainSqlError(const absl::Status& status);

// `text` with a question mark for each byte that no text in a database may have: zero, and what is
// not UTF-8.
std::string CleanText(absl::string_view text);

// A file, or ":memory:".
absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenSqlite(const std::string& path);
// postgresql://USER@HOST:PORT/DATABASE, and whatever else libpq takes in a URI. It connects again
// by itself after the server went away. Where no answer comes within `most_wait`, the connection is
// given up; a server that works gives up a statement before that.
absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenPostgres(
    const std::string& uri, std::chrono::milliseconds most_wait = std::chrono::seconds(20));
// Either: what has "://" in it must be postgresql:// or postgres://.
absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenDatabase(const std::string& uri_or_path);

}  // namespace longwave

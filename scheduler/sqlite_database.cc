#include <sqlite3.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/sql_database.h"

namespace longwave {
namespace {

constexpr int kBusyMs = 10000;  // for a reader from outside, say a backup

class SqliteDatabase final : public SqlDatabase {
 public:
  explicit SqliteDatabase(std::string path) : path_(std::move(path)) {}
  ~SqliteDatabase() override {
    for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
    sqlite3_close(db_);
  }

  absl::Status Open() {
    if (sqlite3_open(path_.c_str(), &db_) != SQLITE_OK) return Error("open");
    sqlite3_busy_timeout(db_, kBusyMs);
    // The write-ahead log, synced at each commit: what was answered is on the disk.
    for (const char* sql :
         {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"}) {
      if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return Error(sql);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<SqlResult> Run(const char* sql, absl::Span<const SqlValue> values) override {
    sqlite3_stmt*& statement = statements_[sql];
    if (statement == nullptr &&
        sqlite3_prepare_v2(db_, sql, -1, &statement, nullptr) != SQLITE_OK) {
      return Error(sql);
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const int index = sqlite3_bind_parameter_index(statement, absl::StrCat("$", i + 1).c_str());
      if (index == 0) return absl::InternalError(absl::StrCat("no $", i + 1, " in ", sql));
      Bind(statement, index, values[i]);
    }
    SqlResult result;
    const int columns = sqlite3_column_count(statement);
    int code = 0;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      std::vector<SqlValue>& row = result.rows.emplace_back();
      for (int i = 0; i < columns; ++i) row.push_back(Column(statement, i));
    }
    absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error(sql);
    if (columns == 0) result.changed = sqlite3_changes64(db_);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return result;
  }

  absl::Status Transaction(absl::FunctionRef<absl::Status()> work) override {
    absl::Status status = Run("BEGIN IMMEDIATE", {}).status();
    if (!status.ok()) return status;
    status = work();
    if (status.ok()) status = Run("COMMIT", {}).status();
    if (!status.ok() && sqlite3_get_autocommit(db_) == 0) {
      absl::Status undone = Run("ROLLBACK", {}).status();
      if (!undone.ok()) return undone;
    }
    return status;
  }

 private:
  static void Bind(sqlite3_stmt* statement, int index, const SqlValue& value) {
    if (const int64_t* number = std::get_if<int64_t>(&value)) {
      sqlite3_bind_int64(statement, index, *number);
    } else if (const std::string* text = std::get_if<std::string>(&value)) {
      sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else {
      sqlite3_bind_null(statement, index);
    }
  }

  static SqlValue Column(sqlite3_stmt* statement, int i) {
    switch (sqlite3_column_type(statement, i)) {
      case SQLITE_NULL:
        return std::monostate();
      case SQLITE_INTEGER:
        return int64_t{sqlite3_column_int64(statement, i)};
      default:
        return std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, i)),
                           sqlite3_column_bytes(statement, i));
    }
  }

  absl::Status Error(const char* what) const {
    const std::string message = absl::StrCat(path_, ": ", sqlite3_errmsg(db_), " (", what, ")");
    switch (sqlite3_extended_errcode(db_)) {
      case SQLITE_CONSTRAINT_PRIMARYKEY:
      case SQLITE_CONSTRAINT_UNIQUE:
        return absl::AlreadyExistsError(message);
      case SQLITE_BUSY:
      case SQLITE_FULL:
      case SQLITE_IOERR:
      case SQLITE_IOERR_WRITE:
        return absl::UnavailableError(message);
      default:
        return absl::InternalError(message);
    }
  }

  std::string path_;
  sqlite3* db_ = nullptr;
  std::map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenSqlite(const std::string& path) {
  auto database = std::make_unique<SqliteDatabase>(path);
  absl::Status opened = database->Open();
  if (!opened.ok()) return opened;
  return database;
}

}  // namespace longwave

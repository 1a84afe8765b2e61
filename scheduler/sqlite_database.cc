#include <sqlite3.h>

#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/sql_database.h"

namespace longwave {
namespace {

constexpr int kBusyMs = 10000;  // for a writer from outside, say a person's
constexpr size_t kMostIdle = 8;

class SqliteConnection final : public SqlWriter {
 public:
  ~SqliteConnection() override {
    for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
    sqlite3_close(db_);
  }

  absl::Status Open(const std::string& path) {
    path_ = path;
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) return Error("open");
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
      if (const auto* text = std::get_if<std::string>(&values[i]);
          text != nullptr && CleanText(*text) != *text) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", CleanText(*text), "\" has bytes that are no text"));
      }
      Bind(statement, index, values[i]);
    }
    SqlResult result;
    const int columns = sqlite3_column_count(statement);
    int code = 0;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
      SqlRow& row = result.rows.emplace_back();
      for (int i = 0; i < columns; ++i) row.push_back(Column(statement, i));
    }
    absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error(sql);
    if (sqlite3_stmt_readonly(statement) == 0) result.changed = sqlite3_changes64(db_);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return result;
  }

  absl::Status Begin() override { return Run("BEGIN IMMEDIATE", {}).status(); }
  bool connected() const override { return true; }

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
    const int code = sqlite3_extended_errcode(db_);
    if (code == SQLITE_CONSTRAINT_PRIMARYKEY || code == SQLITE_CONSTRAINT_UNIQUE) {
      return SqlError(absl::StatusCode::kAlreadyExists, message, "it is there already");
    }
    switch (code & 0xff) {
      case SQLITE_BUSY:
        return SqlError(absl::StatusCode::kUnavailable, message, "the database is busy");
      case SQLITE_FULL:
        return SqlError(absl::StatusCode::kUnavailable, message, "the database's disk is full");
      case SQLITE_IOERR:
      case SQLITE_CANTOPEN:
      case SQLITE_READONLY:
        return SqlError(absl::StatusCode::kUnavailable, message,
                        "the database cannot be read or written");
      default:
        return SqlError(absl::StatusCode::kInternal, message, "the database failed");
    }
  }

  std::string path_;
  sqlite3* db_ = nullptr;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

class SqliteDatabase final : public SqlDatabase {
 public:
  explicit SqliteDatabase(std::string path) : path_(std::move(path)) {}

  absl::Status Open() { return writer_.Open(path_); }

  absl::StatusOr<SqlResult> ReadNow(const char* sql, absl::Span<const SqlValue> values) override {
    if (path_ == ":memory:") {  // a database in memory is its connection's
      absl::StatusOr<SqlResult> result;
      absl::Status status = Write([&](SqlConnection& connection) {
        result = connection.Run(sql, values);
        return result.status();
      });
      if (!status.ok()) return status;
      return result;
    }
    absl::StatusOr<std::unique_ptr<SqliteConnection>> reader = TakeReader();
    if (!reader.ok()) return reader.status();
    absl::StatusOr<SqlResult> result = (*reader)->Run(sql, values);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.size() < kMostIdle) idle_.push_back(*std::move(reader));
    return result;
  }

  const char* clock_ms() const override {
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
  }
  std::string name() const override { return path_; }
  bool shared() const override { return false; }

 protected:
  absl::StatusOr<SqlWriter*> GetWriter() override { return &writer_; }

 private:
  absl::StatusOr<std::unique_ptr<SqliteConnection>> TakeReader() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<SqliteConnection> reader = std::move(idle_.back());
        idle_.pop_back();
        return reader;
      }
    }
    auto reader = std::make_unique<SqliteConnection>();
    absl::Status opened = reader->Open(path_);
    if (!opened.ok()) return opened;
    return reader;
  }

  const std::string path_;
  SqliteConnection writer_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<SqliteConnection>> idle_;  // readers
};

}  // namespace

absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenSqlite(const std::string& path) {
  auto database = std::make_unique<SqliteDatabase>(path);
  absl::Status opened = database->Open();
  if (!opened.ok()) return opened;
  return database;
}

}  // namespace longwave

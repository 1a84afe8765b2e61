#include <endian.h>
#include <libpq-fe.h>
#include <poll.h>

#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "scheduler/sql_database.h"

namespace longwave {
namespace {

constexpr size_t kMostReaders = 8;

// The server gives up a statement, a wait for the write lock, and a transaction whose client has
// gone silent, say because it was stopped: so that nobody holds up all others.
constexpr char kSessionSettings[] =
    "SET statement_timeout = '15s'; SET lock_timeout = '10s'; "
    "SET idle_in_transaction_session_timeout = '3s'; "
    "SET jit = off; "  // no statement here is so long that compiling it would pay
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'";
// Longwave's lock of the database: who holds it is the one writer.
constexpr char kBegin[] = "BEGIN; SELECT pg_advisory_xact_lock(7814421391)";

// For outsiders.
constexpr char kAway[] = "the database does not answer", kFailed[] = "the database failed";

// pg_type.oid
constexpr Oid kInt8 = 20, kInt4 = 23, kText = 25;

using Result = std::unique_ptr<PGresult, decltype(&PQclear)>;

template <typename Number>
Number Load(const char* data) {
  Number number;
  memcpy(&number, data, sizeof(number));
  return number;
}

class PostgresConnection final : public SqlWriter {
 public:
  PostgresConnection(std::string name, std::chrono::milliseconds most_wait)
      : name_(std::move(name)), most_wait_(most_wait) {}
  ~PostgresConnection() override { PQfinish(connection_); }

  absl::Status Open(const std::string& uri, bool read_only) {
    // What the URI says comes later, and counts.
    const std::array<std::pair<const char*, const char*>, 9> options = {{
        {"connect_timeout", "5"},
        {"keepalives_idle", "5"},
        {"keepalives_interval", "2"},
        {"keepalives_count", "3"},
        {"tcp_user_timeout", "10000"},
        {"application_name", "longwave"},
        {"client_encoding", "UTF8"},
        {"dbname", uri.c_str()},
        {nullptr, nullptr},
    }};
    std::array<const char*, options.size()> keys, values;
    for (size_t i = 0; i < options.size(); ++i) std::tie(keys[i], values[i]) = options[i];
    connection_ = PQconnectdbParams(keys.data(), values.data(), 1);
    if (PQstatus(connection_) != CONNECTION_OK) {
      return SqlError(absl::StatusCode::kUnavailable, Message(PQerrorMessage(connection_)), kAway);
    }
    PQsetNoticeProcessor(
        connection_, [](void*, const char*) {}, nullptr);
    absl::Status status = Simple(kSessionSettings);
    if (status.ok() && read_only) status = Simple("SET default_transaction_read_only = on");
    return status;
  }

  absl::Status Begin() override { return Simple(kBegin); }
  bool connected() const override { return !lost_ && PQstatus(connection_) == CONNECTION_OK; }

  absl::StatusOr<SqlResult> Run(const char* sql, absl::Span<const SqlValue> values) override {
    auto prepared = prepared_.find(sql);
    if (prepared == prepared_.end()) {
      std::vector<Oid> types;
      for (const SqlValue& value : values) {
        types.push_back(std::holds_alternative<int64_t>(value) ? kInt8 : kText);
      }
      const std::string statement = absl::StrCat("s", prepared_.size());
      const bool sent = PQsendPrepare(connection_, statement.c_str(), sql,
                                      static_cast<int>(types.size()), types.data()) == 1;
      absl::Status status = Receive(sent, sql).status();
      if (!status.ok()) return status;
      prepared = prepared_.emplace(sql, statement).first;
    }
    std::deque<uint64_t> numbers;  // big-endian, as the server wants them
    std::vector<const char*> data;
    std::vector<int> sizes;
    for (const SqlValue& value : values) {
      if (const int64_t* number = std::get_if<int64_t>(&value)) {
        numbers.push_back(htobe64(static_cast<uint64_t>(*number)));
        data.push_back(reinterpret_cast<const char*>(&numbers.back()));
        sizes.push_back(sizeof(uint64_t));
      } else if (const std::string* text = std::get_if<std::string>(&value)) {
        data.push_back(text->data());
        sizes.push_back(static_cast<int>(text->size()));
      } else {
        data.push_back(nullptr);
        sizes.push_back(0);
      }
    }
    const std::vector<int> binary(values.size(), 1);
    const bool sent =
        PQsendQueryPrepared(connection_, prepared->second.c_str(), static_cast<int>(values.size()),
                            data.data(), sizes.data(), binary.data(), 1) == 1;
    const absl::StatusOr<Result> result = Receive(sent, sql);
    if (!result.ok()) return result.status();
    // The server ends a transaction that an error was seen in this way, and without an error.
    if (strcmp(sql, "COMMIT") == 0 && strcmp(PQcmdStatus(result->get()), "COMMIT") != 0) {
      return SqlError(absl::StatusCode::kInternal,
                      Message("a transaction in which a statement failed was ended"), kFailed);
    }
    return Read(result->get());
  }

 private:
  // Statements without values, whose rows nobody reads.
  absl::Status Simple(const char* sql) {
    return Receive(PQsendQuery(connection_, sql) == 1, sql).status();
  }

  // The answer to what was sent: the last of several.
  absl::StatusOr<Result> Receive(bool sent, const char* sql) {
    if (!sent) return Lost(PQerrorMessage(connection_), sql);
    const auto end = std::chrono::steady_clock::now() + most_wait_;
    Result answer(nullptr, PQclear);
    absl::Status status;
    while (true) {
      while (PQisBusy(connection_) == 1) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            end - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
          return Lost(absl::StrCat("no answer within ", most_wait_.count(), " ms"), sql);
        }
        pollfd socket = {PQsocket(connection_), POLLIN, 0};
        poll(&socket, 1, static_cast<int>(left.count()));
        if (PQconsumeInput(connection_) == 0) return Lost(PQerrorMessage(connection_), sql);
      }
      Result next(PQgetResult(connection_), PQclear);
      if (next == nullptr) break;
      const ExecStatusType kind = PQresultStatus(next.get());
      if (status.ok() && kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK) {
        status = Error(next.get(), sql);
      }
      answer = std::move(next);
    }
    if (!status.ok()) return status;
    if (answer == nullptr) return Lost("no answer", sql);
    return answer;
  }

  static absl::StatusOr<SqlResult> Read(const PGresult* answer) {
    SqlResult result;
    for (int i = 0; i < PQntuples(answer); ++i) {
      SqlRow& row = result.rows.emplace_back();
      for (int k = 0; k < PQnfields(answer); ++k) {
        const char* data = PQgetvalue(answer, i, k);
        const Oid type = PQftype(answer, k);
        if (PQgetisnull(answer, i, k) == 1) {
          row.emplace_back();
        } else if (type == kInt8) {
          row.emplace_back(static_cast<int64_t>(be64toh(Load<uint64_t>(data))));
        } else if (type == kInt4) {
          row.emplace_back(int64_t{static_cast<int32_t>(be32toh(Load<uint32_t>(data)))});
        } else if (type == kText) {
          row.emplace_back(std::string(data, PQgetlength(answer, i, k)));
        } else {
          return SqlError(
              absl::StatusCode::kInternal,
              absl::StrCat("column ", PQfname(answer, k), " is of a type with OID ", type),
              kFailed);
        }
      }
    }
    // Empty where the statement changes nothing.
    const char* changed = PQcmdTuples(const_cast<PGresult*>(answer));
    if (*changed != '\0') result.changed = strtoll(changed, nullptr, 10);
    return result;
  }

  absl::Status Error(const PGresult* answer, const char* sql) {
    const char* field = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
    const absl::string_view code = field == nullptr ? "" : field;
    const char* text = PQresultErrorMessage(answer);
    const std::string message = absl::StrCat(Message(text), " (", sql, ")");
    if (PQstatus(connection_) != CONNECTION_OK) return Lost(text, sql);
    if (code == "23505") {
      return SqlError(absl::StatusCode::kAlreadyExists, message, "it is there already");
    }
    if (code == "22021" || code == "22P05") {
      return SqlError(absl::StatusCode::kInvalidArgument, message, "it has bytes that are no text");
    }
    if (code == "53100") {
      return SqlError(absl::StatusCode::kUnavailable, message, "the database's disk is full");
    }
    // A standby: another of the URI's hosts may be the one to write to.
    if (code == "25006") return Lost(text, sql);
    for (const char* away : {"08", "40", "53", "55", "57", "58"}) {
      if (code.substr(0, 2) == away) {
        return SqlError(absl::StatusCode::kUnavailable, message, kAway);
      }
    }
    return SqlError(absl::StatusCode::kInternal, message, kFailed);
  }

  absl::Status Lost(absl::string_view text, const char* sql) {
    lost_ = true;
    return SqlError(absl::StatusCode::kUnavailable, absl::StrCat(Message(text), " (", sql, ")"),
                    kAway);
  }

  // libpq's and the server's have several lines.
  std::string Message(absl::string_view text) const {
    std::string line;
    for (char c : absl::StripSuffix(text, "\n")) line += c == '\n' ? ' ' : c;
    return absl::StrCat(name_, ": ", line);
  }

  const std::string name_;
  const std::chrono::milliseconds most_wait_;
  PGconn* connection_ = nullptr;
  bool lost_ = false;
  std::map<std::string, std::string, std::less<>> prepared_;  // names, by SQL
};

class PostgresDatabase final : public SqlDatabase {
 public:
  PostgresDatabase(std::string uri, std::string name, std::chrono::milliseconds most_wait)
      : uri_(std::move(uri)), name_(std::move(name)), most_wait_(most_wait) {}

  absl::Status Open() { return GetWriter().status(); }

  absl::StatusOr<SqlResult> ReadNow(const char* sql, absl::Span<const SqlValue> values) override {
    // One that was idle may have been lost in the meantime: then a new one tells how things are.
    for (bool fresh : {false, true}) {
      absl::StatusOr<std::unique_ptr<PostgresConnection>> reader = TakeReader(fresh);
      if (!reader.ok()) return reader.status();
      absl::StatusOr<SqlResult> result = (*reader)->Run(sql, values);
      const bool connected = (*reader)->connected();
      ReturnReader(*std::move(reader));
      if (connected || fresh) return result;
    }
    return absl::InternalError("unreachable");
  }

  const char* clock_ms() const override {
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
  }
  std::string name() const override { return name_; }
  bool shared() const override { return true; }

 protected:
  absl::StatusOr<SqlWriter*> GetWriter() override {
    if (writer_ == nullptr || !writer_->connected()) {
      writer_.reset();
      absl::StatusOr<std::unique_ptr<PostgresConnection>> opened = Connect(false);
      if (!opened.ok()) return opened.status();
      writer_ = *std::move(opened);
    }
    return writer_.get();
  }

 private:
  absl::StatusOr<std::unique_ptr<PostgresConnection>> Connect(bool read_only) const {
    auto connection = std::make_unique<PostgresConnection>(name_, most_wait_);
    absl::Status opened = connection->Open(uri_, read_only);
    if (!opened.ok()) return opened;
    return connection;
  }

  absl::StatusOr<std::unique_ptr<PostgresConnection>> TakeReader(bool fresh) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (!returned_.wait_for(lock, most_wait_, [&] { return readers_ < kMostReaders; })) {
        return SqlError(
            absl::StatusCode::kUnavailable,
            absl::StrCat(name_, ": all ", kMostReaders, " connections that read are at work"),
            "the database is busy");
      }
      ++readers_;
      if (fresh) idle_.clear();
      if (!idle_.empty()) {
        std::unique_ptr<PostgresConnection> reader = std::move(idle_.back());
        idle_.pop_back();
        return reader;
      }
    }
    absl::StatusOr<std::unique_ptr<PostgresConnection>> opened = Connect(true);
    if (!opened.ok()) ReturnReader(nullptr);
    return opened;
  }

  void ReturnReader(std::unique_ptr<PostgresConnection> reader) {
    const std::lock_guard<std::mutex> lock(mutex_);
    --readers_;
    if (reader != nullptr && reader->connected()) idle_.push_back(std::move(reader));
    returned_.notify_one();
  }

  const std::string uri_, name_;
  const std::chrono::milliseconds most_wait_;
  std::unique_ptr<PostgresConnection> writer_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<PostgresConnection>> idle_;  // readers
  size_t readers_ = 0;                                     // at work
};

// "postgresql://HOST:PORT/DATABASE", or why the URI is none.
absl::StatusOr<std::string> NameOf(const std::string& uri) {
  char* error = nullptr;
  PQconninfoOption* options = PQconninfoParse(uri.c_str(), &error);
  if (options == nullptr) {
    const std::string message = error == nullptr ? "out of memory" : error;
    PQfreemem(error);
    return absl::InvalidArgumentError(absl::StripSuffix(message, "\n"));
  }
  std::string host, port, database;
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    if (option->val == nullptr) continue;
    const absl::string_view key = option->keyword;
    if (key == "host") host = option->val;
    if (key == "port") port = absl::StrCat(":", option->val);
    if (key == "dbname") database = option->val;
  }
  PQconninfoFree(options);
  return absl::StrCat("postgresql://", host, port, "/", database);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenPostgres(const std::string& uri,
                                                          std::chrono::milliseconds most_wait) {
  absl::StatusOr<std::string> name = NameOf(uri);
  if (!name.ok()) return name.status();
  auto database = std::make_unique<PostgresDatabase>(uri, *std::move(name), most_wait);
  absl::Status opened = database->Open();
  if (!opened.ok()) return opened;
  return database;
}

}  // namespace longwave

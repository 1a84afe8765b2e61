#include "scheduler/sql_database.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/job_store.h"
#include "scheduler/schema.h"
#include "scheduler/testing/test_database.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

constexpr char kCount[] = "SELECT COUNT(*) FROM things";

absl::Status Add(SqlDatabase& database, int64_t number) {
  return database.Write([&](SqlConnection& connection) {
    return connection.Run("INSERT INTO things (number, name) VALUES ($1, 'n')", {number}).status();
  });
}

int64_t Count(SqlDatabase& database) {
  const auto result = database.Read(kCount, {});
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? RowReader(result->rows[0]).Number() : -1;
}

absl::Status MakeThings(SqlDatabase& database) {
  return database.Write([](SqlConnection& connection) {
    return connection.Run("CREATE TABLE things (number BIGINT PRIMARY KEY, name TEXT)", {})
        .status();
  });
}

class SqlDatabaseTest : public ::testing::TestWithParam<DatabaseKind> {
 protected:
  void SetUp() override {
    if (IsSkipped() || HasFailure()) return;
    auto opened = OpenDatabase(uri_.uri());
    ASSERT_TRUE(opened.ok()) << opened.status();
    database_ = *std::move(opened);
    ASSERT_TRUE(MakeThings(*database_).ok());
  }

  TestDatabase uri_{GetParam()};
  std::unique_ptr<SqlDatabase> database_;
};

INSTANTIATE_TEST_SUITE_P(On, SqlDatabaseTest,
                         ::testing::Values(DatabaseKind::kSqlite, DatabaseKind::kPostgres),
                         [](const auto& info) { return Name(info.param); });

TEST_P(SqlDatabaseTest, KeepsValuesAndTellsErrorsApart) {
  const std::string text("ü \"'$1\n", 8);
  const auto insert = [&](int64_t number, const SqlValue& name) {
    return database_->Write([&](SqlConnection& connection) {
      return connection.Run("INSERT INTO things (number, name) VALUES ($1, $2)", {number, name})
          .status();
    });
  };
  ASSERT_TRUE(insert(-5000000000, text).ok());
  ASSERT_TRUE(insert(2, SqlValue()).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(insert(2, text)));
  const auto result = database_->Read("SELECT number, name FROM things ORDER BY number", {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->rows[0], (SqlRow{int64_t{-5000000000}, text}));
  EXPECT_EQ(result->rows[1], (SqlRow{int64_t{2}, SqlValue()}));
  EXPECT_TRUE(absl::IsInvalidArgument(insert(3, std::string("a\xff"))));
  EXPECT_TRUE(absl::IsInvalidArgument(insert(3, std::string("a\0b", 3))));
  EXPECT_TRUE(absl::IsInternal(database_->Read("SELECT nothing", {}).status()));
  EXPECT_EQ(Count(*database_), 2);
}

TEST_P(SqlDatabaseTest, WhoeverWaitsGoesTogetherAndEachAloneFails) {
  std::vector<std::thread> threads;
  threads.reserve(16);
  std::atomic<int> failed = 0;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 20; ++k) {
        const int64_t number = i * 20 + k;
        const absl::Status status = database_->Write([&](SqlConnection& connection) {
          // Two statements, so that half of a transaction would be seen.
          for (const int64_t n : {number, number % 3 == 0 ? number : number + 1000}) {
            absl::Status status =
                connection.Run("INSERT INTO things (number, name) VALUES ($1, 'n')", {n}).status();
            if (!status.ok()) return status;
          }
          return absl::OkStatus();
        });
        if (!status.ok()) ++failed;
        EXPECT_EQ(status.ok(), number % 3 != 0) << status;
        EXPECT_EQ(Count(*database_) % 2, 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 107);
  EXPECT_EQ(Count(*database_), 2 * (320 - 107));
}

TEST_P(SqlDatabaseTest, AReaderDoesNotWaitForTheWriter) {
  const absl::Status status = database_->Write([&](SqlConnection& connection) {
    EXPECT_TRUE(connection.Run("INSERT INTO things VALUES (1, 'n')", {}).ok());
    std::thread([&] { EXPECT_EQ(Count(*database_), 0); }).join();
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(Count(*database_), 1);
}

TEST_P(SqlDatabaseTest, TheClockRuns) {
  const std::string sql = absl::StrCat("SELECT ", database_->clock_ms());
  const auto now = database_->Read(sql.c_str(), {});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_NEAR(RowReader(now->rows[0]).Number(), time(nullptr) * 1000.0, 60000);
}

TEST_P(SqlDatabaseTest, ServersThatStartAtOnceMakeOneSchema) {
  std::vector<std::thread> servers;
  servers.reserve(4);
  for (int i = 0; i < 4; ++i) {
    servers.emplace_back([&] {
      auto store = JobStore::Open(*OpenDatabase(uri_.uri()));
      EXPECT_TRUE(store.ok()) << store.status();
    });
  }
  for (std::thread& server : servers) server.join();
}

TEST_P(SqlDatabaseTest, AnEarlierDatabaseIsUpgraded) {
  ASSERT_TRUE(Migrate(*database_, 1).ok());
  for (const char* sql :
       {"INSERT INTO files VALUES ('f', 'n', 's', 9, 1)",
        "INSERT INTO files VALUES ('e', 'n', 's', 9, 2)",
        R"(INSERT INTO jobs VALUES ('a', 1, 'key', 'm', 'h', 'f', 'score', 10, 5, 6, 0, 'running',
             '', 25, 1, 1, 2, 20, 40, 1, 0, 3, 4, 0))",
        "INSERT INTO chunks VALUES ('a', 0, 'committed', 1, 'w', 0, '', 0, 40, 'o', 'b')",
        "INSERT INTO chunks VALUES ('a', 1, 'leased', 2, 'w', 0, '', 0, 0, '', '')"}) {
    const absl::Status status = database_->Write(
        [&](SqlConnection& connection) { return connection.Run(sql, {}).status(); });
    ASSERT_TRUE(status.ok()) << status;
  }
  auto store = JobStore::Open(*OpenDatabase(uri_.uri()));
  ASSERT_TRUE(store.ok()) << store.status();
  const auto job = (*store)->Get("a");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->tenant, "default");
  EXPECT_EQ(job->leases(), 1);
  EXPECT_EQ(job->chunk_count, 3);
  EXPECT_EQ(job->tokens_done, 10);
  EXPECT_EQ(job->sequences, 1);
  EXPECT_EQ((*store)->ListFiles("default", 100, 9)->size(), 2u);
  EXPECT_EQ((*store)->ListFiles("default", 2, 9)->size(), 1u);
  NewJob again;
  again.id = "b";
  again.idempotency_key = "key";
  again.spec.model = "m";
  again.spec.input = "f";
  again.spec.chunk = 10;
  again.spec.window = 5;
  again.spec.max_logits_bytes = 6;
  EXPECT_EQ((*store)->Create(again, 9)->id, "a");
  EXPECT_EQ((*store)->CommitChunks({{{"a", 1, 2}, {}}}, 10)->front()->tokens_done, 20);
  const auto next = (*store)->LeaseChunks({{"w", 1 << 30, true}}, 11);
  EXPECT_EQ(next->front()->key, (ChunkKey{"a", 2, 3}));
}

TEST(SqliteDatabase, AFullDiskRefusesAndKeepsWhatThereIs) {
  const TestDatabase uri(DatabaseKind::kSqlite);
  auto database = *OpenDatabase(uri.uri());
  ASSERT_TRUE(MakeThings(*database).ok());
  const auto limit = [&](const char* sql) {
    return database
        ->Write([&](SqlConnection& connection) { return connection.Run(sql, {}).status(); })
        .ok();
  };
  ASSERT_TRUE(limit("PRAGMA max_page_count = 50"));
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<int64_t> kept = 0, refused = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int64_t k = 0; k < 40; ++k) {
        const absl::Status status = database->Write([&](SqlConnection& connection) {
          return connection
              .Run("INSERT INTO things VALUES ($1, $2)", {i * 100 + k, std::string(2000, 'x')})
              .status();
        });
        EXPECT_TRUE(status.ok() || absl::IsUnavailable(status)) << status;
        ++(status.ok() ? kept : refused);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(refused, 0);
  EXPECT_EQ(Count(*database), kept);
  ASSERT_TRUE(limit("PRAGMA max_page_count = 1000000"));
  EXPECT_TRUE(Add(*database, 1000).ok());
}

TEST(OpenDatabase, RefusesWhatIsNone) {
  EXPECT_THAT(OpenDatabase("mysql://host/db").status().message(), HasSubstr("\"mysql\""));
  EXPECT_FALSE(OpenDatabase("/nowhere/jobs.sqlite").ok());
  const auto away = OpenDatabase("postgresql://127.0.0.1:1/jobs");
  EXPECT_TRUE(absl::IsUnavailable(away.status())) << away.status();
  EXPECT_THAT(away.status().message(), HasSubstr("postgresql://127.0.0.1:1/jobs: "));
  const auto wrong = OpenDatabase("postgresql://user:secret@host/db?nonsense=1");
  EXPECT_TRUE(absl::IsInvalidArgument(wrong.status()));
  EXPECT_THAT(wrong.status().message(), HasSubstr("nonsense"));
}

// A server of its own, to be ended and started again.
TEST(PostgresDatabase, ConnectsAgainAndLosesNothing) {
  if (SharedPostgres() == nullptr) return;
  auto server = PostgresServer::Start();
  ASSERT_TRUE(server.ok()) << server.status();
  auto database = *OpenDatabase(*(*server)->NewDatabase());
  ASSERT_TRUE(MakeThings(*database).ok());
  ASSERT_TRUE(Add(*database, 1).ok());
  EXPECT_EQ(Count(*database), 1);
  ASSERT_TRUE((*server)->Restart().ok());
  EXPECT_EQ(Count(*database), 1);
  EXPECT_TRUE(Add(*database, 2).ok());
  ASSERT_TRUE((*server)->Crash().ok());
  EXPECT_TRUE(Add(*database, 3).ok());
  EXPECT_EQ(Count(*database), 3);
  (*server)->Stop();
  const absl::Status away = Add(*database, 4);
  EXPECT_TRUE(absl::IsUnavailable(away)) << away;
  EXPECT_TRUE(absl::IsUnavailable(database->Read(kCount, {}).status()));
  ASSERT_TRUE((*server)->Restart().ok());
  EXPECT_TRUE(Add(*database, 4).ok());
  EXPECT_EQ(Count(*database), 4);
}

// A process that is stopped in the middle of a transaction holds up the others for some seconds
// only, and what it wanted to write is not written.
TEST(PostgresDatabase, AFrozenWriterIsPutAside) {
  PostgresServer* server = SharedPostgres();
  if (server == nullptr) return;
  const std::string uri = *server->NewDatabase();
  auto database = *OpenDatabase(uri);
  ASSERT_TRUE(MakeThings(*database).ok());
  const pid_t child = fork();
  if (child == 0) {
    auto own = OpenDatabase(uri);
    const absl::Status status = (*own)->Write([](SqlConnection& connection) {
      absl::Status added = connection.Run("INSERT INTO things VALUES (1, 'n')", {}).status();
      raise(SIGSTOP);
      return added;
    });
    _exit(absl::IsUnavailable(status) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, WUNTRACED);
  ASSERT_TRUE(WIFSTOPPED(status));
  const absl::Status added = Add(*database, 1);
  EXPECT_TRUE(added.ok()) << added;
  kill(child, SIGCONT);
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Count(*database), 1);
}

// The server's processes of this client's connections are stopped: no answer ever comes.
TEST(PostgresDatabase, ASilentServerIsGivenUp) {
  PostgresServer* server = SharedPostgres();
  if (server == nullptr) return;
  auto database = *OpenPostgres(*server->NewDatabase(), std::chrono::seconds(2));
  ASSERT_TRUE(MakeThings(*database).ok());
  const char* sql = "SELECT pg_backend_pid()";
  const pid_t reader = static_cast<pid_t>(RowReader(database->Read(sql, {})->rows[0]).Number());
  kill(reader, SIGSTOP);
  EXPECT_EQ(Count(*database), 0);  // by another connection
  pid_t writer = 0;
  const absl::Status silent = database->Write([&](SqlConnection& connection) {
    const auto row = connection.Run(sql, {});
    if (!row.ok()) return row.status();
    writer = static_cast<pid_t>(RowReader(row->rows[0]).Number());
    kill(writer, SIGSTOP);
    return connection.Run("INSERT INTO things VALUES (1, 'n')", {}).status();
  });
  // Twice, since the second connection is stopped too; the locks of the first stay while it is.
  EXPECT_TRUE(absl::IsUnavailable(silent)) << silent;
  kill(reader, SIGCONT);
  kill(writer, SIGCONT);
}

}  // namespace
}  // namespace longwave

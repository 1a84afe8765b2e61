#include "scheduler/testing/test_database.h"

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

namespace fs = std::filesystem;

std::string NewFolder() {
  std::string name = absl::StrCat(fs::temp_directory_path().string(), "/longwave-db-XXXXXX");
  return mkdtemp(name.data()) == nullptr ? "" : name;
}

// PostgreSQL's server programs: of the highest version that is installed.
std::string FindPrograms() {
  std::string best;
  int best_version = 0;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", code)) {
    const int version = atoi(entry.path().filename().c_str());
    if (version > best_version && fs::exists(entry.path() / "bin/initdb")) {
      best_version = version;
      best = (entry.path() / "bin").string();
    }
  }
  return best;
}

// Starts a program as the user that PostgreSQL agrees to run as: not as root. Its output goes to
// `log`. It ends when this process does.
pid_t Spawn(const std::vector<std::string>& command, const std::string& log) {
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const passwd* user = geteuid() == 0 ? getpwnam("postgres") : nullptr;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  dup2(out, 1);
  dup2(out, 2);
  if (user != nullptr && (setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) _exit(126);
  prctl(PR_SET_PDEATHSIG, SIGQUIT);
  if (getppid() != parent || chdir("/") != 0) _exit(125);
  execv(arguments[0], arguments.data());
  _exit(127);
}

absl::Status RunToEnd(const std::vector<std::string>& command, const std::string& log) {
  const pid_t child = Spawn(command, log);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(absl::StrJoin(command, " "), " ended with status ", status, "; see ", log));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresServer>> PostgresServer::Start(bool durable) {
  std::unique_ptr<PostgresServer> server(new PostgresServer());
  server->programs_ = FindPrograms();
  server->durable_ = durable;
  if (server->programs_.empty()) {
    return absl::NotFoundError("there is no /usr/lib/postgresql/*/bin/initdb");
  }
  server->folder_ = NewFolder();
  fs::permissions(server->folder_, fs::perms::all);
  absl::Status status =
      RunToEnd({server->programs_ + "/initdb", "-D", server->folder_ + "/data", "-U", "longwave",
                "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"},
               server->folder_ + "/initdb.log");
  if (status.ok()) status = server->Launch();
  if (!status.ok()) return status;
  return server;
}

absl::Status PostgresServer::Launch() {
  process_ = Spawn({programs_ + "/postgres", "-D", folder_ + "/data", "-k", folder_, "-c",
                    "listen_addresses=", "-c", absl::StrCat("fsync=", durable_ ? "on" : "off"),
                    "-c", "shared_buffers=64MB", "-c", "max_connections=50"},
                   folder_ + "/server.log");
  absl::Status status;
  for (int i = 0; i < 300; ++i) {
    status = OpenPostgres(Uri("postgres")).status();
    if (status.ok()) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return status;
}

PostgresServer::~PostgresServer() {
  Stop();
  std::error_code code;
  fs::remove_all(folder_, code);
}

std::string PostgresServer::Uri(const std::string& database) const {
  return absl::StrCat("postgresql://longwave@/", database, "?host=", folder_);
}

absl::StatusOr<std::string> PostgresServer::NewDatabase() {
  const std::string name = absl::StrCat("test", ++databases_);
  absl::Status status = RunToEnd(
      {programs_ + "/psql", Uri("postgres"), "-qc", absl::StrCat("CREATE DATABASE ", name)},
      folder_ + "/psql.log");
  if (!status.ok()) return status;
  return Uri(name);
}

void PostgresServer::Stop() { End(SIGINT); }

absl::Status PostgresServer::Restart() {
  Stop();
  return Launch();
}

absl::Status PostgresServer::Crash() {
  End(SIGQUIT);
  return Launch();
}

void PostgresServer::End(int signal) {
  if (process_ <= 0) return;
  kill(process_, signal);  // it ends its processes too
  waitpid(process_, nullptr, 0);
  process_ = 0;
}

PostgresServer* SharedPostgres() {
  static const auto* server =
      new absl::StatusOr<std::unique_ptr<PostgresServer>>(PostgresServer::Start());
  static const int kAtExit = std::atexit([] {
    if (server->ok()) delete const_cast<std::unique_ptr<PostgresServer>&>(**server).release();
  });
  (void)kAtExit;
  if (server->ok()) return (*server)->get();
  const char* required = getenv("LONGWAVE_TEST_POSTGRES");
  const bool must = required != nullptr && std::string(required) == "required";
  if (!absl::IsNotFound(server->status()) || must) {
    ADD_FAILURE() << "PostgreSQL: " << server->status();
  } else {
    [&] { GTEST_SKIP() << "NOT TESTED on PostgreSQL: " << server->status().message(); }();
  }
  return nullptr;
}

TestDatabase::TestDatabase(DatabaseKind kind) {
  if (kind == DatabaseKind::kSqlite) {
    folder_ = NewFolder();
    uri_ = folder_ + "/jobs.sqlite";
    return;
  }
  PostgresServer* server = SharedPostgres();
  if (server == nullptr) return;
  const absl::StatusOr<std::string> uri = server->NewDatabase();
  EXPECT_TRUE(uri.ok()) << uri.status();
  if (uri.ok()) uri_ = *uri;
}

TestDatabase::~TestDatabase() {
  std::error_code code;
  if (!folder_.empty()) fs::remove_all(folder_, code);
}

}  // namespace longwave

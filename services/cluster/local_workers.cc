#include "services/cluster/local_workers.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/cluster/api.h"

extern char** environ;

namespace longwave {
namespace {

constexpr int64_t kSteadyMs = 2000;  // who lived so long did not die of its start
constexpr int64_t kMostWaitMs = 10000;

}  // namespace

LocalWorkers::LocalWorkers(int count, std::vector<std::string> arguments,
                           std::function<void(const std::string&)> ended)
    : arguments_(std::move(arguments)), ended_(std::move(ended)), processes_(count) {}

LocalWorkers::~LocalWorkers() {
  for (const Process& process : processes_) {
    if (process.pid == 0) continue;
    kill(process.pid, SIGKILL);
    waitpid(process.pid, nullptr, 0);
  }
}

int LocalWorkers::running() const {
  return static_cast<int>(std::count_if(processes_.begin(), processes_.end(),
                                        [](const Process& process) { return process.pid != 0; }));
}

absl::Status LocalWorkers::Start(Process& process, int64_t now_ms) {
  process.name = absl::StrCat("local-", NewId());
  std::vector<std::string> arguments = {
      "longwave", "worker", "--with-parent", absl::StrCat(getpid()), "--name", process.name};
  arguments.insert(arguments.end(), arguments_.begin(), arguments_.end());
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  // Not the server's sockets: a worker that outlives it would keep its ports.
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  const int error =
      posix_spawn(&process.pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    process.pid = 0;
    return absl::ErrnoToStatus(error, "cannot start a worker");
  }
  process.started_ms = now_ms;
  return absl::OkStatus();
}

absl::Status LocalWorkers::Look(int64_t now_ms, bool start) {
  for (Process& process : processes_) {
    if (process.pid != 0 && waitpid(process.pid, nullptr, WNOHANG) == process.pid) {
      process.pid = 0;
      ended_(process.name);
      const bool steady = now_ms - process.started_ms > kSteadyMs;
      process.wait_ms = steady ? kRestartMs : std::min(2 * process.wait_ms, kMostWaitMs);
      process.start_at_ms = now_ms + process.wait_ms;
    }
    if (process.pid == 0 && start && now_ms >= process.start_at_ms) {
      absl::Status started = Start(process, now_ms);
      if (!started.ok()) return started;
    }
  }
  return absl::OkStatus();
}

}  // namespace longwave

// The workers that a server starts beside itself, as processes of the same program: one that dies
// is started again.
//
// Thread safety: one caller.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace longwave {

class LocalWorkers {
 public:
  static constexpr int64_t kRestartMs =
      500;  // after a death; doubled for each that follows at once

  // `arguments`: of `longwave worker`, but --name. `ended`: called with the name of one that died.
  LocalWorkers(int count, std::vector<std::string> arguments,
               std::function<void(const std::string& name)> ended);
  ~LocalWorkers();  // kills what is left

  // Starts what is to be started, notices what has died. Call it often.
  absl::Status Look(int64_t now_ms, bool start);
  int running() const;

 private:
  struct Process {
    pid_t pid = 0;  // 0: not running
    std::string name;
    int64_t started_ms = 0, start_at_ms = 0, wait_ms = kRestartMs;
  };
  absl::Status Start(Process& process, int64_t now_ms);

  std::vector<std::string> arguments_;
  std::function<void(const std::string&)> ended_;
  std::vector<Process> processes_;
};

}  // namespace longwave

#include "services/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

namespace longwave {
namespace {

std::atomic<int> stop_signal = 0;  // other threads than the one that is interrupted read it
static_assert(std::atomic<int>::is_always_lock_free);
int null_fd = -1;

void OnStop(int signal) {
  const int saved = errno;
  stop_signal = signal;
  // A read of standard input that waits now is interrupted by us and, tried again, finds its end.
  if (null_fd >= 0) dup2(null_fd, STDIN_FILENO);
  errno = saved;
}

}  // namespace

void IgnoreWriteSignals() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void CatchStopSignals() {
  null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  struct sigaction stop = {};
  stop.sa_handler = OnStop;
  stop.sa_flags = SA_RESETHAND;  // and not SA_RESTART
  sigemptyset(&stop.sa_mask);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction before = {};
    // A shell starts background jobs with SIGINT ignored; that stays.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &stop, nullptr);
  }
}

int StopSignal() { return stop_signal; }

absl::Status CheckStop() {
  const int signal = stop_signal;
  if (signal == 0) return absl::OkStatus();
  return absl::CancelledError(signal == SIGINT    ? "stopped by SIGINT"
                              : signal == SIGHUP  ? "stopped by SIGHUP"
                              : signal == SIGQUIT ? "stopped by SIGQUIT"
                                                  : "stopped by SIGTERM");
}

}  // namespace longwave

#include "transport/waker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace longwave {

Waker::Waker() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) std::abort();
}
Waker::~Waker() { close(fd_); }

void Waker::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t wrote = write(fd_, &one, sizeof(one));  // full: it is awake
}

void Waker::Clear() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof(count));  // empty: nothing to clear
}

}  // namespace longwave

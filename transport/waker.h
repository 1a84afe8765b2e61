// A file descriptor that ends another thread's poll().
//
// Thread safety: Wake() is safe from any thread.
#pragma once

namespace longwave {

class Waker {
 public:
  Waker();
  ~Waker();
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;
  void Wake();
  void Clear();
  int fd() const { return fd_; }  // readable once woken, until Clear()

 private:
  int fd_;
};

}  // namespace longwave

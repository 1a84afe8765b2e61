// A file that appears whole or not at all: written under a temporary name beside its final one
// (PATH.PID.partial), flushed, then renamed. A path that is not a regular file (a pipe, /dev/full)
// is written directly. A path that is a symbolic link has its target replaced, not the link.
//
// Thread safety: none. Errors: absl::Status with the path and the system's message; the first one
// stays: every later call returns it, and Commit() leaves nothing behind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace longwave {

class AtomicFile {
 public:
  // Checks at once that the folder exists and can be written to.
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(const std::string& path);
  ~AtomicFile();  // removes the temporary file unless committed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  absl::Status Append(absl::Span<const uint8_t> bytes);  // buffered
  // Overwrites bytes already appended (a header). In a pipe that works only while they are
  // buffered, that is while size() has stayed under 1 MiB. REQUIRES: offset + bytes.size() <=
  // size().
  absl::Status WriteAt(int64_t offset, absl::Span<const uint8_t> bytes);
  // Flush, fsync, close, rename to `final_path` (empty: the path of Create; else the same folder).
  absl::Status Commit(const std::string& final_path = "");
  int64_t size() const { return size_; }
  // False for a pipe or a device: WriteAt works while all is still in the buffer.
  bool seekable() const { return !temporary_.empty(); }
  static constexpr int64_t kBufferSize = 1 << 20;
  const std::string& path() const { return path_; }

 private:
  AtomicFile() = default;
  absl::Status OpenTemporary();
  absl::Status Flush();
  absl::Status WriteFully(const uint8_t* bytes, size_t size);
  absl::Status Fail(int error);  // makes status_ of it
  void Discard();

  std::string path_;       // as given
  std::string target_;     // path_ with a link resolved: what is replaced
  std::string temporary_;  // empty where path_ is written directly
  int fd_ = -1;
  std::string buffer_;
  int64_t size_ = 0;
  absl::Status status_;
};

}  // namespace longwave

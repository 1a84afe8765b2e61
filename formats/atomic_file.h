// A file that appears whole or not at all: written under a temporary name beside its final one
// (PATH.PID.partial), flushed, then renamed. A path that is not a regular file (a pipe, /dev/full)
// is written directly. A path that is a symbolic link has its target replaced, not the link.
//
// A file that is *kept* stands under PATH.partial, which one process has at a time, and may be left
// there for a later process to go on with.
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
  // The file under PATH.partial, whatever it holds; unchanged, and left, until Restart().
  // Unavailable where another process has it, or where there cannot be one (PATH is a pipe, or the
  // file system has no locks).
  static absl::StatusOr<std::unique_ptr<AtomicFile>> CreateKept(const std::string& path);
  // REQUIRES: of CreateKept(). Its first `size` bytes count, what is appended follows them.
  absl::Status Restart(int64_t size);
  void Keep() { keep_ = true; }  // from now on the end of this object leaves the file
  ~AtomicFile();                 // removes the temporary file unless committed
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
  absl::Status Flush();  // what was appended is the file system's, if not the disk's
  const std::string& temporary() const { return temporary_; }  // where it stands until Commit()
  // False for a pipe or a device: WriteAt works while all is still in the buffer.
  bool seekable() const { return !temporary_.empty(); }
  static constexpr int64_t kBufferSize = 1 << 20;
  const std::string& path() const { return path_; }

 private:
  AtomicFile() = default;
  absl::Status SetTarget();
  absl::Status OpenTemporary();
  absl::Status OpenKept();
  absl::Status WriteFully(const uint8_t* bytes, size_t size);
  absl::Status Fail(int error);  // makes status_ of it
  void Discard();

  std::string path_;       // as given
  std::string target_;     // path_ with a link resolved: what is replaced
  std::string temporary_;  // empty where path_ is written directly
  int fd_ = -1;
  bool keep_ = false;  // by the destructor
  std::string buffer_;
  int64_t size_ = 0;
  absl::Status status_;
};

}  // namespace longwave

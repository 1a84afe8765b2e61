#include "formats/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr int kTemporaryNames = 100;  // tries: a crashed process of our number may have left some

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The rename itself must reach the disk too. Best effort: some file systems refuse.
void SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("an output path is empty");
  std::unique_ptr<AtomicFile> file(new AtomicFile);
  file->path_ = file->target_ = path;
  struct stat info;
  const bool exists = stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return file->Fail(EISDIR);
  if (exists && !S_ISREG(info.st_mode)) {
    file->fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file->fd_ < 0) return file->Fail(errno);
    return file;
  }
  absl::Status opened = file->SetTarget();
  if (opened.ok()) opened = file->OpenTemporary();
  if (!opened.ok()) return opened;
  return file;
}

absl::Status AtomicFile::SetTarget() {
  struct stat info;
  if (lstat(path_.c_str(), &info) != 0 || !S_ISLNK(info.st_mode)) return absl::OkStatus();
  char resolved[PATH_MAX];
  if (realpath(path_.c_str(), resolved) == nullptr) return Fail(errno);
  target_ = resolved;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::CreateKept(const std::string& path) {
  std::unique_ptr<AtomicFile> file(new AtomicFile);
  file->path_ = file->target_ = path;
  struct stat info;
  if (path.empty() || (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))) {
    return absl::UnavailableError(absl::StrCat(path, ": is not a regular file"));
  }
  absl::Status opened = file->SetTarget();
  if (opened.ok()) opened = file->OpenKept();
  if (!opened.ok()) return absl::UnavailableError(opened.message());
  return file;
}

absl::Status AtomicFile::OpenKept() {
  temporary_ = target_ + ".partial";
  for (int i = 0; i < kTemporaryNames; ++i) {
    fd_ = open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    const bool created = fd_ >= 0;
    if (!created && errno == EEXIST) {
      fd_ = open(temporary_.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
      if (fd_ < 0 && errno == ENOENT) continue;  // it got its final name in between
    }
    keep_ = true;  // another's, unless it is ours
    struct stat mine, there;
    if (fd_ < 0 || fstat(fd_, &mine) != 0) return Fail(errno);
    if (!S_ISREG(mine.st_mode)) return Fail(EEXIST);
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      keep_ = !created || error == EWOULDBLOCK;
      return Fail(error);
    }
    // Another process may have given the file its final name while this one came to the lock.
    if (stat(temporary_.c_str(), &there) == 0 && there.st_ino == mine.st_ino &&
        there.st_dev == mine.st_dev) {
      keep_ = !created;
      return absl::OkStatus();
    }
    close(fd_);
    fd_ = -1;
  }
  return Fail(EBUSY);
}

absl::Status AtomicFile::Restart(int64_t size) {
  if (!status_.ok()) return status_;
  assert(!temporary_.empty() && fd_ >= 0);
  keep_ = false;
  buffer_.clear();
  if (ftruncate(fd_, size) != 0 || lseek(fd_, size, SEEK_SET) != size) return Fail(errno);
  size_ = size;
  return absl::OkStatus();
}

absl::Status AtomicFile::OpenTemporary() {
  for (int i = 0; i < kTemporaryNames; ++i) {
    const std::string unique = i == 0 ? "" : absl::StrCat(".", i);
    std::string name = absl::StrCat(target_, ".", getpid(), unique, ".partial");
    fd_ = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      temporary_ = std::move(name);
      return absl::OkStatus();
    }
    if (errno != EEXIST) break;
  }
  return Fail(errno);
}

AtomicFile::~AtomicFile() { Discard(); }

void AtomicFile::Discard() {
  // First the name, then the lock that goes with the file.
  if (!temporary_.empty() && !keep_) unlink(temporary_.c_str());
  temporary_.clear();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::Status AtomicFile::Fail(int error) {
  status_ = absl::ErrnoToStatus(error, path_);
  Discard();
  return status_;
}

absl::Status AtomicFile::WriteFully(const uint8_t* bytes, size_t size) {
  while (size > 0) {
    const ssize_t wrote = write(fd_, bytes, size);
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return Fail(errno);
    }
    bytes += wrote;
    size -= wrote;
  }
  // The disk begins at once, so that Commit() has little to wait for.
  sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
  return absl::OkStatus();
}

absl::Status AtomicFile::Flush() {
  if (!status_.ok()) return status_;
  absl::Status wrote = WriteFully(reinterpret_cast<const uint8_t*>(buffer_.data()), buffer_.size());
  buffer_.clear();
  return wrote;
}

absl::Status AtomicFile::Append(absl::Span<const uint8_t> bytes) {
  if (!status_.ok()) return status_;
  assert(fd_ >= 0 && "Append after Commit");
  if (buffer_.size() + bytes.size() > static_cast<size_t>(kBufferSize)) {
    absl::Status flushed = Flush();
    if (!flushed.ok()) return flushed;
  }
  if (bytes.size() > static_cast<size_t>(kBufferSize)) {
    absl::Status wrote = WriteFully(bytes.data(), bytes.size());
    if (!wrote.ok()) return wrote;
  } else {
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  size_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status AtomicFile::WriteAt(int64_t offset, absl::Span<const uint8_t> bytes) {
  if (!status_.ok()) return status_;
  assert(fd_ >= 0 && offset >= 0 && offset + static_cast<int64_t>(bytes.size()) <= size_);
  const int64_t written = size_ - static_cast<int64_t>(buffer_.size());
  while (!bytes.empty() && offset < written) {
    const size_t size = std::min<int64_t>(bytes.size(), written - offset);
    const ssize_t wrote = pwrite(fd_, bytes.data(), size, offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return Fail(errno);
    offset += wrote;
    bytes.remove_prefix(wrote);
  }
  if (!bytes.empty()) std::memcpy(&buffer_[offset - written], bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit(const std::string& final_path) {
  if (!status_.ok()) return status_;
  assert(fd_ >= 0 && "Commit twice");
  absl::Status flushed = Flush();
  if (!flushed.ok()) return flushed;
  const bool direct = temporary_.empty();
  if (!direct && fsync(fd_) != 0) return Fail(errno);
  const std::string& target = final_path.empty() ? target_ : final_path;
  if (!direct && rename(temporary_.c_str(), target.c_str()) != 0) {
    if (!final_path.empty()) path_ = final_path;  // the name the message is about
    return Fail(errno);
  }
  temporary_.clear();
  // Only now: with the file goes its lock.
  const int fd = fd_;
  fd_ = -1;
  if (close(fd) != 0 && errno != EINTR) return Fail(errno);
  if (direct) return absl::OkStatus();
  SyncFolder(FolderOf(target));
  return absl::OkStatus();
}

}  // namespace longwave

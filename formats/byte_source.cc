#include "formats/byte_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "formats/buffered_source.h"
#include "formats/gzip_source.h"

namespace longwave {
namespace {

class FileSource final : public BufferedSource {
 public:
  // `size`: bytes from here to the file's end; -1 where unknown.
  FileSource(int fd, std::string name, int64_t size)
      : BufferedSource(std::move(name)), fd_(fd), size_(size) {}
  ~FileSource() override {
    if (fd_ != STDIN_FILENO) close(fd_);
  }

  double FractionRead() const override {
    if (size_ < 0) return -1;
    if (size_ == 0) return 1;
    return std::min(1.0, static_cast<double>(read_ - buffered()) / static_cast<double>(size_));
  }

 private:
  absl::StatusOr<int64_t> Fill(absl::Span<uint8_t> out) override {
    while (true) {
      const ssize_t got = read(fd_, out.data(), out.size());
      if (got >= 0) {
        read_ += got;
        return got;
      }
      if (errno == EAGAIN || errno == EWOULDBLOCK) {  // a standard input that another set so
        pollfd wait = {fd_, POLLIN, 0};
        poll(&wait, 1, -1);
      } else if (errno != EINTR) {
        return absl::ErrnoToStatus(errno, name());
      }
    }
  }

  int fd_;
  int64_t size_;
  int64_t read_ = 0;
};

class MemorySource final : public BufferedSource {
 public:
  MemorySource(absl::Span<const uint8_t> bytes, std::string name)
      : BufferedSource(std::move(name)), bytes_(bytes) {}

  double FractionRead() const override {
    if (bytes_.empty()) return 1;
    return static_cast<double>(read_ - buffered()) / static_cast<double>(bytes_.size());
  }

 private:
  absl::StatusOr<int64_t> Fill(absl::Span<uint8_t> out) override {
    const int64_t left = static_cast<int64_t>(bytes_.size()) - read_;
    const int64_t n = std::min(left, static_cast<int64_t>(out.size()));
    if (n > 0) std::memcpy(out.data(), bytes_.data() + read_, n);
    read_ += n;
    return n;
  }

  absl::Span<const uint8_t> bytes_;
  int64_t read_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::Open(const std::string& path) {
  const bool standard_input = path == "-";
  const std::string name = standard_input ? "standard input" : path;
  const int fd = standard_input ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, name);
  int64_t size = -1;
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    size = std::max<int64_t>(0, info.st_size - std::max<int64_t>(0, lseek(fd, 0, SEEK_CUR)));
  }
  // Takes fd over; a folder opens well and fails at its first read.
  return Unpacked(std::make_unique<FileSource>(fd, name, size));
}

std::unique_ptr<ByteSource> ByteSource::FromMemory(absl::Span<const uint8_t> bytes,
                                                   const std::string& name) {
  return std::make_unique<MemorySource>(bytes, name);
}

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::Unpacked(
    std::unique_ptr<ByteSource> packed) {
  absl::StatusOr<absl::Span<const uint8_t>> start = packed->Peek(kGzipMagicSize);
  if (!start.ok()) return start.status();
  if (!StartsWithGzipMagic(*start)) return packed;
  return OpenGzip(std::move(packed));
}

}  // namespace longwave

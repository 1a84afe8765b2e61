#include "scheduler/object_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "formats/atomic_file.h"
#include "formats/sha256.h"

namespace longwave {
namespace {

constexpr absl::string_view kFileScheme = "file://";

absl::Status Error(const std::string& what, const std::error_code& code) {
  return absl::ErrnoToStatus(code.value(), what);
}

class FileWriter final : public ObjectWriter {
 public:
  explicit FileWriter(std::unique_ptr<AtomicFile> file) : file_(std::move(file)) {}

  absl::Status Append(absl::string_view bytes) override {
    hash_.Add(bytes);
    return file_->Append({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  }
  absl::StatusOr<ObjectInfo> Commit() override {
    const int64_t bytes = file_->size();
    absl::Status committed = file_->Commit();
    if (!committed.ok()) return committed;
    return ObjectInfo{bytes, hash_.HexDigest()};
  }

 private:
  std::unique_ptr<AtomicFile> file_;
  Sha256 hash_;
};

class FileStore final : public ObjectStore {
 public:
  explicit FileStore(std::string folder)
      : folder_(std::move(folder)), uri_(absl::StrCat(kFileScheme, folder_)) {}

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) override {
    const absl::StatusOr<std::string> path = LocalPath(name);
    if (!path.ok()) return path.status();
    absl::Status made = MakeFolders(std::filesystem::path(*path).parent_path());
    if (!made.ok()) return made;
    absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(*path);
    if (!file.ok()) return file.status();
    return std::make_unique<FileWriter>(*std::move(file));
  }

  absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                   int64_t count) override {
    const absl::StatusOr<std::string> path = LocalPath(name);
    if (!path.ok()) return path.status();
    const absl::StatusOr<int64_t> size = Size(name);
    if (!size.ok()) return size.status();
    if (offset < 0 || count < 0 || offset > *size) {
      return absl::OutOfRangeError(
          absl::StrCat(name, ": ", count, " bytes at ", offset, " of ", *size));
    }
    std::string bytes(std::min(count, *size - offset), '\0');
    const int fd = open(path->c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, *path);
    size_t done = 0;
    absl::Status status;
    while (done < bytes.size() && status.ok()) {
      const ssize_t got = pread(fd, &bytes[done], bytes.size() - done, offset + done);
      if (got > 0) done += got;
      if (got == 0) status = absl::DataLossError(absl::StrCat(name, ": shorter than it was"));
      if (got < 0 && errno != EINTR) status = absl::ErrnoToStatus(errno, *path);
    }
    close(fd);
    if (!status.ok()) return status;
    return bytes;
  }

  absl::StatusOr<int64_t> Size(const std::string& name) override {
    const absl::StatusOr<std::string> path = LocalPath(name);
    if (!path.ok()) return path.status();
    struct stat info;
    if (stat(path->c_str(), &info) != 0) return absl::ErrnoToStatus(errno, *path);
    return int64_t{info.st_size};
  }

  absl::Status Delete(const std::string& name) override {
    const absl::StatusOr<std::string> path = LocalPath(name);
    if (!path.ok()) return path.status();
    if (unlink(path->c_str()) != 0 && errno != ENOENT) return absl::ErrnoToStatus(errno, *path);
    // Folders that are empty now go too; not the first, in which others may be about to write.
    std::filesystem::path above = std::filesystem::path(*path).parent_path();
    while (above != folder_ && above.parent_path() != folder_ && rmdir(above.c_str()) == 0) {
      above = above.parent_path();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) override {
    const absl::StatusOr<std::string> path = LocalPath(folder);
    if (!path.ok()) return path.status();
    std::vector<std::string> names;
    std::error_code code;
    std::filesystem::recursive_directory_iterator entry(*path, code), end;
    while (!code && entry != end) {
      if (!entry->is_directory(code)) {
        names.push_back(entry->path().string().substr(folder_.size() + 1));
      }
      entry.increment(code);
    }
    if (code && code != std::errc::no_such_file_or_directory) return Error(*path, code);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::StatusOr<std::string> LocalPath(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    return absl::StrCat(folder_, "/", name);
  }

  const std::string& uri() const override { return uri_; }

 private:
  // Folders that are new must reach the disk too: an object in them is said to be there.
  absl::Status MakeFolders(std::filesystem::path folder) {
    std::error_code code;
    if (!std::filesystem::create_directories(folder, code)) {
      return code ? Error(folder.string(), code) : absl::OkStatus();
    }
    for (; folder != folder_; folder = folder.parent_path()) {
      const int fd = open(folder.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fd < 0) return absl::ErrnoToStatus(errno, folder.string());
      fsync(fd);
      close(fd);
    }
    return absl::OkStatus();
  }

  std::string folder_, uri_;
};

}  // namespace

absl::Status CheckObjectName(absl::string_view name) {
  for (absl::string_view part : absl::StrSplit(name, '/')) {
    const bool good = std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
    });
    if (!good || part.empty() || part == "." || part == ".." || name.size() > 1024) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name.substr(0, 1024), "\" is no name of an object"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ObjectStore>> ObjectStore::Open(const std::string& uri) {
  if (!absl::StartsWith(uri, "file:///")) {
    return absl::InvalidArgumentError(absl::StrCat("object store ", uri, ": must be file:///..."));
  }
  std::error_code code;
  std::filesystem::path folder = uri.substr(kFileScheme.size());
  std::filesystem::create_directories(folder, code);
  if (!code) folder = std::filesystem::canonical(folder, code);
  if (code) return Error(uri, code);
  return std::make_unique<FileStore>(folder.string());
}

absl::StatusOr<std::string> ObjectStore::ReadAll(const std::string& name, int64_t most) {
  const absl::StatusOr<int64_t> size = Size(name);
  if (!size.ok()) return size.status();
  if (*size > most) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name, ": ", *size, " bytes, more than ", most));
  }
  return Read(name, 0, *size);
}

absl::StatusOr<ObjectInfo> ObjectStore::Write(const std::string& name, absl::string_view bytes) {
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = Create(name);
  if (!writer.ok()) return writer.status();
  absl::Status status = (*writer)->Append(bytes);
  if (!status.ok()) return status;
  return (*writer)->Commit();
}

}  // namespace longwave

#include "scheduler/file_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/atomic_file.h"
#include "formats/sha256.h"

namespace longwave {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kFileScheme = "file://";
constexpr size_t kFoldersKnown = 4096;
constexpr int kTries = 10;  // another may remove a folder that was empty just before a file came

absl::Status Error(const std::string& what, int error) { return absl::ErrnoToStatus(error, what); }

int64_t ModifiedMs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1000 + info.st_mtim.tv_nsec / 1000000;
}

// Calls `file` with the path and status of each file below `folder`; what goes away meanwhile is
// passed over.
absl::Status Walk(const std::string& folder,
                  const std::function<void(const std::string&, const struct stat&)>& file) {
  std::error_code code;
  fs::directory_iterator entry(folder, code);
  if (code == std::errc::no_such_file_or_directory) return absl::OkStatus();
  for (; !code && entry != fs::directory_iterator(); entry.increment(code)) {
    const std::string path = entry->path().string();
    struct stat info;
    if (lstat(path.c_str(), &info) != 0) {
      if (errno != ENOENT) return Error(path, errno);
    } else if (S_ISDIR(info.st_mode)) {
      absl::Status below = Walk(path, file);
      if (!below.ok()) return below;
    } else {
      file(path, info);
    }
  }
  return code ? Error(folder, code.value()) : absl::OkStatus();
}

// Which folders' names have reached the disk. Thread safety: safe.
class FoldersOnDisk {
 public:
  explicit FoldersOnDisk(std::string top) : top_(std::move(top)) {}

  // `folder` and all between it and the top, those too that another caller has just made: an object
  // in them is said to be there. Once for each folder that there ever was.
  absl::Status Sync(fs::path folder) {
    for (; folder != top_; folder = folder.parent_path()) {
      const std::string birth = BirthOf(folder);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (births_.contains(birth)) continue;
      }
      const fs::path above = folder.parent_path();
      const int fd = open(above.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fd < 0) return Error(above.string(), errno);
      fsync(fd);  // some file systems refuse
      close(fd);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (births_.size() >= kFoldersKnown) births_.clear();
      if (!birth.empty()) births_.insert(birth);
    }
    return absl::OkStatus();
  }

 private:
  // Another for each folder that is made, even where it takes the name and the number of one that
  // was removed. Empty: the file system does not tell.
  static std::string BirthOf(const fs::path& folder) {
    struct statx info;
    if (statx(AT_FDCWD, folder.c_str(), 0, STATX_INO | STATX_BTIME, &info) != 0 ||
        (info.stx_mask & STATX_BTIME) == 0) {
      return "";
    }
    return absl::StrCat(folder.string(), " ", info.stx_ino, " ", info.stx_btime.tv_sec, " ",
                        info.stx_btime.tv_nsec);
  }

  const std::string top_;
  std::mutex mutex_;
  std::set<std::string> births_;
};

class FileWriter final : public ObjectWriter {
 public:
  FileWriter(std::unique_ptr<AtomicFile> file, fs::path folder,
             std::shared_ptr<FoldersOnDisk> on_disk)
      : file_(std::move(file)), folder_(std::move(folder)), on_disk_(std::move(on_disk)) {}

  absl::Status Append(absl::string_view bytes) override {
    hash_.Add(bytes);
    return file_->Append({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  }
  absl::StatusOr<ObjectInfo> Commit() override {
    const int64_t bytes = file_->size();
    absl::Status committed = file_->Commit();
    if (committed.ok()) committed = on_disk_->Sync(folder_);
    if (!committed.ok()) return committed;
    return ObjectInfo{bytes, hash_.HexDigest()};
  }

 private:
  const std::unique_ptr<AtomicFile> file_;
  const fs::path folder_;
  const std::shared_ptr<FoldersOnDisk> on_disk_;
  Sha256 hash_;
};

class FileStore final : public ObjectStore {
 public:
  explicit FileStore(std::string folder)
      : folder_(std::move(folder)),
        uri_(absl::StrCat(kFileScheme, folder_)),
        on_disk_(std::make_shared<FoldersOnDisk>(folder_)) {}

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) override {
    absl::Status status = CheckObjectName(name);
    if (!status.ok()) return status;
    const std::string path = Path(name);
    for (int i = 0; i < kTries; ++i) {
      const fs::path folder = fs::path(path).parent_path();
      std::error_code code;
      fs::create_directories(folder, code);
      status = code ? Error(folder.string(), code.value()) : absl::OkStatus();
      if (absl::IsNotFound(status)) continue;
      if (!status.ok()) return status;
      absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path);
      if (file.ok()) return std::make_unique<FileWriter>(*std::move(file), folder, on_disk_);
      status = file.status();
      if (!absl::IsNotFound(status)) return status;
    }
    return status;
  }

  absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                   int64_t count) override {
    const absl::StatusOr<int64_t> size = Size(name);
    if (!size.ok()) return size.status();
    if (offset < 0 || count < 0 || offset > *size) {
      return absl::OutOfRangeError(
          absl::StrCat(name, ": ", count, " bytes at ", offset, " of ", *size));
    }
    std::string bytes(std::min(count, *size - offset), '\0');
    const int fd = open(Path(name).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Error(name, errno);
    size_t done = 0;
    absl::Status status;
    while (done < bytes.size() && status.ok()) {
      const ssize_t got = pread(fd, &bytes[done], bytes.size() - done, offset + done);
      if (got > 0) done += got;
      if (got == 0) status = absl::DataLossError(absl::StrCat(name, ": shorter than it was"));
      if (got < 0 && errno != EINTR) status = Error(name, errno);
    }
    close(fd);
    if (!status.ok()) return status;
    return bytes;
  }

  absl::StatusOr<int64_t> Size(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    struct stat info;
    if (stat(Path(name).c_str(), &info) != 0) return Error(name, errno);
    if (!S_ISREG(info.st_mode)) return absl::NotFoundError(name + ": not a file");
    return int64_t{info.st_size};
  }

  absl::Status Delete(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    return Remove(name);
  }

  absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<ListedObject> objects;
    good = Walk(Path(folder), [&](const std::string& path, const struct stat& info) {
      if (absl::EndsWith(path, kPartialEnding)) return;
      objects.push_back({Name(path), info.st_size, ModifiedMs(info)});
    });
    if (!good.ok()) return good;
    std::sort(objects.begin(), objects.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return objects;
  }

  absl::StatusOr<std::vector<std::string>> ListFolders(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<std::string> folders;
    std::error_code code;
    for (fs::directory_iterator entry(Path(folder), code), end; !code && entry != end;
         entry.increment(code)) {
      std::error_code gone;
      if (entry->is_directory(gone)) folders.push_back(entry->path().filename().string());
    }
    if (code && code != std::errc::no_such_file_or_directory) {
      return Error(Path(folder), code.value());
    }
    std::sort(folders.begin(), folders.end());
    return folders;
  }

  absl::StatusOr<std::vector<PartialObject>> ListPartial(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<PartialObject> found;
    good = Walk(Path(folder), [&](const std::string& path, const struct stat& info) {
      if (absl::EndsWith(path, kPartialEnding)) found.push_back({Name(path), "", ModifiedMs(info)});
    });
    if (!good.ok()) return good;
    return found;
  }

  absl::Status DeletePartial(const PartialObject& partial) override {
    absl::Status good =
        absl::EndsWith(partial.name, kPartialEnding)
            ? CheckObjectName(partial.name.substr(0, partial.name.size() - kPartialEnding.size()))
            : absl::InvalidArgumentError(partial.name + ": is whole");
    if (!good.ok()) return good;
    return Remove(partial.name);
  }

  const std::string& uri() const override { return uri_; }

 private:
  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }
  std::string Name(const std::string& path) const { return path.substr(folder_.size() + 1); }

  absl::Status Remove(const std::string& name) {
    const std::string path = Path(name);
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return Error(path, errno);
    // Folders that are empty now go too; not the first, in which others may be about to write.
    fs::path above = fs::path(path).parent_path();
    while (above != folder_ && above.parent_path() != folder_ && rmdir(above.c_str()) == 0) {
      above = above.parent_path();
    }
    return absl::OkStatus();
  }

  const std::string folder_, uri_;
  const std::shared_ptr<FoldersOnDisk> on_disk_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenFileStore(const std::string& uri) {
  std::error_code code;
  fs::path folder = uri.substr(kFileScheme.size());
  fs::create_directories(folder, code);
  if (!code) folder = fs::canonical(folder, code);
  if (code) return Error(uri, code.value());
  return std::make_unique<FileStore>(folder.string());
}

}  // namespace longwave

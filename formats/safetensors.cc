#include "formats/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/safetensors_header.h"

namespace longwave {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Described(const SafetensorsEntry& entry) {
  return absl::StrCat("tensor ", QuotedName(entry.name), " ", Name(entry.dtype), " ",
                      ShapeString(entry.shape), " at [", entry.begin, ", ", entry.end, ")");
}

// The bytes that dtype and shape ask for; -1 where they overflow int64.
int64_t BytesOf(const SafetensorsEntry& entry) {
  if (std::count(entry.shape.begin(), entry.shape.end(), 0) > 0) return 0;
  int64_t bytes = ByteSize(entry.dtype);
  for (int64_t size : entry.shape) {
    if (size > std::numeric_limits<int64_t>::max() / bytes) return -1;
    bytes *= size;
  }
  return bytes;
}

// Sorts by offset. The tensors must cover the data: each starts where the one before it ends.
absl::Status CheckLayout(std::vector<SafetensorsEntry>& entries, int64_t data_size) {
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin > entry.end || entry.end > data_size) {
      return absl::InvalidArgumentError(absl::StrCat(Described(entry),
                                                     ": the offsets are not in order within the ",
                                                     data_size, " bytes of data"));
    }
    const int64_t bytes = BytesOf(entry);
    if (bytes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(Described(entry), ": the size overflows int64"));
    }
    if (bytes != entry.end - entry.begin) {
      return absl::InvalidArgumentError(absl::StrCat(Described(entry), ": dtype and shape need ",
                                                     bytes, " bytes, the offsets hold ",
                                                     entry.end - entry.begin));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t at = 0;
  const SafetensorsEntry* before = nullptr;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin < at) {
      return absl::InvalidArgumentError(
          absl::StrCat(Described(entry), " overlaps ", Described(*before)));
    }
    if (entry.begin > at) {
      return absl::InvalidArgumentError(
          absl::StrCat(Described(entry), ": no tensor has the bytes from ", at, " up to it"));
    }
    at = entry.end;
    before = &entry;
  }
  if (at != data_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("no tensor has the bytes from ", at, " to the data's end at ", data_size));
  }
  return absl::OkStatus();
}

absl::Status ParseInto(absl::Span<const uint8_t> bytes, std::map<std::string, TensorView>* out) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(size, " bytes are too few for a safetensors file"));
  }
  uint64_t length = 0;
  for (int i = 0; i < kLengthBytes; ++i) length |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  if (length > kMaxHeader) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header's length ", length, " is beyond ", kMaxHeader));
  }
  const int64_t data_start = kLengthBytes + static_cast<int64_t>(length);
  if (data_start > size) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header's length ", length, " reaches past the file's ", size, " bytes"));
  }
  absl::StatusOr<std::vector<SafetensorsEntry>> entries = ParseSafetensorsHeader(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length));
  if (!entries.ok()) return entries.status();
  absl::Status layout = CheckLayout(*entries, size - data_start);
  if (!layout.ok()) return layout;
  for (SafetensorsEntry& entry : *entries) {
    (*out)[entry.name] = {entry.dtype, std::move(entry.shape),
                          bytes.data() + data_start + entry.begin};
  }
  return absl::OkStatus();
}

}  // namespace

int64_t ByteSize(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 1;
}

const char* Name(DType type) {
  static constexpr const char* kNames[] = {"F64", "F32", "F16", "BF16", "I64",
                                           "I32", "I16", "I8",  "U8",   "BOOL"};
  return kNames[static_cast<int>(type)];
}

int64_t TensorView::elements() const {
  if (std::count(shape.begin(), shape.end(), 0) > 0) return 0;
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

absl::StatusOr<std::shared_ptr<const Safetensors>> Safetensors::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // no waiting on a pipe
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  std::shared_ptr<Safetensors> file(new Safetensors);
  file->path_ = path;
  struct stat info;
  absl::Status failed;
  if (fstat(fd, &info) != 0) {
    failed = absl::ErrnoToStatus(errno, path);
  } else if (S_ISDIR(info.st_mode)) {
    failed = absl::ErrnoToStatus(EISDIR, path);
  } else if (!S_ISREG(info.st_mode)) {
    failed = Bad(path, "not a regular file, which mapping it into memory needs");
  } else if (info.st_size > 0) {
    void* map = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
      failed = absl::ErrnoToStatus(errno, path);
    } else {
      file->map_ = static_cast<const uint8_t*>(map);
      file->map_size_ = info.st_size;
    }
  }
  close(fd);
  if (!failed.ok()) return failed;
  absl::Status parsed =
      ParseInto(absl::Span<const uint8_t>(file->map_, file->map_size_), &file->tensors_);
  if (!parsed.ok()) return Bad(path, std::string(parsed.message()));
  return file;
}

absl::StatusOr<std::shared_ptr<const Safetensors>> Safetensors::Parse(
    absl::Span<const uint8_t> bytes, const std::string& name) {
  std::shared_ptr<Safetensors> file(new Safetensors);
  file->path_ = name;
  absl::Status parsed = ParseInto(bytes, &file->tensors_);
  if (!parsed.ok()) return Bad(name, std::string(parsed.message()));
  return file;
}

Safetensors::~Safetensors() {
  if (map_ != nullptr) munmap(const_cast<uint8_t*>(map_), map_size_);
}

absl::StatusOr<TensorView> Safetensors::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat(path_, ": no tensor ", QuotedName(name)));
  }
  return found->second;
}

}  // namespace longwave

#include "scheduler/object_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "formats/buffered_source.h"
#include "formats/sha256.h"
#include "scheduler/file_store.h"
#include "scheduler/s3/store.h"

namespace longwave {
namespace {

constexpr size_t kMostName = 1024;

class ObjectSource final : public BufferedSource {
 public:
  ObjectSource(ObjectStore& store, const std::string& object, int64_t offset, int64_t count,
               std::string sha256, const std::string& label = "")
      : BufferedSource(label.empty() ? object : label),
        store_(store),
        object_(object),
        begin_(offset),
        next_(offset),
        end_(offset + count),
        sha256_(std::move(sha256)) {}

  double FractionRead() const override {
    if (end_ == begin_) return 1;
    const int64_t left = static_cast<int64_t>(block_.size() - used_) + buffered();
    return static_cast<double>(next_ - begin_ - left) / static_cast<double>(end_ - begin_);
  }

 private:
  absl::StatusOr<int64_t> Fill(absl::Span<uint8_t> out) override {
    if (used_ == block_.size()) {
      absl::Status got = NextBlock();
      if (!got.ok()) return got;
    }
    const size_t count = std::min(out.size(), block_.size() - used_);
    std::memcpy(out.data(), block_.data() + used_, count);
    used_ += count;
    return static_cast<int64_t>(count);
  }

  absl::Status NextBlock() {
    const int64_t count = std::min(end_ - next_, ObjectStore::kSourceBlock);
    block_.clear();
    used_ = 0;
    if (count > 0) {
      absl::StatusOr<std::string> block = store_.Read(object_, next_, count);
      if (!block.ok()) return block.status();
      if (static_cast<int64_t>(block->size()) != count) {
        return absl::DataLossError(absl::StrCat(object_, ": shorter than it was"));
      }
      block_ = *std::move(block);
      next_ += count;
      if (!sha256_.empty()) hash_.Add(block_);
    }
    if (next_ < end_ || sha256_.empty()) return absl::OkStatus();
    return CheckSha256(object_, hash_.HexDigest(), std::exchange(sha256_, ""));
  }

  ObjectStore& store_;
  const std::string object_;
  const int64_t begin_;
  int64_t next_;  // of the object: where the next block begins
  const int64_t end_;
  std::string sha256_;  // empty: not compared, or not any more
  Sha256 hash_;
  std::string block_;
  size_t used_ = 0;  // of block_
};

}  // namespace

absl::Status CheckSha256(const std::string& name, absl::string_view is,
                         absl::string_view expected) {
  if (expected.empty() || is == expected) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(name, ": its SHA-256 is ", is, ", it was written with ", expected));
}

absl::Status CheckObjectName(absl::string_view name) {
  for (absl::string_view part : absl::StrSplit(name, '/')) {
    const bool good = std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
    });
    if (!good || part.empty() || part == "." || part == ".." || name.size() > kMostName ||
        absl::EndsWith(part, kPartialEnding)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name.substr(0, kMostName), "\" is no name of an object"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ObjectStore>> ObjectStore::Open(const std::string& uri,
                                                               int64_t patience_ms) {
  if (absl::StartsWith(uri, "file:///")) return OpenFileStore(uri);
  if (absl::StartsWith(uri, "s3://")) return OpenS3Store(uri, patience_ms);
  return absl::InvalidArgumentError(
      absl::StrCat("object store ", uri, ": must be file:///FOLDER or s3://BUCKET/PREFIX"));
}

absl::StatusOr<std::vector<std::string>> ObjectStore::List(const std::string& folder) {
  absl::StatusOr<std::vector<ListedObject>> objects = ListObjects(folder);
  if (!objects.ok()) return objects.status();
  std::vector<std::string> names;
  for (ListedObject& object : *objects) names.push_back(std::move(object.name));
  return names;
}

absl::StatusOr<std::string> ObjectStore::ReadAll(const std::string& name, int64_t most,
                                                 absl::string_view sha256) {
  const absl::StatusOr<int64_t> size = Size(name);
  if (!size.ok()) return size.status();
  if (*size > most) {
    return absl::DataLossError(absl::StrCat(name, ": ", *size, " bytes, more than ", most));
  }
  absl::StatusOr<std::string> bytes = Read(name, 0, *size);
  if (!bytes.ok() || sha256.empty()) return bytes;
  absl::Status same = CheckSha256(name, HexSha256(*bytes), sha256);
  if (!same.ok()) return same;
  return bytes;
}

absl::StatusOr<ObjectInfo> ObjectStore::Write(const std::string& name, absl::string_view bytes) {
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = Create(name);
  if (!writer.ok()) return writer.status();
  absl::Status status = (*writer)->Append(bytes);
  if (!status.ok()) return status;
  return (*writer)->Commit();
}

absl::StatusOr<std::unique_ptr<ByteSource>> ObjectStore::OpenSource(const std::string& name,
                                                                    const std::string& sha256,
                                                                    const std::string& label) {
  const absl::StatusOr<int64_t> size = Size(name);
  if (!size.ok()) return size.status();
  return std::make_unique<ObjectSource>(*this, name, 0, *size, sha256, label);
}

absl::StatusOr<std::unique_ptr<ByteSource>> ObjectStore::OpenRange(const std::string& name,
                                                                   int64_t offset, int64_t count,
                                                                   const std::string& sha256) {
  const absl::StatusOr<int64_t> size = Size(name);
  if (!size.ok()) return size.status();
  if (offset < 0 || count < 0 || offset > *size || count > *size - offset) {
    return absl::OutOfRangeError(
        absl::StrCat(name, ": ", count, " bytes at ", offset, " of ", *size));
  }
  return std::make_unique<ObjectSource>(*this, name, offset, count, count == *size ? sha256 : "");
}

}  // namespace longwave

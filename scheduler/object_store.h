// Where uploads, tokens, outputs and boundaries are: named bytes that appear whole or not at all.
// A folder of this machine, or a prefix of an S3 bucket.
//
// A name is one or several parts of [A-Za-z0-9._-] with '/' between them; no part is "." or "..",
// and none ends in ".partial".
//
// Thread safety: safe; an ObjectWriter and a source belong to one caller each. Errors: absl::Status
// with the name; NotFound where there is no such object, DataLoss where its content is not what it
// should be, ResourceExhausted where the store is full, Unavailable where it did not answer in
// time. Calls block; those of S3 as long as its patience while it refuses or does not answer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/byte_source.h"

namespace longwave {

struct ObjectInfo {
  int64_t bytes = 0;
  std::string sha256;  // of the content, hexadecimal
};

struct ListedObject {
  std::string name;
  int64_t bytes = 0;
  int64_t modified_ms = 0;  // since 1970, by the store's clock
};

// An object in the making, or what a dead process left of one.
struct PartialObject {
  std::string name;         // of the object; in a folder, of the file that is being written
  std::string upload;       // S3's id of it
  int64_t modified_ms = 0;  // the last write; in S3, the start
};

// An object in the making; destroyed before Commit() it leaves nothing behind.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual absl::Status Append(absl::string_view bytes) = 0;
  // The object is there, and outlives a loss of power.
  virtual absl::StatusOr<ObjectInfo> Commit() = 0;
};

class ObjectStore {
 public:
  // "file:///path", a folder that is made where it is missing, or "s3://BUCKET[/PREFIX]", which
  // must answer (docs/operations.md, "Object store", has its environment variables).
  // InvalidArgument for another scheme. S3 is asked again for `patience_ms`.
  static constexpr int64_t kPatienceMs = 90000;
  static absl::StatusOr<std::unique_ptr<ObjectStore>> Open(const std::string& uri,
                                                           int64_t patience_ms = kPatienceMs);
  virtual ~ObjectStore() = default;

  // Takes the place of an object of that name.
  virtual absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) = 0;
  // Bytes [offset, offset + count), fewer at the object's end. OutOfRange beyond it.
  virtual absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                           int64_t count) = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& name) = 0;
  // Succeeds where there is none.
  virtual absl::Status Delete(const std::string& name) = 0;
  // All objects whose names begin with `folder` and '/', in order of their names.
  virtual absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) = 0;
  // The parts that follow `folder` and '/' in names and have a '/' after them, in order.
  virtual absl::StatusOr<std::vector<std::string>> ListFolders(const std::string& folder) = 0;
  // What is in the making below `folder`, by whichever process.
  virtual absl::StatusOr<std::vector<PartialObject>> ListPartial(const std::string& folder) = 0;
  // Succeeds where it is gone. Its writer, if there still is one, fails.
  virtual absl::Status DeletePartial(const PartialObject& partial) = 0;
  virtual const std::string& uri() const = 0;

  // The names alone.
  absl::StatusOr<std::vector<std::string>> List(const std::string& folder);
  // All of it. DataLoss where it has more than `most` bytes, or another SHA-256 than `sha256`
  // (hexadecimal; empty: not compared).
  absl::StatusOr<std::string> ReadAll(const std::string& name, int64_t most,
                                      absl::string_view sha256 = "");
  absl::StatusOr<ObjectInfo> Write(const std::string& name, absl::string_view bytes);

  // The object front to back, kSourceBlock bytes in memory. DataLoss, in place of its last block,
  // where its SHA-256 is another than `sha256` (empty: not compared). The store must outlive it.
  // `label`: the source's name; empty: the object's.
  static constexpr int64_t kSourceBlock = 4 << 20;
  absl::StatusOr<std::unique_ptr<ByteSource>> OpenSource(const std::string& name,
                                                         const std::string& sha256 = "",
                                                         const std::string& label = "");
  // Bytes [offset, offset + count) of it; OutOfRange where they are not all there. `sha256`, that
  // of the whole object, is compared where the range is the whole object.
  absl::StatusOr<std::unique_ptr<ByteSource>> OpenRange(const std::string& name, int64_t offset,
                                                        int64_t count,
                                                        const std::string& sha256 = "");
};

// DataLoss where the SHA-256 of an object's bytes, hexadecimal, is not the one it was written with;
// that is empty where it is not known.
absl::Status CheckSha256(const std::string& name, absl::string_view is, absl::string_view expected);
absl::Status CheckObjectName(absl::string_view name);

}  // namespace longwave

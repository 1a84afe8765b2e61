// Where uploads, tokens, outputs and boundaries are: named bytes that appear whole or not at all.
//
// A name is one or several parts of [A-Za-z0-9._-] with '/' between them; no part is "." or "..".
//
// Thread safety: safe; an ObjectWriter belongs to one caller. Errors: absl::Status with the name;
// NotFound where there is no such object.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

struct ObjectInfo {
  int64_t bytes = 0;
  std::string sha256;  // of the content, hexadecimal
};

// An object in the making; destroyed before Commit() it leaves nothing behind.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual absl::Status Append(absl::string_view bytes) = 0;
  // The object is there, and on the disk.
  virtual absl::StatusOr<ObjectInfo> Commit() = 0;
};

class ObjectStore {
 public:
  // "file:///path", a folder that is made where it is missing. InvalidArgument for another scheme.
  static absl::StatusOr<std::unique_ptr<ObjectStore>> Open(const std::string& uri);
  virtual ~ObjectStore() = default;

  // Takes the place of an object of that name.
  virtual absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) = 0;
  // Bytes [offset, offset + count), fewer at the object's end.
  virtual absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                           int64_t count) = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& name) = 0;
  // Succeeds where there is none.
  virtual absl::Status Delete(const std::string& name) = 0;
  // All objects whose names begin with `folder` and '/'; those in the making too.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& folder) = 0;
  // A file of the same content that may be opened for reading; for objects on this machine.
  virtual absl::StatusOr<std::string> LocalPath(const std::string& name) = 0;
  virtual const std::string& uri() const = 0;

  // All of it. ResourceExhausted beyond `most` bytes.
  absl::StatusOr<std::string> ReadAll(const std::string& name, int64_t most);
  absl::StatusOr<ObjectInfo> Write(const std::string& name, absl::string_view bytes);
};

absl::Status CheckObjectName(absl::string_view name);

}  // namespace longwave

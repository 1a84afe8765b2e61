// An S3 object in the making: see scheduler/s3/store.h.
//
// Thread safety: one caller. The client must outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/sha256.h"
#include "scheduler/object_store.h"
#include "scheduler/s3/client.h"

namespace longwave {

class S3Writer final : public ObjectWriter {
 public:
  S3Writer(S3Client& client, std::string key) : client_(client), key_(std::move(key)) {}
  ~S3Writer() override;  // ends the upload unless committed

  absl::Status Append(absl::string_view bytes) override;
  absl::StatusOr<ObjectInfo> Commit() override;

 private:
  size_t PartBytes() const;  // of the next part
  absl::Status StartUpload();
  absl::Status SendPart();
  absl::Status SendWhole(const std::string& sha256);
  absl::Status Complete();
  bool IsThere();  // whether the object is the one of this upload

  S3Client& client_;
  const std::string key_;
  std::string buffer_;
  Sha256 hash_;
  int64_t bytes_ = 0;
  std::string upload_;  // S3's id; empty: none under way
  std::string mark_;    // the object's metadata: what tells it from another of its name
  std::vector<std::string> etags_;
  absl::Status status_;  // the first error stays
};

}  // namespace longwave

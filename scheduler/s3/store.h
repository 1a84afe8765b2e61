// Objects of an S3 bucket, below a prefix. A small object is one PUT; a larger one is an upload in
// parts that stays invisible until it is complete. A process that dies in between leaves the
// upload, which costs money until DeletePartial() (scheduler/garbage.h) or a rule of the bucket
// ends it.
//
// Part n has S3Config::part_bytes, doubled every 1000 parts: memory is one part, and S3's 10,000
// parts are enough for the largest object that S3 takes.
//
// Thread safety and errors: see ObjectStore and scheduler/s3/client.h.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/object_store.h"
#include "scheduler/s3/config.h"

namespace longwave {

// By the process's environment. `patience_ms`: S3Config::total_ms. REQUIRES: `uri` begins with
// "s3://".
absl::StatusOr<std::unique_ptr<ObjectStore>> OpenS3Store(const std::string& uri,
                                                         int64_t patience_ms);
// Asks the bucket for one name: credentials, region and bucket are good, or this says what is not.
absl::StatusOr<std::unique_ptr<ObjectStore>> OpenS3Store(S3Config config);

}  // namespace longwave

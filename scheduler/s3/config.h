// Where an S3 bucket is and how to speak to it: from its URI and the environment variables that
// every program for S3 reads.
//
// Thread safety: plain data and a pure function.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

struct S3Config {
  std::string bucket;
  std::string prefix;  // of every object, without '/' at its end; empty: none
  std::string region;
  std::string url;  // of the bucket, without '/' at its end: "https://HOST" or "http://HOST/BUCKET"
  std::string key_id, secret, session_token;
  std::string ca_file;  // certificates to trust; empty: the system's

  int64_t part_bytes = 8 << 20;  // of an upload in parts, and of one read; S3 wants 5 MiB and more
  int64_t list_page = 1000;      // names asked for at once
  // Time, milliseconds. An attempt ends when nothing is connected, nothing moves, or it is over; a
  // request is attempted again, after a pause that doubles, while `total_ms` has not passed.
  int64_t connect_ms = 5000, stall_ms = 30000, attempt_ms = 60000;
  int64_t first_pause_ms = 100, most_pause_ms = 5000, total_ms = 90000;

  std::string uri() const;  // "s3://BUCKET/PREFIX"
};

// `variable` gives the value of an environment variable, empty where it is not set. InvalidArgument
// names the URI or the variable.
absl::StatusOr<S3Config> ReadS3Config(const std::string& uri,
                                      const std::function<std::string(const char* name)>& variable);
// The process's own environment.
std::string EnvironmentVariable(const char* name);

}  // namespace longwave

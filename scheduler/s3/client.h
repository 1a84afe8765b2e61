// Requests to one S3 bucket: signed, with limits of time and size, and attempted again where that
// may help: after a lost connection, 429, and 5xx. Connections are kept and used again.
//
// REQUIRES: the process ignores SIGPIPE (services/signals.h): TLS over a lost connection raises it.
//
// Thread safety: safe; each call blocks its caller. Errors say object, method, HTTP status and S3's
// own code:
//   NotFound           404
//   OutOfRange         416
//   PermissionDenied   401, 403, and credentials that are unknown or have run out
//   ResourceExhausted  507, and codes that say that the store is full
//   Unavailable        what was worth another attempt until the time was over
//   Unknown            any other refusal, and an answer that is none
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/s3/config.h"

namespace longwave {

struct S3Request {
  std::string method;  // "GET"
  std::string key;     // empty: the bucket
  std::map<std::string, std::string> query = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  absl::string_view body = {};
  std::string body_sha256 = {};   // hexadecimal; empty: the client computes it
  int64_t most_bytes = 16 << 20;  // of the answer's body
  int64_t total_ms = 0;           // in place of the configuration's; 0: that
};

struct S3Response {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;

  std::string Header(const std::string& name) const;  // empty where there is none
};

class S3Client {
 public:
  explicit S3Client(S3Config config);
  ~S3Client();
  S3Client(const S3Client&) = delete;
  S3Client& operator=(const S3Client&) = delete;

  // An answer with status 2xx that is not an <Error>.
  absl::StatusOr<S3Response> Send(const S3Request& request);
  const S3Config& config() const { return config_; }

 private:
  class Attempt;
  struct Outcome;
  Outcome SendOnce(const S3Request& request, const std::string& sha256);

  const S3Config config_;
  std::mutex mutex_;
  std::vector<void*> idle_;  // CURL handles
};

}  // namespace longwave

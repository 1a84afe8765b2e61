// The HTTP API under /v1: a pure function from request to response, over the stores. Sockets,
// timeouts and streaming are the listener's (http_server.h). docs/api.md has every path.
//
// Thread safety: safe; an Upload belongs to one caller.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "boost/json/object.hpp"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"
#include "services/cluster/model_catalog.h"

namespace longwave {

struct ApiRequest {
  std::string method;  // "GET"
  std::string target;  // as it came: path and query, percent encoded
  std::string body;
  std::string idempotency_key, range;  // the headers; empty: none
};

// Part of a response's body that is read from the object store while it is sent.
struct BodyPart {
  std::string object;
  int64_t offset = 0, bytes = 0;
};

struct ApiResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;             // then
  std::vector<BodyPart> parts;  // these

  int64_t body_bytes() const;
};

// A file on its way into the store.
class Upload {
 public:
  absl::Status Append(absl::string_view bytes) { return writer_->Append(bytes); }

 private:
  friend class Api;
  StoredFile file_;
  std::unique_ptr<ObjectWriter> writer_;
};

class Api {
 public:
  static constexpr int64_t kMostBody = 64 << 10;           // of a JSON request
  static constexpr int64_t kMostChunk = int64_t{1} << 24;  // tokens
  static constexpr int64_t kMostListed = 1000;

  Api(JobStore& store, ObjectStore& objects, ModelCatalog& models)
      : store_(store), objects_(objects), models_(models) {}

  ApiResponse Handle(const ApiRequest& request);
  // POST /v1/files, whose body is not a request's but a stream.
  static bool IsUpload(const ApiRequest& request);
  absl::StatusOr<Upload> StartUpload(const ApiRequest& request);
  ApiResponse FinishUpload(Upload upload);

  // What /readyz says from now on; OK: ready.
  void SetReady(absl::Status status);
  // The answer that says what went wrong: application/problem+json.
  static ApiResponse Problem(const absl::Status& status);
  static ApiResponse Problem(int http_status, absl::string_view detail);

 private:
  absl::StatusOr<ApiResponse> Route(const ApiRequest& request);
  absl::StatusOr<ApiResponse> CreateJob(const ApiRequest& request);
  absl::StatusOr<ApiResponse> ListJobs(const ApiRequest& request);
  absl::StatusOr<ApiResponse> CancelJob(const std::string& id);
  absl::StatusOr<ApiResponse> DeleteJob(const std::string& id);
  absl::StatusOr<ApiResponse> Output(const std::string& id, const ApiRequest& request);

  JobStore& store_;
  ObjectStore& objects_;
  ModelCatalog& models_;
  std::mutex mutex_;
  absl::Status ready_ = absl::UnavailableError("starting");
};

boost::json::object ToJson(const Job& job, int64_t now_ms);
// The time of day when this process began, and what has passed since: it never jumps.
int64_t WallClockMs();
// 16 hexadecimal digits that no other has.
std::string NewId();

}  // namespace longwave

// The HTTP API under /v1: a pure function from request to response, over the stores. Sockets,
// timeouts and streaming are the listener's (http_server.h). docs/api.md has every path, and
// openapi.json the same for programs.
//
// api_routes.cc has the one table of routes; the handlers of a resource are in api_RESOURCE.cc.
//
// Thread safety: safe; an Upload belongs to one caller.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"
#include "scheduler/session_store.h"
#include "scheduler/worker_info.h"
#include "services/cluster/api_message.h"
#include "services/cluster/api_parse.h"
#include "services/cluster/auth.h"
#include "services/cluster/model_catalog.h"

namespace longwave {

// A file on its way into the store.
class Upload {
 public:
  absl::Status Append(absl::string_view bytes);

 private:
  friend class Api;
  StoredFile file_;
  int64_t most_bytes_ = 0;  // 0: any
  std::unique_ptr<ObjectWriter> writer_;
};

// What the API is told by the rest of the server.
struct ApiHooks {
  std::function<std::vector<WorkerInfo>()> workers;
  std::function<std::string()> metrics;  // in Prometheus' text format
  // After each answer was made. `route`: "GET /v1/jobs/{job}", or "none" where there is none.
  std::function<void(absl::string_view route, int status, double seconds)> observe;
  std::function<void()> job_created;  // there may be something to plan
};

class Api {
 public:
  static constexpr int64_t kMostBody = 256 << 10;          // of a JSON request
  static constexpr int64_t kMostChunk = int64_t{1} << 24;  // tokens
  static constexpr int64_t kMostNewTokens = int64_t{1} << 40;
  static constexpr int64_t kMostListed = 1000;
  static constexpr int64_t kMostTimeLimit = int64_t{366} * 86400;  // seconds
  static constexpr int64_t kMostAppended = 1 << 14;                // tokens, to a session

  struct Stores {
    JobStore& jobs;
    TokenStore& tokens;
    SessionStore& sessions;
    ObjectStore& objects;
    ModelCatalog& models;
  };

  Api(const Stores& stores, Authenticator::Options auth, ApiHooks hooks = {});

  ApiResponse Handle(const ApiRequest& request);
  // Those that never wait for a store.
  static bool IsImmediate(const ApiRequest& request);
  // Those that wait for the object store: while it is away they are to hold up no others.
  static bool NeedsObjects(const ApiRequest& request);
  // POST /v1/files, whose body is not a request's but a stream. `bytes`: where it says how many.
  static bool IsUpload(const ApiRequest& request);
  absl::StatusOr<Upload> StartUpload(const ApiRequest& request, std::optional<int64_t> bytes);
  ApiResponse FinishUpload(Upload upload);

  // What /readyz says from now on; OK: ready.
  void SetReady(absl::Status status);

  // A request that was understood, of somebody who may make it.
  struct Call {
    const ApiRequest& request;
    std::vector<std::string> ids;  // what stands in the braces of the route's path, in order
    Query query;
    Identity who;
    int64_t now_ms = 0;
  };
  using Answer = absl::StatusOr<ApiResponse>;
  struct Route {
    const char* method;
    const char* path;           // "/v1/jobs/{job}"
    std::optional<Role> least;  // nullopt: anybody, without a token
    std::vector<const char*> query;
    Answer (Api::*handler)(const Call& call);
    bool objects = false;  // it needs the object store
  };
  static const std::vector<Route>& Routes();

 private:
  // The route that a request names; an answer (404, 405) where there is none.
  struct Match {
    const Route* route = nullptr;
    std::vector<std::string> ids;
    Query query;
    ApiResponse refusal;
  };
  static Match FindRoute(const ApiRequest& request);
  absl::StatusOr<Call> Admit(const ApiRequest& request, Match match);
  ApiResponse Timed(const Match& match, const std::function<ApiResponse()>& answer);

  Answer Health(const Call& call);
  Answer Ready(const Call& call);
  Answer Metrics(const Call& call);
  Answer OpenApi(const Call& call);
  Answer ListWorkers(const Call& call);
  Answer ListModels(const Call& call);
  Answer GetModel(const Call& call);
  Answer NoUpload(const Call& call);
  Answer ListFiles(const Call& call);
  Answer GetFile(const Call& call);
  Answer DeleteFile(const Call& call);
  Answer CreateJob(const Call& call);
  Answer ListJobs(const Call& call);
  Answer GetJob(const Call& call);
  Answer CancelJob(const Call& call);
  Answer DeleteJob(const Call& call);
  Answer ListSequences(const Call& call);
  Answer GetOutput(const Call& call);
  Answer GetTrace(const Call& call);
  Answer JobEvents(const Call& call);
  Answer AllEvents(const Call& call);
  Answer CreateSession(const Call& call);
  Answer ListSessions(const Call& call);
  Answer GetSession(const Call& call);
  Answer DeleteSession(const Call& call);
  Answer AppendToSession(const Call& call);
  Answer CreateToken(const Call& call);
  Answer ListTokens(const Call& call);
  Answer RevokeToken(const Call& call);
  Answer PutTenant(const Call& call);
  Answer ListTenants(const Call& call);

  // The thing of call.ids[0], where the caller may see it; NotFound as if there were none.
  absl::StatusOr<Job> FindJob(const Call& call);
  absl::StatusOr<StoredFile> FindFile(const Call& call, const std::string& id);
  // The tenant that a list is of: the caller's; of an admin what the query says, or all (empty).
  static absl::StatusOr<std::string> ListedTenant(const Call& call);
  // What of a list, "jobs", a request asks for: entries with a number below `before`, newest first.
  struct Page {
    const char* list;
    std::string tenant;
    int64_t before = 0, limit = 0;

    // The answer; `last`: the number of its last entry.
    ApiResponse Answer(boost::json::array entries, int64_t last) const;
  };
  static absl::StatusOr<Page> AskedPage(const Call& call, const char* list);
  absl::StatusOr<SequenceRow> FindOutput(const Job& job, const Call& call);
  absl::StatusOr<ModelEntry> FindModel(const JobSpec& job);
  absl::StatusOr<ModelEntry> FindLanguageModel(const std::string& name);  // for sessions
  absl::StatusOr<Session> FindSession(const Call& call);
  struct Append;
  Answer FinishAppend(const Append& append, const Job& job);
  Answer TakeScores(const Append& append, const Job& job);
  Answer EndAppend(const Append& append, const std::vector<float>& scores,
                   const std::string& boundary);
  Answer Events(const Call& call, EventFilter filter);
  // What of a thing that is gone could not be removed: it takes room, no more. It is logged.
  static void LeftOver(const absl::Status& status);
  // The number of the latest event, at most kEventAge old.
  absl::StatusOr<int64_t> LatestEvent();

  JobStore& jobs_;
  TokenStore& tokens_;
  SessionStore& sessions_;
  ObjectStore& objects_;
  ModelCatalog& models_;
  Authenticator auth_;
  const ApiHooks hooks_;
  std::mutex mutex_;
  absl::Status ready_ = absl::UnavailableError("starting");
  int64_t latest_event_ = 0, latest_event_ms_ = 0;
};

boost::json::object ToJson(const Job& job, int64_t now_ms);
// The time of day when this process began, and what has passed since: it never jumps.
int64_t WallClockMs();
// 16 hexadecimal digits that no other has.
std::string NewId();

}  // namespace longwave

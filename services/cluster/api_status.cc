// How the server and its workers stand, and what the API is.
#include "boost/json/array.hpp"
#include "services/cluster/api.h"
#include "services/cluster/openapi.h"

namespace longwave {

Api::Answer Api::Health(const Call& call) { return JsonResponse(200, {{"status", "ok"}}); }

Api::Answer Api::Ready(const Call& call) {
  absl::Status status;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    status = ready_;
  }
  status.Update(jobs_.LastEvent().status());
  if (status.ok()) return JsonResponse(200, {{"status", "ok"}});
  return Problem(503, PlainSqlError(status).value_or(std::string(status.message())));
}

Api::Answer Api::Metrics(const Call& call) {
  ApiResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  if (hooks_.metrics) response.body = hooks_.metrics();
  return response;
}

Api::Answer Api::OpenApi(const Call& call) {
  ApiResponse response;
  response.body = kOpenApi;
  return response;
}

Api::Answer Api::ListWorkers(const Call& call) {
  boost::json::array list;
  for (const WorkerInfo& worker : hooks_.workers ? hooks_.workers() : std::vector<WorkerInfo>()) {
    boost::json::object object = {{"name", worker.name},
                                  {"device", worker.device},
                                  {"state", worker.state()},
                                  {"seen_ms", worker.seen_ms}};
    if (worker.tokens_per_second > 0) object["tokens_per_second"] = worker.tokens_per_second;
    if (call.who.role == Role::kAdmin) {  // they may be other tenants'
      boost::json::array chunks;
      for (const ChunkKey& chunk : worker.chunks) {
        chunks.push_back({{"job", chunk.job}, {"chunk", chunk.chunk}, {"epoch", chunk.epoch}});
      }
      object["chunks"] = std::move(chunks);
    }
    list.push_back(std::move(object));
  }
  return JsonResponse(200, {{"workers", std::move(list)}});
}

}  // namespace longwave

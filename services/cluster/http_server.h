// The listener of the HTTP API: connections, limits on what a client may send and how slowly, and
// bodies that stream. What the answers are is the Api's.
//
// Thread safety: Start() and Stop() from one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/cluster/api.h"

namespace longwave {

class HttpServer {
 public:
  static constexpr int kThreads = 4;
  static constexpr int64_t kMostConnections = 1000;  // more are closed at once
  static constexpr int64_t kHeaderBytes = 16 << 10;
  static constexpr int kSeconds =
      30;  // for a request, for each block of a stream, between requests

  // "HOST:PORT"; port 0 picks one. Names what cannot be listened on.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& listen, Api& api,
                                                           ObjectStore& objects);
  virtual ~HttpServer() = default;
  virtual const std::string& url() const = 0;  // "http://127.0.0.1:8080"
  // No new connections; those there are end with their present request, or after `seconds`.
  virtual void Stop(int seconds) = 0;
};

}  // namespace longwave

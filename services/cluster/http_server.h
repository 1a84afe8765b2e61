// The listener of the HTTP API: connections, TLS, limits on what a client may send and how slowly,
// and bodies that stream. What the answers are is the Api's.
//
// Answers are made by threads of their own, so that a store that is slow keeps no socket waiting;
// those for which the object store is needed by others than those for which it is not.
//
// Thread safety: Start(), ReloadTls() and Stop() from one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/cluster/api.h"

namespace longwave {

struct HttpOptions {
  std::string listen;          // "HOST:PORT"; port 0 picks one
  int64_t connections = 1000;  // more are refused
  // For a request, for each block of a stream, between requests.
  double seconds = 30;
  std::string tls_cert, tls_key;  // PEM files; empty: no TLS
};

class HttpServer {
 public:
  static constexpr int kIoThreads = 2, kHandlerThreads = 16, kTransferThreads = 32;
  static constexpr int64_t kHeaderBytes = 16 << 10;
  static constexpr int64_t kMostStreams = 500;  // event streams at a time
  static constexpr int kKeepAliveSeconds = 10;  // between comments in a stream without events

  // Names what cannot be listened on, and certificates and keys that cannot be used.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpOptions& options, Api& api,
                                                           ObjectStore& objects);
  virtual ~HttpServer() = default;
  virtual const std::string& url() const = 0;  // "http://127.0.0.1:8080"
  // Takes up a certificate and key that have changed; it looks by itself every second that a
  // connection comes. Where they cannot be used those of before stay, and why is the answer.
  virtual absl::Status ReloadTls() = 0;
  // No new connections; those there are end with their present request, or after `seconds`.
  virtual void Stop(int seconds) = 0;
};

// Whether only this machine can connect to "HOST:PORT".
bool IsLoopback(const std::string& listen);

}  // namespace longwave

// A small HTTP listener for what a process says of itself: /metrics, /healthz and /readyz of a
// worker. GET and HEAD, no bodies, a few connections, each closed after its answer.
//
// Thread safety: Start() and the end from one thread; answers are made on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

class StatusListener {
 public:
  static constexpr int kMostConnections = 32;  // more are closed at once
  static constexpr int kSeconds = 5;           // for a request and its answer

  struct Answer {
    int status = 404;
    std::string content_type = "text/plain; charset=utf-8";
    std::string body;
  };
  using AnswerFn = std::function<Answer(absl::string_view path)>;

  // "HOST:PORT"; port 0 picks one. InvalidArgument names what cannot be listened on.
  static absl::StatusOr<std::unique_ptr<StatusListener>> Start(const std::string& listen,
                                                               AnswerFn answer);
  virtual ~StatusListener() = default;
  virtual const std::string& url() const = 0;  // "http://127.0.0.1:9100"
};

}  // namespace longwave

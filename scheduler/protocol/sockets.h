// The two ends of the wire between scheduler and workers, over ZeroMQ: a ROUTER that many workers
// reach, a DEALER in each worker. A peer is known by the name its DEALER chose.
//
// With a CurveKey both are encrypted, and only peers with the same key are heard.
//
// What is sent may be lost when a connection breaks: whoever needs an answer asks again.
//
// Thread safety: one thread owns a socket. Wake() is safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/protocol/messages.h"
#include "transport/waker.h"
#include "transport/zmq_context.h"

namespace longwave {

struct Received {
  std::string peer;  // the worker's name; empty at a DEALER
  absl::StatusOr<Message> message;
};

class MessageSocket {
 public:
  virtual ~MessageSocket() = default;
  // Until a message, a Wake() or the time is there.
  virtual void Wait(int64_t most_ms) = 0;
  // The next message, if one is there.
  virtual std::optional<Received> Receive() = 0;
  // False where the peer cannot be reached now; never waits.
  virtual bool Send(const std::string& peer, const Message& message) = 0;
  // With the port that was chosen where port 0 was asked for.
  virtual const std::string& endpoint() const = 0;
  virtual Waker& waker() = 0;
};

// InvalidArgument where the endpoint is none, Unavailable where it cannot be bound.
absl::StatusOr<std::unique_ptr<MessageSocket>> OpenRouter(const std::string& endpoint,
                                                          const CurveKey& key = {});
absl::StatusOr<std::unique_ptr<MessageSocket>> OpenDealer(const std::string& endpoint,
                                                          const std::string& name,
                                                          const CurveKey& key = {});

}  // namespace longwave

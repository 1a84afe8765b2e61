#include "scheduler/protocol/sockets.h"

#include <cerrno>
#include <chrono>
#include <memory>
#include <utility>
#include <zmq.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr int kHeartbeatMs = 2000, kDeadMs = 6000;
constexpr int kLingerMs = 1000;  // what was sent last still leaves when a process ends
constexpr int kQueued = 1000;    // messages of one peer

class ZmqSocket final : public MessageSocket {
 public:
  ZmqSocket(zmq::socket_type type, const std::string& name, const CurveKey& key)
      : router_(type == zmq::socket_type::router), socket_(*context_, type) {
    Secure(socket_, key, router_);
    socket_.set(zmq::sockopt::heartbeat_ivl, kHeartbeatMs);
    socket_.set(zmq::sockopt::heartbeat_timeout, kDeadMs);
    socket_.set(zmq::sockopt::heartbeat_ttl, kDeadMs);
    socket_.set(zmq::sockopt::maxmsgsize, kMaxMessageBytes);
    socket_.set(zmq::sockopt::linger, kLingerMs);
    socket_.set(zmq::sockopt::sndtimeo, 0);
    socket_.set(zmq::sockopt::sndhwm, kQueued);
    socket_.set(zmq::sockopt::rcvhwm, kQueued);
    if (router_) {
      socket_.set(zmq::sockopt::router_mandatory, 1);
      socket_.set(zmq::sockopt::router_handover, 1);
    } else {
      socket_.set(zmq::sockopt::routing_id, name);
      socket_.set(zmq::sockopt::immediate, 1);
      socket_.set(zmq::sockopt::reconnect_ivl, 100);
      socket_.set(zmq::sockopt::reconnect_ivl_max, 2000);
    }
  }

  void Open(const std::string& endpoint) {
    AllowIpv6(socket_, endpoint);
    if (router_) {
      socket_.bind(endpoint);
      endpoint_ = socket_.get(zmq::sockopt::last_endpoint);
    } else {
      socket_.connect(endpoint);
      endpoint_ = endpoint;
    }
  }

  void Wait(int64_t most_ms) override {
    zmq::pollitem_t items[] = {{socket_.handle(), 0, ZMQ_POLLIN, 0},
                               {nullptr, waker_.fd(), ZMQ_POLLIN, 0}};
    try {
      zmq::poll(items, 2, std::chrono::milliseconds(most_ms));
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
    waker_.Clear();
  }

  std::optional<Received> Receive() override {
    zmq::message_t peer, body;
    try {
      if (router_ && !socket_.recv(peer, zmq::recv_flags::dontwait)) return std::nullopt;
      if (!socket_.recv(body, zmq::recv_flags::dontwait)) return std::nullopt;
      Received received{peer.to_string(), Decode({body.data<char>(), body.size()})};
      if (body.more()) {
        received.message = absl::InvalidArgumentError("not a message: of several frames");
        while (body.more() && socket_.recv(body, zmq::recv_flags::dontwait)) {
        }
      }
      return received;
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
      return std::nullopt;
    }
  }

  bool Send(const std::string& peer, const Message& message) override {
    const std::string bytes = Encode(message);
    try {
      if (router_ &&
          !socket_.send(zmq::buffer(peer), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) {
        return false;
      }
      return socket_.send(zmq::buffer(bytes), zmq::send_flags::dontwait).has_value();
    } catch (const zmq::error_t& e) {
      if (e.num() != EHOSTUNREACH && e.num() != EINTR) throw;
      return false;
    }
  }

  const std::string& endpoint() const override { return endpoint_; }
  Waker& waker() override { return waker_; }

 private:
  bool router_;
  const std::shared_ptr<zmq::context_t> context_ = SharedZmqContext();
  zmq::socket_t socket_;
  std::string endpoint_;
  Waker waker_;
};

absl::StatusOr<std::unique_ptr<MessageSocket>> Open(zmq::socket_type type,
                                                    const std::string& endpoint,
                                                    const std::string& name, const CurveKey& key) {
  absl::Status good = CheckEndpoint(endpoint);
  if (!good.ok()) return good;
  try {
    auto socket = std::make_unique<ZmqSocket>(type, name, key);
    socket->Open(endpoint);
    return socket;
  } catch (const zmq::error_t& e) {
    const std::string message = absl::StrCat(endpoint, ": ", e.what());
    if (e.num() == EINVAL) return absl::InvalidArgumentError(message);
    return absl::UnavailableError(message);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MessageSocket>> OpenRouter(const std::string& endpoint,
                                                          const CurveKey& key) {
  return Open(zmq::socket_type::router, endpoint, "", key);
}

absl::StatusOr<std::unique_ptr<MessageSocket>> OpenDealer(const std::string& endpoint,
                                                          const std::string& name,
                                                          const CurveKey& key) {
  return Open(zmq::socket_type::dealer, endpoint, name, key);
}

}  // namespace longwave

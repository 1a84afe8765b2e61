#include "worker/links/exchange.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <optional>
#include <random>
#include <utility>
#include <vector>
#include <zmq.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "worker/links/link_messages.h"

namespace longwave {
namespace {

constexpr int kHeartbeatMs = 2000, kDeadMs = 6000;
constexpr int64_t kAskMs = 500;
constexpr int64_t kRetryMs = 2;      // a socket had no room
constexpr int64_t kConnectMs = 100;  // it had no connection: a new one ends the wait sooner
constexpr int64_t kIdleMs = 60000;   // a connection that no stream uses is closed
constexpr size_t kMostPublished = 4096;
int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Release(void*, void* bytes) { delete static_cast<StateBytes*>(bytes); }

// The tensor's own memory, held until it is sent.
zmq::message_t MessageOf(const StateBytes& bytes) {
  return zmq::message_t(const_cast<char*>(bytes->data()), bytes->size(), Release,
                        new StateBytes(bytes));
}

absl::Status SocketError(const std::string& endpoint, const zmq::error_t& error) {
  const std::string message = absl::StrCat(endpoint, ": ", error.what());
  return error.num() == EINVAL ? absl::InvalidArgumentError(message)
                               : absl::UnavailableError(message);
}

}  // namespace

// The thread's sockets.
class Exchange::Sockets {
  struct Link {
    Link() = default;
    explicit Link(zmq::socket_t&& opened)
        : socket(std::move(opened)), fd(socket.get(zmq::sockopt::fd)) {}
    zmq::socket_t socket;
    int fd = -1;
    bool used = true;  // since its events were asked for
    int64_t used_ms = 0;
  };

 public:
  explicit Sockets(const CurveKey& key)
      : key_(key),
        name_(absl::StrCat("link-", absl::Hex(std::random_device()(), absl::kZeroPad8),
                           absl::Hex(std::random_device()(), absl::kZeroPad8))) {}

  absl::Status Listen(const std::string& endpoint) {
    try {
      router_ = Link(zmq::socket_t(*context_, zmq::socket_type::router));
      zmq::socket_t& socket = router_.socket;
      SetUp(socket);
      Secure(socket, key_, true);
      socket.set(zmq::sockopt::router_mandatory, 1);
      socket.set(zmq::sockopt::router_handover, 1);
      socket.bind(endpoint);
      endpoint_ = socket.get(zmq::sockopt::last_endpoint);
    } catch (const zmq::error_t& e) {
      return SocketError(endpoint, e);
    }
    return absl::OkStatus();
  }

  // Until `waker`, a message, or the time is there. Not zmq::poll(), which costs several system
  // calls for each socket, and there is one for each other worker. A socket's descriptor tells of
  // what came since its events were last asked for; after a call on the socket they are to be asked
  // for again.
  void Wait(Waker& waker, int64_t most_ms) {
    readable_.clear();
    polled_.assign(1, {waker.fd(), POLLIN, 0});
    const auto look = [&](Link& link, bool again) {
      if (again && (link.socket.get(zmq::sockopt::events) & ZMQ_POLLIN) != 0) {
        readable_.push_back(&link.socket);
        return true;
      }
      return false;
    };
    const auto each = [&](const std::function<void(Link&)>& visit) {
      visit(router_);
      for (auto& [endpoint, peer] : peers_) visit(peer);
    };
    each([&](Link& link) {
      link.used = look(link, link.used);
      polled_.push_back({link.fd, POLLIN, 0});
    });
    const bool now = !readable_.empty();
    if (poll(polled_.data(), polled_.size(), now ? 0 : static_cast<int>(most_ms)) <= 0) return;
    if (polled_[0].revents != 0) waker.Clear();
    size_t i = 1;
    each([&](Link& link) {
      const bool came = polled_[i++].revents != 0;
      link.used = look(link, came && !link.used) || link.used;
    });
  }

  struct Frames {
    std::string peer;  // routing id; empty at a DEALER
    LinkMessage message;
    std::string tensor;
  };
  // Next of all sockets that had something when Wait() ended. What is no message is passed over.
  std::optional<Frames> Receive() {
    while (!readable_.empty()) {
      zmq::socket_t& socket = *readable_.back();
      while (std::optional<Frames> frames = From(socket, &socket == &router_.socket)) {
        if (Good(*frames)) return frames;
      }
      readable_.pop_back();
    }
    return std::nullopt;
  }

  enum class Sent { kYes, kFull, kGone };
  Sent SendTensor(const std::string& subscriber, const LinkMessage& header,
                  const StateBytes& tensor) {
    const std::string head = EncodeLink(header);
    router_.used = true;
    zmq::socket_t& router = router_.socket;
    try {
      const auto more = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
      if (!router.send(zmq::buffer(subscriber), more)) return Sent::kFull;
      router.send(zmq::buffer(head), more);
      router.send(MessageOf(tensor), zmq::send_flags::dontwait);
      return Sent::kYes;
    } catch (const zmq::error_t& e) {
      if (e.num() == EAGAIN || e.num() == EINTR) return Sent::kFull;
      if (e.num() != EHOSTUNREACH) throw;
      return Sent::kGone;
    }
  }

  // False: not connected yet. An address that is none never is: then the subscriber waits for the
  // object store.
  bool Ask(const std::string& endpoint, const LinkMessage& message) {
    try {
      auto found = peers_.find(endpoint);
      if (found == peers_.end()) {
        Link peer(zmq::socket_t(*context_, zmq::socket_type::dealer));
        SetUp(peer.socket);
        Secure(peer.socket, key_, false);
        peer.socket.set(zmq::sockopt::routing_id, name_);
        peer.socket.set(zmq::sockopt::immediate, 1);
        peer.socket.set(zmq::sockopt::reconnect_ivl, 100);
        peer.socket.set(zmq::sockopt::reconnect_ivl_max, 1000);
        peer.socket.connect(endpoint);
        found = peers_.emplace(endpoint, std::move(peer)).first;
      }
      found->second.used = true;
      found->second.used_ms = NowMs();
      const std::string bytes = EncodeLink(message);
      return found->second.socket.send(zmq::buffer(bytes), zmq::send_flags::dontwait).has_value();
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR && e.num() != EINVAL && e.num() != EHOSTUNREACH) throw;
      return e.num() == EINVAL;  // no use to ask again at once
    }
  }

  void CloseIdle() {
    std::erase_if(peers_, [](const auto& peer) { return NowMs() > peer.second.used_ms + kIdleMs; });
  }

  std::string endpoint_;

 private:
  static void SetUp(zmq::socket_t& socket) {
    socket.set(zmq::sockopt::heartbeat_ivl, kHeartbeatMs);
    socket.set(zmq::sockopt::heartbeat_timeout, kDeadMs);
    socket.set(zmq::sockopt::heartbeat_ttl, kDeadMs);
    socket.set(zmq::sockopt::maxmsgsize, kMostTensorBytes);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::sndtimeo, 0);
  }

  static bool Good(const Frames& frames) { return !frames.message.stream.empty(); }

  // A message of one frame from a subscriber, of two from a publisher; what it is not has no
  // stream.
  static std::optional<Frames> From(zmq::socket_t& socket, bool router) {
    zmq::message_t frame;
    Frames frames;
    try {
      if (router) {
        if (!socket.recv(frame, zmq::recv_flags::dontwait)) return std::nullopt;
        frames.peer = frame.to_string();
      }
      if (!socket.recv(frame, zmq::recv_flags::dontwait)) return std::nullopt;
      absl::StatusOr<LinkMessage> message = DecodeLink({frame.data<char>(), frame.size()});
      const bool tensor = frame.more();
      if (tensor && socket.recv(frame, zmq::recv_flags::dontwait)) {
        frames.tensor.assign(frame.data<char>(), frame.size());
      }
      const bool too_many = frame.more() && tensor;
      while (frame.more() && socket.recv(frame, zmq::recv_flags::dontwait)) {
      }
      const bool wants_tensor = message.ok() && message->type == LinkMessage::Type::kTensor;
      if (message.ok() && !too_many && tensor == wants_tensor && router == !wants_tensor) {
        frames.message = *std::move(message);
      }
      return frames;
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
      return std::nullopt;
    }
  }

  const CurveKey key_;
  const std::string name_;
  const std::shared_ptr<zmq::context_t> context_ = SharedZmqContext();
  Link router_;
  std::map<std::string, Link> peers_;  // by endpoint
  std::vector<zmq::socket_t*> readable_;
  std::vector<pollfd> polled_;
};

Exchange::Exchange(const ExchangeOptions& options)
    : options_(options), sockets_(std::make_unique<Sockets>(options.key)) {}

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::Open(const ExchangeOptions& options) {
  for (const std::string& endpoint : {options.listen, options.advertise}) {
    if (!endpoint.empty() && !absl::StartsWith(endpoint, "tcp://")) {
      return absl::InvalidArgumentError(absl::StrCat(endpoint, ": must be tcp://HOST:PORT"));
    }
  }
  std::unique_ptr<Exchange> exchange(new Exchange(options));
  absl::Status listening = exchange->sockets_->Listen(options.listen);
  if (!listening.ok()) return listening;
  exchange->thread_ = std::thread([exchange = exchange.get()] { exchange->Run(); });
  return exchange;
}

Exchange::~Exchange() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  waker_.Wake();
  if (thread_.joinable()) thread_.join();
}

const std::string& Exchange::endpoint() const {
  return options_.advertise.empty() ? sockets_->endpoint_ : options_.advertise;
}

std::shared_ptr<StateStream> Exchange::Publish(const std::string& name, int64_t tensors) {
  auto stream = std::make_shared<StateStream>(tensors, [this] { waker_.Wake(); });
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    published_[name].stream = stream;
  }
  return stream;
}

void Exchange::Forget(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  published_.erase(name);
}

std::shared_ptr<StateStream> Exchange::Subscribe(const std::string& name,
                                                 const std::string& endpoint, int64_t tensors) {
  std::shared_ptr<StateStream> stream;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto own = published_.find(name);
    if (own != published_.end() && own->second.stream != nullptr && endpoint == this->endpoint() &&
        !options_.always_sockets) {
      return own->second.stream;
    }
    stream = std::make_shared<StateStream>(tensors);
    subscribed_[name] = {endpoint, stream, 0};
  }
  waker_.Wake();
  return stream;
}

void Exchange::Unsubscribe(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  subscribed_.erase(name);
}

LinkCounts Exchange::counts() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return counts_;
}

void Exchange::Run() {
  int64_t wait_ms = kAskMs / 2;
  while (true) {
    sockets_->Wait(waker_, wait_ms);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) return;
    Receive();
    const bool pushed = Push(), asked = Ask();
    wait_ms = !pushed ? kRetryMs : !asked ? kConnectMs : kAskMs / 2;
    sockets_->CloseIdle();
    const int64_t now = NowMs();
    std::erase_if(published_, [&](const auto& entry) {
      return entry.second.stream == nullptr && now > entry.second.asked_ms + kIdleMs;
    });
  }
}

void Exchange::Receive() {
  while (std::optional<Sockets::Frames> frames = sockets_->Receive()) {
    const LinkMessage& message = frames->message;
    if (message.type == LinkMessage::Type::kSubscribe) {
      // One that is not published yet may soon be.
      if (published_.size() >= kMostPublished && published_.count(message.stream) == 0) continue;
      Publication& publication = published_[message.stream];
      publication.subscribers[frames->peer] = message.index;
      publication.asked_ms = NowMs();
      continue;
    }
    const auto found = subscribed_.find(message.stream);
    if (found == subscribed_.end()) continue;
    const auto bytes = static_cast<int64_t>(frames->tensor.size());
    if (found->second.stream->Put(message.index,
                                  std::make_shared<const std::string>(std::move(frames->tensor)))) {
      ++counts_.received_tensors;
      counts_.received_bytes += bytes;
      found->second.asked_ms = NowMs();
    }
  }
}

bool Exchange::Push() {
  bool all_sent = true;
  for (auto& [name, publication] : published_) {
    if (publication.stream == nullptr) continue;
    for (auto it = publication.subscribers.begin(); it != publication.subscribers.end();) {
      int64_t& next = it->second;
      Sockets::Sent sent = Sockets::Sent::kYes;
      while (sent == Sockets::Sent::kYes && next < publication.stream->size()) {
        const StateBytes tensor = publication.stream->Get(next);
        if (tensor == nullptr) break;
        sent = sockets_->SendTensor(it->first, {LinkMessage::Type::kTensor, name, next}, tensor);
        if (sent == Sockets::Sent::kYes) {
          ++next;
          ++counts_.sent_tensors;
          counts_.sent_bytes += static_cast<int64_t>(tensor->size());
        }
      }
      all_sent = all_sent && sent != Sockets::Sent::kFull;
      it = sent == Sockets::Sent::kGone ? publication.subscribers.erase(it) : std::next(it);
    }
  }
  return all_sent;
}

bool Exchange::Ask() {
  const int64_t now = NowMs();
  bool all_asked = true;
  for (auto& [name, subscription] : subscribed_) {
    const int64_t first = subscription.stream->first_missing();
    if (first == subscription.stream->size()) continue;
    if (subscription.asked_ms != 0 && now < subscription.asked_ms + kAskMs) continue;
    const bool asked =
        sockets_->Ask(subscription.endpoint, {LinkMessage::Type::kSubscribe, name, first});
    all_asked = all_asked && asked;
    subscription.asked_ms = asked ? now : 0;
  }
  return all_asked;
}

}  // namespace longwave

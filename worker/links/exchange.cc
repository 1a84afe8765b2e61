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

void ReleaseTensor(void*, void* bytes) { delete static_cast<StateBytes*>(bytes); }

// The tensor's own memory, held until it is sent.
zmq::message_t MessageOf(const StateBytes& bytes) {
  return zmq::message_t(const_cast<char*>(bytes->data()), bytes->size(), ReleaseTensor,
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
  struct Polled {
    Polled() = default;
    explicit Polled(zmq::socket_t&& opened, std::string to = "")
        : socket(std::move(opened)), endpoint(std::move(to)), fd(socket.get(zmq::sockopt::fd)) {}
    zmq::socket_t socket;
    std::string endpoint;  // of the peer; empty: the ROUTER
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
      router_ = Polled(zmq::socket_t(*context_, zmq::socket_type::router));
      zmq::socket_t& socket = router_.socket;
      SetUp(socket);
      Secure(socket, key_, true);
      socket.set(zmq::sockopt::router_mandatory, 1);
      socket.set(zmq::sockopt::router_handover, 1);
      AllowIpv6(socket, endpoint);
      socket.bind(endpoint);
      endpoint_ = socket.get(zmq::sockopt::last_endpoint);
    } catch (const zmq::error_t& e) {
      return SocketError(endpoint, e);
    }
    return absl::OkStatus();
  }

  // Until `waker`, a message, or the time is there; `lock` is released meanwhile. Not zmq::poll(),
  // which costs several system calls for each socket, and there is one for each other worker. A
  // socket's descriptor tells of what came since its events were last asked for; after a call on
  // the socket they are to be asked for again.
  void Wait(Waker& waker, int64_t most_ms, std::unique_lock<std::mutex>& lock) {
    readable_.clear();
    polled_.assign(1, {waker.fd(), POLLIN, 0});
    const auto look = [&](Polled& polled, bool again) {
      const bool readable = again && Readable(polled);
      if (readable) readable_.push_back(&polled);
      return readable;
    };
    const auto each = [&](const std::function<void(Polled&)>& visit) {
      visit(router_);
      for (auto& [endpoint, peer] : peers_) visit(peer);
    };
    each([&](Polled& polled) {
      polled.used = look(polled, polled.used);
      polled_.push_back({polled.fd, POLLIN, 0});
    });
    const int wait_ms = readable_.empty() ? static_cast<int>(most_ms) : 0;
    lock.unlock();
    const int came = poll(polled_.data(), polled_.size(), wait_ms);
    lock.lock();
    if (came <= 0) return;
    if (polled_[0].revents != 0) waker.Clear();
    size_t i = 1;
    each([&](Polled& polled) {
      const bool told = polled_[i++].revents != 0;
      polled.used = look(polled, told && !polled.used) || polled.used;
    });
  }
  // Whether there is something to receive that Wait() on another thread would not be told of: for
  // who has sent meanwhile.
  bool Asked() {
    router_.used = Readable(router_);
    return router_.used;
  }

  struct Frames {
    bool asked = false;  // of the ROUTER
    std::string peer;    // there the routing id, at a DEALER the endpoint
    LinkMessage message;
    std::string tensor;
  };
  // Next of all sockets that had something when Wait() ended. What is no message is passed over.
  std::optional<Frames> Receive() {
    while (!readable_.empty()) {
      while (std::optional<Frames> frames = From(*readable_.back())) {
        if (Good(*frames)) return frames;
      }
      readable_.pop_back();
    }
    return std::nullopt;
  }

  enum class Sent { kYes, kFull, kGone };
  // `tensor`: null where there is no second frame.
  Sent Send(const std::string& subscriber, const LinkMessage& header, const StateBytes& tensor) {
    const std::string head = EncodeLink(header);
    router_.used = true;
    zmq::socket_t& router = router_.socket;
    try {
      const auto last = zmq::send_flags::dontwait, more = zmq::send_flags::sndmore | last;
      if (!router.send(zmq::buffer(subscriber), more)) return Sent::kFull;
      router.send(zmq::buffer(head), tensor != nullptr ? more : last);
      if (tensor != nullptr) router.send(MessageOf(tensor), last);
      return Sent::kYes;
    } catch (const zmq::error_t& e) {
      if (e.num() == EAGAIN || e.num() == EINTR) return Sent::kFull;
      if (e.num() != EHOSTUNREACH) throw;
      return Sent::kGone;
    }
  }

  // False: not connected yet. An address that is none never is: then the subscriber waits for the
  // object store. For the thread that receives alone, which needs no mutex here: a name may have to
  // be asked for, which takes its time.
  bool Ask(const std::string& endpoint, const LinkMessage& message) {
    try {
      auto found = peers_.find(endpoint);
      if (found == peers_.end()) {
        Polled peer(zmq::socket_t(*context_, zmq::socket_type::dealer), endpoint);
        SetUp(peer.socket);
        Secure(peer.socket, key_, false);
        peer.socket.set(zmq::sockopt::routing_id, name_);
        peer.socket.set(zmq::sockopt::immediate, 1);
        peer.socket.set(zmq::sockopt::reconnect_ivl, 100);
        peer.socket.set(zmq::sockopt::reconnect_ivl_max, 1000);
        AllowIpv6(peer.socket, endpoint);
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

  static bool Readable(Polled& polled) {
    return (polled.socket.get(zmq::sockopt::events) & ZMQ_POLLIN) != 0;
  }

  static bool Good(const Frames& frames) {
    return !frames.message.stream.empty() || frames.message.link != 0;
  }

  // One message; what is none has neither stream nor link.
  static std::optional<Frames> From(Polled& polled) {
    zmq::socket_t& socket = polled.socket;
    zmq::message_t frame;
    Frames frames;
    frames.asked = polled.endpoint.empty();
    frames.peer = polled.endpoint;
    try {
      if (frames.asked) {
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
      if (!message.ok() || too_many) return frames;
      if (tensor != (message->type == LinkMessage::Type::kTensor)) return frames;
      if (frames.asked != (message->type == LinkMessage::Type::kSubscribe)) return frames;
      frames.message = *std::move(message);
      return frames;
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
      return std::nullopt;
    }
  }

  const CurveKey key_;
  const std::string name_;
  const std::shared_ptr<zmq::context_t> context_ = SharedZmqContext();
  Polled router_;
  std::map<std::string, Polled> peers_;  // by endpoint
  std::vector<Polled*> readable_;
  std::vector<pollfd> polled_;
};

Exchange::Exchange(const ExchangeOptions& options)
    : options_(options), sockets_(std::make_unique<Sockets>(options.key)) {}

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::Open(const ExchangeOptions& options) {
  for (const std::string& endpoint : {options.listen, options.advertise}) {
    absl::Status good = endpoint.empty() ? absl::OkStatus() : CheckEndpoint(endpoint);
    if (!good.ok()) return good;
  }
  std::unique_ptr<Exchange> exchange(new Exchange(options));
  absl::Status listening = exchange->sockets_->Listen(options.listen);
  if (!listening.ok()) return listening;
  if (options.nccl.api != nullptr) {
    NcclLinkOptions nccl = options.nccl;
    if (nccl.pool == nullptr) nccl.pool = DevicePool::Create(nccl.device);
    exchange->nccl_ =
        std::make_unique<NcclPeers>(nccl, [exchange = exchange.get()] { exchange->waker_.Wake(); });
  }
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
  nccl_.reset();  // its threads use all the rest
}

const std::string& Exchange::endpoint() const {
  return options_.advertise.empty() ? sockets_->endpoint_ : options_.advertise;
}

std::shared_ptr<StateStream> Exchange::Publish(const std::string& name, int64_t tensors) {
  auto stream = std::make_shared<StateStream>(tensors, [this, name] { PushNew(name); });
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
      own->second.next_here = std::max<int64_t>(own->second.next_here, 0);
      CountHere(own->second);
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

void Exchange::CountSent(Link link, int64_t bytes) {
  LinkCount& count = link == Link::kZmq    ? counts_.zmq
                     : link == Link::kNccl ? counts_.nccl
                                           : counts_.process;
  ++count.sent_tensors;
  count.sent_bytes += bytes;
  if (options_.probe != nullptr) options_.probe->StateSent(link, bytes);
}

void Exchange::CountReceived(Link link, int64_t bytes) {
  LinkCount& count = link == Link::kZmq    ? counts_.zmq
                     : link == Link::kNccl ? counts_.nccl
                                           : counts_.process;
  ++count.received_tensors;
  count.received_bytes += bytes;
  if (options_.probe != nullptr) options_.probe->StateReceived(link, bytes);
}

void Exchange::CountHere(Publication& publication) {
  int64_t& next = publication.next_here;
  while (next >= 0 && next < publication.stream->size()) {
    const StateTensor tensor = publication.stream->GetTensor(next);
    if (!tensor.known()) return;
    CountSent(Link::kProcess, tensor.size());
    CountReceived(Link::kProcess, tensor.size());
    ++next;
  }
}

void Exchange::Run() {
  int64_t wait_ms = kAskMs / 2;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    sockets_->Wait(waker_, wait_ms, lock);
    if (stop_) return;
    Receive();
    if (nccl_ != nullptr) TellBroken();
    const bool pushed = Push(), asked = Ask(lock);
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
    switch (message.type) {
      case LinkMessage::Type::kSubscribe:
        Subscribed(frames->peer, message);
        break;
      case LinkMessage::Type::kTensor: {
        StateTensor tensor(std::make_shared<const std::string>(std::move(frames->tensor)));
        tensor.link = Link::kZmq;
        Received(message.stream, message.index, std::move(tensor));
        break;
      }
      case LinkMessage::Type::kCommunicator:
        if (nccl_ != nullptr) nccl_->Offered(frames->peer, message);
        break;
      case LinkMessage::Type::kByNccl:
        if (nccl_ == nullptr) break;
        nccl_->Receive(frames->peer, message,
                       [this, stream = message.stream,
                        index = message.index](std::shared_ptr<const DeviceTensor> on_device) {
                         StateTensor tensor(nullptr, std::move(on_device));
                         tensor.link = Link::kNccl;
                         const std::lock_guard<std::mutex> lock(mutex_);
                         Received(stream, index, std::move(tensor));
                       });
        break;
    }
  }
}

void Exchange::Subscribed(const std::string& peer, const LinkMessage& message) {
  // One that is not published yet may soon be.
  if (published_.size() >= kMostPublished && published_.count(message.stream) == 0) return;
  Publication& publication = published_[message.stream];
  publication.subscribers[peer] = message.index;
  publication.asked_ms = NowMs();
  if (nccl_ == nullptr) return;
  const std::optional<LinkMessage> offer = nccl_->Subscribed(peer, message.link);
  if (offer.has_value()) sockets_->Send(peer, *offer, nullptr);
}

void Exchange::Received(const std::string& stream, int64_t index, StateTensor tensor) {
  const auto found = subscribed_.find(stream);
  if (found == subscribed_.end()) return;
  const Link link = tensor.link;
  const int64_t bytes = tensor.size();
  if (!found->second.stream->Put(index, std::move(tensor))) return;
  found->second.asked_ms = NowMs();
  CountReceived(link, bytes);
}

void Exchange::TellBroken() {
  const NcclPeers::Broken broken = nccl_->TakeBroken();
  for (const auto& [peer, message] : broken.subscribers) sockets_->Send(peer, message, nullptr);
  for (const std::string& endpoint : broken.publishers) {
    for (auto& [name, subscription] : subscribed_) {
      if (subscription.endpoint == endpoint) subscription.asked_ms = 0;
    }
    if (options_.probe != nullptr) options_.probe->LinkFailed(Link::kNccl);
  }
}

bool Exchange::Push() {
  bool all_sent = true;
  for (auto& [name, publication] : published_) {
    all_sent = PushOf(name, publication) && all_sent;
  }
  return all_sent;
}

void Exchange::PushNew(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = published_.find(name);
  if (found == published_.end()) return;
  const bool all_sent = PushOf(name, found->second);
  if (sockets_->Asked() || !all_sent) waker_.Wake();
}

bool Exchange::PushOf(const std::string& name, Publication& publication) {
  if (publication.stream == nullptr) return true;
  CountHere(publication);
  bool all_sent = true;
  for (auto it = publication.subscribers.begin(); it != publication.subscribers.end();) {
    const std::string& peer = it->first;
    int64_t& next = it->second;
    Sockets::Sent sent = Sockets::Sent::kYes;
    while (sent == Sockets::Sent::kYes && next < publication.stream->size()) {
      const StateTensor tensor = publication.stream->GetTensor(next);
      if (!tensor.known()) break;
      LinkMessage message{LinkMessage::Type::kTensor, name, next};
      const bool by_nccl = nccl_ != nullptr && tensor.on_device != nullptr &&
                           nccl_->Route(peer, tensor.size(), message);
      sent = sockets_->Send(peer, message, by_nccl ? nullptr : tensor.bytes);
      if (sent != Sockets::Sent::kYes) break;
      ++next;
      CountSent(by_nccl ? Link::kNccl : Link::kZmq, tensor.size());
      if (by_nccl) nccl_->Send(peer, tensor.on_device);
    }
    all_sent = all_sent && sent != Sockets::Sent::kFull;
    if (sent == Sockets::Sent::kGone) {
      if (nccl_ != nullptr) nccl_->Gone(peer);
      it = publication.subscribers.erase(it);
    } else {
      ++it;
    }
  }
  return all_sent;
}

bool Exchange::Ask(std::unique_lock<std::mutex>& lock) {
  struct Question {
    std::string name, endpoint;
    std::shared_ptr<StateStream> stream;
    LinkMessage message;
    bool asked = false;
  };
  const int64_t now = NowMs();
  std::vector<Question> questions;
  for (const auto& [name, subscription] : subscribed_) {
    const int64_t first = subscription.stream->first_missing();
    if (first == subscription.stream->size()) continue;
    if (subscription.asked_ms != 0 && now < subscription.asked_ms + kAskMs) continue;
    LinkMessage message{LinkMessage::Type::kSubscribe, name, first};
    message.link = nccl_ != nullptr ? nccl_->Wish(subscription.endpoint) : LinkMessage::kNoNccl;
    questions.push_back({name, subscription.endpoint, subscription.stream, std::move(message)});
  }
  if (questions.empty()) return true;
  lock.unlock();
  bool all_asked = true;
  for (Question& question : questions) {
    question.asked = sockets_->Ask(question.endpoint, question.message);
    all_asked = all_asked && question.asked;
  }
  lock.lock();
  for (const Question& question : questions) {
    const auto found = subscribed_.find(question.name);
    if (found == subscribed_.end() || found->second.stream != question.stream) continue;
    found->second.asked_ms = question.asked ? now : 0;
  }
  return all_asked;
}

}  // namespace longwave

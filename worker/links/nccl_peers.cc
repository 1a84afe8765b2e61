#include "worker/links/nccl_peers.h"

#include <algorithm>

#include "observability/log.h"

namespace longwave {
namespace {

// A subscriber that goes on wanting a communicator so long after it was offered one has lost it.
constexpr std::chrono::seconds kOfferTime{2};
// A pair whose link broke does without one for so long.
constexpr std::chrono::minutes kBrokenTime{10};

}  // namespace

void NcclPeers::Make(End& end, NcclLink::Role role, int64_t number, const NcclId& id) {
  if (end.link != nullptr) {
    end.link->Stop();
    ending_.push_back(std::move(end.link));
  }
  end = {};
  end.number = number;
  end.made = Clock::now();
  end.link = std::make_shared<NcclLink>(options_, role, id, changed_);
}

void NcclPeers::Stop(End& end) {
  if (end.link == nullptr) return;
  end.stopped = true;
  end.link->Stop();
}

int64_t NcclPeers::Wish(const std::string& endpoint) const {
  const auto found = publishers_.find(endpoint);
  if (found == publishers_.end()) return LinkMessage::kWantsNccl;
  const End& end = found->second;
  if (end.link == nullptr) {
    return Clock::now() < end.made + kBrokenTime ? LinkMessage::kNoNccl : LinkMessage::kWantsNccl;
  }
  switch (end.link->state()) {
    case NcclLink::State::kConnecting:
      return LinkMessage::kAwaitsNccl;
    case NcclLink::State::kUp:
      return end.number;
    case NcclLink::State::kBroken:
      break;
  }
  return LinkMessage::kNoNccl;
}

void NcclPeers::Offered(const std::string& endpoint, const LinkMessage& communicator) {
  const auto found = publishers_.find(endpoint);
  if (communicator.id.empty()) {
    if (found != publishers_.end() && found->second.number == communicator.link) {
      Stop(found->second);
    }
    return;
  }
  if (found != publishers_.end() && found->second.number == communicator.link) return;
  if (Wish(endpoint) == LinkMessage::kNoNccl) return;
  NcclId id;
  std::copy(communicator.id.begin(), communicator.id.end(), id.begin());
  Make(publishers_[endpoint], NcclLink::Role::kReceiver, communicator.link, id);
}

void NcclPeers::Receive(const std::string& endpoint, const LinkMessage& by_nccl,
                        NcclLink::ReceivedFn received) {
  const auto found = publishers_.find(endpoint);
  if (found == publishers_.end() || found->second.number != by_nccl.link) return;
  End& end = found->second;
  if (end.link == nullptr) return;
  if (end.sequence++ != by_nccl.sequence) {  // a message was lost: the order is gone
    Stop(end);
    return;
  }
  end.link->Receive(by_nccl.bytes, std::move(received));
}

std::optional<LinkMessage> NcclPeers::Subscribed(const std::string& peer, int64_t wish) {
  const auto found = subscribers_.find(peer);
  if (wish != LinkMessage::kWantsNccl) {
    if (found == subscribers_.end()) return std::nullopt;
    if (wish == LinkMessage::kNoNccl) Stop(found->second);
    if (wish == found->second.number) found->second.other_up = true;
    return std::nullopt;
  }
  if (found != subscribers_.end()) {
    const End& end = found->second;
    const auto wait = end.link == nullptr ? Clock::duration(kBrokenTime) : kOfferTime;
    if (Clock::now() < end.made + wait) return std::nullopt;
  }
  const absl::StatusOr<NcclId> id = options_.api->NewId();
  if (!id.ok()) {
    log::Warning("no NCCL link: states pass over ZeroMQ", {{"error", id.status().message()}});
    subscribers_[peer].made = Clock::now();
    return std::nullopt;
  }
  Make(subscribers_[peer], NcclLink::Role::kSender, ++last_number_, *id);
  LinkMessage offer;
  offer.type = LinkMessage::Type::kCommunicator;
  offer.link = last_number_;
  offer.id.assign(id->begin(), id->end());
  return offer;
}

bool NcclPeers::Route(const std::string& peer, int64_t bytes, LinkMessage& tensor) {
  const auto found = subscribers_.find(peer);
  if (found == subscribers_.end()) return false;
  const End& end = found->second;
  if (!end.other_up || end.stopped || !IsUp(end)) return false;
  tensor.type = LinkMessage::Type::kByNccl;
  tensor.link = end.number;
  tensor.sequence = end.sequence;
  tensor.bytes = bytes;
  return true;
}

void NcclPeers::Send(const std::string& peer, std::shared_ptr<const DeviceTensor> tensor) {
  End& end = subscribers_.at(peer);
  ++end.sequence;
  end.link->Send(std::move(tensor));
}

void NcclPeers::Gone(const std::string& peer) {
  const auto found = subscribers_.find(peer);
  if (found == subscribers_.end()) return;
  Stop(found->second);
  if (found->second.link != nullptr) ending_.push_back(std::move(found->second.link));
  subscribers_.erase(found);
}

std::vector<std::pair<std::string, int64_t>> NcclPeers::Sweep(Ends& ends, const char* what) {
  std::vector<std::pair<std::string, int64_t>> broken;
  for (auto& [name, end] : ends) {
    if (end.link == nullptr || end.link->state() != NcclLink::State::kBroken) continue;
    broken.emplace_back(name, end.number);
    if (!end.stopped) {
      log::Warning("an NCCL link failed: these states pass over ZeroMQ",
                   {{what, name}, {"error", end.link->error().message()}});
    }
    ending_.push_back(std::move(end.link));
  }
  return broken;
}

NcclPeers::Broken NcclPeers::TakeBroken() {
  Broken broken;
  for (auto& [endpoint, number] : Sweep(publishers_, "publisher")) {
    broken.publishers.push_back(std::move(endpoint));
  }
  for (auto& [peer, number] : Sweep(subscribers_, "subscriber")) {
    LinkMessage gone;
    gone.type = LinkMessage::Type::kCommunicator;
    gone.link = number;
    broken.subscribers.emplace_back(std::move(peer), std::move(gone));
  }
  std::erase_if(ending_, [](const auto& link) { return link->ended(); });
  return broken;
}

}  // namespace longwave

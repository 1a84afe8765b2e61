// The communicators between this process and those it exchanges states with: one for each direction
// and peer, made when the peer first subscribes, kept for all later streams, and given up for good
// when anything goes wrong with it; then that peer's tensors go by ZeroMQ.
//
//   subscriber                           publisher
//   Subscribe, link kWantsNccl      ->   makes an id, begins its end
//   begins its end                  <-   Communicator #g, id
//   Subscribe, link kAwaitsNccl     ->   tensors by ZeroMQ, until both ends are up
//   Subscribe, link #g              ->
//   receives the n-th tensor        <-   ByNccl #g, n; sends it
//
// Thread safety: one caller at a time. The functions that it is given are called on the links'
// threads, which the destructor waits for.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "worker/links/link_messages.h"
#include "worker/links/nccl_link.h"

namespace longwave {

class NcclPeers {
 public:
  // `changed`: TakeBroken() may have something, or a link is up.
  NcclPeers(const NcclLinkOptions& options, std::function<void()> changed)
      : options_(options), changed_(std::move(changed)) {}

  // ---- Of a subscriber; publishers by their endpoint.
  // LinkMessage::link of a subscription.
  int64_t Wish(const std::string& endpoint) const;
  void Offered(const std::string& endpoint, const LinkMessage& communicator);
  // `received` is called if the tensor comes.
  void Receive(const std::string& endpoint, const LinkMessage& by_nccl,
               NcclLink::ReceivedFn received);

  // ---- Of a publisher; subscribers by their routing id.
  // What a subscription with that wish is answered with, if anything.
  std::optional<LinkMessage> Subscribed(const std::string& peer, int64_t wish);
  // Both ends are up: `tensor` becomes a kByNccl, to be sent before Send().
  bool Route(const std::string& peer, int64_t bytes, LinkMessage& tensor);
  void Send(const std::string& peer, std::shared_ptr<const DeviceTensor> tensor);
  void Gone(const std::string& peer);

  // Links that broke since the last call.
  struct Broken {
    std::vector<std::string> publishers;  // what they have not sent must be asked for again
    std::vector<std::pair<std::string, LinkMessage>> subscribers;  // and what to tell them
  };
  Broken TakeBroken();

 private:
  using Clock = std::chrono::steady_clock;
  struct End {
    std::shared_ptr<NcclLink> link;  // null: broken, known to be
    int64_t number = 0;
    int64_t sequence = 0;   // of the next tensor
    bool other_up = false;  // a publisher's: the subscriber said so
    bool stopped = false;   // by this side's will: no failure
    Clock::time_point made;
  };
  using Ends = std::map<std::string, End>;

  static bool IsUp(const End& end) {
    return end.link != nullptr && end.link->state() == NcclLink::State::kUp;
  }
  static void Stop(End& end);
  void Make(End& end, NcclLink::Role role, int64_t number, const NcclId& id);
  // Of those that have broken, the names and numbers.
  std::vector<std::pair<std::string, int64_t>> Sweep(Ends& ends, const char* what);

  const NcclLinkOptions options_;
  const std::function<void()> changed_;
  int64_t last_number_ = 0;
  Ends publishers_, subscribers_;
  std::vector<std::shared_ptr<NcclLink>> ending_;  // until their threads are at the end
};

}  // namespace longwave

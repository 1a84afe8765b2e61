// How chunks that are computed at the same time pass states: a worker publishes the stream of what
// its chunk hands on, whoever computes the next chunk subscribes to it by name and place, and gets
// all that was published so far and the rest as it comes. In one process that is a pointer; between
// processes ZeroMQ, a ROUTER in each that others reach and a DEALER for each of them. Tensors that
// are on a GPU go to another's over NCCL, where both sides have it (nccl_peers.h); all else does
// not change.
//
// A link is never what is true. One that is slow, cut or gone leaves a subscriber waiting: it asks
// again for what it lacks, every half second, until it gets it, somebody else puts it into the
// stream (the boundary in the object store), or the stream is no longer wanted.
//
// A stream's name is used once: JOB/EPOCH/CHUNK.
//
// Thread safety: safe. One thread of its own receives; who puts a tensor into a published stream
// sends it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/worker_probe.h"
#include "transport/waker.h"
#include "transport/zmq_context.h"
#include "worker/links/nccl_peers.h"
#include "worker/links/state_stream.h"

namespace longwave {

struct ExchangeOptions {
  std::string listen = "tcp://127.0.0.1:0";  // port 0: any
  std::string advertise = "";                // what others connect to; empty: what it listens on
  // Streams of this process too go through the socket: for tests.
  bool always_sockets = false;
  CurveKey key = {};             // all exchanges of a cluster have the same one, or none
  NcclLinkOptions nccl = {};     // its api null: none
  WorkerProbe* probe = nullptr;  // told of what passes; outlives the exchange
};

struct LinkCount {
  int64_t sent_tensors = 0, sent_bytes = 0, received_tensors = 0, received_bytes = 0;
};
struct LinkCounts {  // since the start
  LinkCount process, zmq, nccl;
};

class Exchange {
 public:
  // InvalidArgument where an address is none, Unavailable where it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Exchange>> Open(const ExchangeOptions& options);
  ~Exchange();

  const std::string& endpoint() const;  // for those who subscribe

  // A stream that others may subscribe to until Forget().
  std::shared_ptr<StateStream> Publish(const std::string& name, int64_t tensors);
  void Forget(const std::string& name);
  // The stream that is, or will be, published under `name` at `endpoint`; until Unsubscribe().
  std::shared_ptr<StateStream> Subscribe(const std::string& name, const std::string& endpoint,
                                         int64_t tensors);
  void Unsubscribe(const std::string& name);
  LinkCounts counts() const;

 private:
  class Sockets;
  struct Subscription {
    std::string endpoint;
    std::shared_ptr<StateStream> stream;
    int64_t asked_ms = 0;  // 0: never
  };
  struct Publication {
    std::shared_ptr<StateStream> stream;  // null: somebody asked before it was published
    int64_t asked_ms = 0;
    std::map<std::string, int64_t> subscribers;  // by routing id: the next tensor to send
    int64_t next_here = -1;  // the next that a subscriber of this process has; -1: there is none
  };

  explicit Exchange(const ExchangeOptions& options);
  void Run();
  void Receive();
  void Subscribed(const std::string& peer, const LinkMessage& message);
  void Received(const std::string& stream, int64_t index, StateTensor tensor);
  void TellBroken();
  void CountHere(Publication& publication);
  void CountSent(Link link, int64_t bytes);
  void CountReceived(Link link, int64_t bytes);
  // All three: false where something waits for a socket.
  bool Push();
  bool PushOf(const std::string& name, Publication& publication);
  bool Ask(std::unique_lock<std::mutex>& lock);  // released while it asks
  // On the thread that put a tensor, which saves waking another.
  void PushNew(const std::string& name);

  const ExchangeOptions options_;
  std::unique_ptr<Sockets> sockets_;
  Waker waker_;
  mutable std::mutex mutex_;  // of all below
  bool stop_ = false;
  LinkCounts counts_;
  std::map<std::string, Publication> published_;
  std::map<std::string, Subscription> subscribed_;
  std::unique_ptr<NcclPeers> nccl_;  // null: none
  std::thread thread_;
};

}  // namespace longwave

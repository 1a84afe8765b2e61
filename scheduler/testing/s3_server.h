// For tests: a real S3 server (tests/s3/s3_server.py) as a process of its own, and a proxy before
// it that makes faults.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/s3/config.h"

namespace longwave {

// With a bucket "longwave". It ends with this object, and with the process that made it.
class S3Server {
 public:
  S3Server();
  ~S3Server();
  S3Server(const S3Server&) = delete;
  S3Server& operator=(const S3Server&) = delete;

  int port() const { return port_; }
  static S3Server& Shared();  // one for all tests of a process

 private:
  pid_t pid_ = -1;
  int input_ = -1;  // the server ends when this closes
  int port_ = 0;
};

// Of the shared server, or of what listens on `port` before it. Pauses are short.
S3Config TestS3Config(const std::string& prefix, int port = S3Server::Shared().port());

// Takes connections and passes their bytes to a port of this machine and back, but for the faults
// that it is told to make, one after the other. A connection's requests are handled in turn.
class FaultProxy {
 public:
  explicit FaultProxy(int to_port);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const { return port_; }
  int64_t requests() const { return requests_; }
  // The next `count` requests pass as they are.
  void Pass(int count) { Add({Kind::kNone, count}); }
  // The next `count` requests get `answer` in place of the server's.
  void Answer(int count, const std::string& answer) { Add({Kind::kAnswer, count, 0, answer}); }
  // The next `count` requests reach the server; of its answer only `bytes` come back, then the
  // connection closes.
  void CutAnswer(int count, int64_t bytes) { Add({Kind::kCutAnswer, count, bytes}); }
  // The next `count` requests end after `bytes` of them, and do not reach the server.
  void CutRequest(int count, int64_t bytes) { Add({Kind::kCutRequest, count, bytes}); }
  // The next `count` requests get no answer; the connection stays open until the client or the
  // proxy ends.
  void Stall(int count) { Add({Kind::kStall, count}); }
  // From now on all pass.
  void Clear();

 private:
  enum class Kind { kNone, kAnswer, kCutAnswer, kCutRequest, kStall };
  struct Fault {
    Kind kind = Kind::kNone;
    int count = 0;
    int64_t bytes = 0;
    std::string answer = {};
  };
  void Add(Fault fault);
  Fault Next();
  void Accept();
  void Serve(int client);
  bool OneRequest(int client, int server);

  int listener_ = -1, port_ = 0, to_port_ = 0;
  std::atomic<int64_t> requests_ = 0;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::deque<Fault> faults_;
  std::set<int> open_;                    // sockets, to be shut down at the end
  std::vector<std::thread> connections_;  // of accepting_ alone, while that runs
  std::thread accepting_;
};

}  // namespace longwave

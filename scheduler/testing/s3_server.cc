#include "scheduler/testing/s3_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

extern char** environ;

namespace longwave {
namespace {

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool SendAll(int socket, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t sent = send(socket, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    done += static_cast<size_t>(sent);
  }
  return true;
}

bool Receive(int socket, std::string& bytes) {
  char block[64 << 10];
  const ssize_t got = recv(socket, block, sizeof(block), 0);
  if (got <= 0) return false;
  bytes.append(block, static_cast<size_t>(got));
  return true;
}

// One HTTP message: what of it was read, and how to know its end.
struct Message {
  std::string bytes;
  size_t head = 0;  // bytes to the end of the headers; 0: not there yet
  int64_t body = 0;
  bool chunked = false;

  void Look(bool has_body) {
    const size_t end = bytes.find("\r\n\r\n");
    if (head > 0 || end == std::string::npos) return;
    head = end + 4;
    const std::string headers = absl::AsciiStrToLower(bytes.substr(0, head));
    if (!has_body) return;
    chunked = absl::StrContains(headers, "\r\ntransfer-encoding: chunked");
    const size_t length = headers.find("\r\ncontent-length: ");
    if (length == std::string::npos) return;
    const size_t start = length + 18;
    if (!absl::SimpleAtoi(headers.substr(start, headers.find('\r', start) - start), &body))
      Die(headers);
  }
  bool IsWhole() const {
    if (head == 0) return false;
    if (chunked) return absl::EndsWith(bytes, "0\r\n\r\n");
    return static_cast<int64_t>(bytes.size() - head) >= body;
  }
};

}  // namespace

S3Server::S3Server() {
  int input[2], output[2];
  if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) Die("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], 0);
  posix_spawn_file_actions_adddup2(&actions, output[1], 1);
  const std::string script = std::string(LONGWAVE_SOURCE_DIR) + "/tests/s3/s3_server.py";
  const char* arguments[] = {"/usr/bin/python3", script.c_str(), "longwave", nullptr};
  if (posix_spawn(&pid_, arguments[0], &actions, nullptr, const_cast<char**>(arguments), environ) !=
      0) {
    Die("/usr/bin/python3 does not start");
  }
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  close(output[1]);
  input_ = input[1];
  std::FILE* said = fdopen(output[0], "r");
  if (std::fscanf(said, "listening on %d", &port_) != 1) {
    Die("the S3 server did not start (is the package python3-swift installed?)");
  }
  std::fclose(said);
}

S3Server::~S3Server() {
  close(input_);
  waitpid(pid_, nullptr, 0);
}

S3Server& S3Server::Shared() {
  static S3Server server;
  return server;
}

S3Config TestS3Config(const std::string& prefix, int port) {
  S3Config config;
  config.bucket = "longwave";
  config.prefix = prefix;
  config.region = "us-east-1";
  config.url = absl::StrCat("http://127.0.0.1:", port, "/longwave");
  config.key_id = "test:tester";
  config.secret = "testing";
  config.part_bytes = 5 << 20;
  config.first_pause_ms = 1;
  config.most_pause_ms = 20;
  return config;
}

FaultProxy::FaultProxy(int to_port) : to_port_(to_port) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 64) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    Die("the proxy cannot listen");
  }
  port_ = ntohs(address.sin_port);
  accepting_ = std::thread([this] { Accept(); });
}

FaultProxy::~FaultProxy() {
  stopping_ = true;
  shutdown(listener_, SHUT_RDWR);
  accepting_.join();  // no connection comes after it
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int socket : open_) shutdown(socket, SHUT_RDWR);
  }
  for (std::thread& connection : connections_) connection.join();
  close(listener_);
}

void FaultProxy::Add(Fault fault) {
  const std::lock_guard<std::mutex> lock(mutex_);
  faults_.push_back(std::move(fault));
}

void FaultProxy::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  faults_.clear();
}

FaultProxy::Fault FaultProxy::Next() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++requests_;
  if (faults_.empty()) return {};
  Fault fault = faults_.front();
  if (--faults_.front().count == 0) faults_.pop_front();
  return fault;
}

void FaultProxy::Accept() {
  while (!stopping_) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    connections_.emplace_back([this, client] { Serve(client); });
  }
}

void FaultProxy::Serve(int client) {
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(to_port_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.insert({client, server});
  }
  if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    while (!stopping_ && OneRequest(client, server)) {
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  open_.erase(client);
  open_.erase(server);
  close(client);
  close(server);
}

// False: the connection is to be closed.
bool FaultProxy::OneRequest(int client, int server) {
  Message request;
  while (request.head == 0) {
    if (!Receive(client, request.bytes)) return false;
    request.Look(true);
  }
  const Fault fault = Next();
  if (fault.kind == Kind::kCutRequest) {
    while (static_cast<int64_t>(request.bytes.size()) < fault.bytes && !request.IsWhole() &&
           Receive(client, request.bytes)) {
    }
    return false;
  }
  if (absl::StrContains(absl::AsciiStrToLower(request.bytes.substr(0, request.head)),
                        "\r\nexpect: 100-continue") &&
      !SendAll(client, "HTTP/1.1 100 Continue\r\n\r\n")) {
    return false;
  }
  while (!request.IsWhole()) {
    if (!Receive(client, request.bytes)) return false;
  }
  if (fault.kind == Kind::kAnswer) return SendAll(client, fault.answer);
  if (fault.kind == Kind::kStall) {
    std::string none;
    Receive(client, none);  // until the client or the proxy gives up
    return false;
  }
  if (!SendAll(server, request.bytes)) return false;
  Message response;
  int64_t sent = 0;
  while (!response.IsWhole()) {
    if (!Receive(server, response.bytes)) return false;
    response.Look(!absl::StartsWith(request.bytes, "HEAD "));
    if (response.head > 0 && absl::StartsWith(response.bytes, "HTTP/1.1 100")) {
      response = {response.bytes.substr(response.head)};
      response.Look(true);
    }
    const int64_t most = fault.kind == Kind::kCutAnswer ? fault.bytes : int64_t{1} << 62;
    if (response.head == 0) continue;
    const int64_t now = std::min<int64_t>(response.bytes.size(), most);
    if (now > sent && !SendAll(client, response.bytes.substr(sent, now - sent))) return false;
    sent = std::max(sent, now);
  }
  return fault.kind != Kind::kCutAnswer;
}

}  // namespace longwave

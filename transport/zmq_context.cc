#include "transport/zmq_context.h"

#include <netdb.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace longwave {
namespace {

constexpr int kMostSockets = 16384;
constexpr size_t kKeyBytes = 32;
constexpr char kZapAddress[] = "inproc://zeromq.zap.01";

std::string Z85(const void* bytes) {
  std::array<char, 41> text;
  zmq_z85_encode(text.data(), static_cast<const uint8_t*>(bytes), kKeyBytes);
  return text.data();
}

// Answers the context's question who may connect (ZeroMQ RFC 27): a client whose public key is the
// one that the socket named as its domain, the cluster's.
class Doorkeeper {
 public:
  explicit Doorkeeper(zmq::context_t& context) : socket_(context, zmq::socket_type::rep) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.bind(kZapAddress);
    thread_ = std::thread([this] { Run(); });
  }
  // REQUIRES: the context is shut down.
  ~Doorkeeper() { thread_.join(); }

 private:
  void Run() {
    try {
      while (true) Answer();
    } catch (const zmq::error_t&) {
      // The context ends.
    }
    socket_.close();
  }

  // version, request id, domain, address, identity, mechanism, credentials
  void Answer() {
    std::vector<std::string> frames;
    do {
      zmq::message_t frame;
      if (!socket_.recv(frame)) return;
      frames.push_back(frame.to_string());
    } while (socket_.get(zmq::sockopt::rcvmore) != 0);
    const bool admitted = frames.size() == 7 && frames[5] == "CURVE" &&
                          frames[6].size() == kKeyBytes && Z85(frames[6].data()) == frames[2];
    const std::string id = frames.size() > 1 ? frames[1] : "";
    const std::array<std::string, 6> answer = {
        "1.0", id, admitted ? "200" : "400", admitted ? "OK" : "not the cluster's key", "", ""};
    for (size_t i = 0; i < answer.size(); ++i) {
      socket_.send(zmq::buffer(answer[i]),
                   i + 1 < answer.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }

  zmq::socket_t socket_;
  std::thread thread_;
};

struct Shared {
  Shared() {
    context.set(zmq::ctxopt::max_sockets, kMostSockets);
    doorkeeper = std::make_unique<Doorkeeper>(context);
  }
  ~Shared() {
    context.shutdown();
    doorkeeper.reset();
  }
  zmq::context_t context;
  std::unique_ptr<Doorkeeper> doorkeeper;
};

}  // namespace

absl::StatusOr<CurveKey> ParseCurveKey(absl::string_view hex) {
  hex = absl::StripAsciiWhitespace(hex);
  bool good = hex.size() == 2 * kKeyBytes;
  for (const char digit : hex) good = good && absl::ascii_isxdigit(digit);
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat("a CURVE key of ", hex.size(),
                                                   " characters: must be ", 2 * kKeyBytes,
                                                   " hexadecimal digits"));
  }
  CurveKey key;
  key.secret = Z85(absl::HexStringToBytes(hex).data());
  std::array<char, 41> published;
  if (zmq_curve_public(published.data(), key.secret.c_str()) != 0) {
    return absl::UnimplementedError("this ZeroMQ has no CURVE");
  }
  key.published = published.data();
  return key;
}

absl::StatusOr<CurveKey> ReadCurveKey(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::ErrnoToStatus(errno == 0 ? EIO : errno, path);
  absl::StatusOr<CurveKey> key = ParseCurveKey(text.str());
  if (key.ok()) return key;
  return absl::Status(key.status().code(), absl::StrCat(path, ": ", key.status().message()));
}

std::shared_ptr<zmq::context_t> SharedZmqContext() {
  static std::mutex mutex;
  static std::weak_ptr<Shared> kept;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Shared> shared = kept.lock();
  if (shared == nullptr) {
    shared = std::make_shared<Shared>();
    kept = shared;
  }
  return {shared, &shared->context};
}

void Secure(zmq::socket_t& socket, const CurveKey& key, bool server) {
  if (key.empty()) return;
  socket.set(zmq::sockopt::curve_secretkey, key.secret);
  socket.set(zmq::sockopt::curve_publickey, key.published);
  if (server) {
    socket.set(zmq::sockopt::curve_server, 1);
    socket.set(zmq::sockopt::zap_domain, key.published);
  } else {
    socket.set(zmq::sockopt::curve_serverkey, key.published);
  }
}

absl::Status CheckEndpoint(absl::string_view endpoint) {
  const size_t colon = endpoint.rfind(':');
  absl::string_view host = endpoint.substr(0, colon);
  if (absl::ConsumePrefix(&host, "tcp://") && !host.empty()) {
    const absl::string_view text = endpoint.substr(colon + 1);
    uint32_t number = 0;
    if (text == "*" || (absl::SimpleAtoi(text, &number) && number <= 65535)) {
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(endpoint, ": must be tcp://HOST:PORT, with a port of at most 65535"));
}

void AllowIpv6(zmq::socket_t& socket, const std::string& endpoint) {
  absl::string_view address = endpoint;
  address = absl::StripPrefix(address.substr(0, address.rfind(':')), "tcp://");
  const std::string host(address);
  if (host.empty() || host == "*") return;
  addrinfo hints = {}, *found = nullptr;
  hints.ai_family = AF_INET;
  if (host.front() != '[' && getaddrinfo(host.c_str(), nullptr, &hints, &found) == 0) {
    freeaddrinfo(found);
    return;
  }
  socket.set(zmq::sockopt::ipv6, 1);
}

}  // namespace longwave

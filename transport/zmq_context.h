// What all ZeroMQ sockets of a process share: the context, and CURVE, which encrypts and lets in
// only who has the cluster's key. There is one key for a cluster: whoever can read it belongs to
// it.
//
// Thread safety: safe.
#pragma once

#include <memory>
#include <string>
#include <zmq.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

struct CurveKey {
  std::string secret, published;  // Z85, 40 characters each; empty: no CURVE

  bool empty() const { return secret.empty(); }
};

// A file with the secret key as 64 hexadecimal digits. InvalidArgument names what else is there,
// NotFound and the like the file.
absl::StatusOr<CurveKey> ReadCurveKey(const std::string& path);
absl::StatusOr<CurveKey> ParseCurveKey(absl::string_view hex);

// One for all sockets of a process, as long as there are any: its threads are enough for all.
std::shared_ptr<zmq::context_t> SharedZmqContext();

// Before bind() or connect(). With an empty key the socket stays open to all.
void Secure(zmq::socket_t& socket, const CurveKey& key, bool server);

// InvalidArgument unless it is tcp://HOST:PORT. (ZeroMQ takes a port modulo 65536.)
absl::Status CheckEndpoint(absl::string_view endpoint);

// Before bind() or connect() to tcp://HOST:PORT: IPv6 too, where HOST is such an address in
// brackets, or a name without any other. Asks the name server.
void AllowIpv6(zmq::socket_t& socket, const std::string& endpoint);

}  // namespace longwave

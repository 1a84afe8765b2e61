// What `longwave serve` can be told, on the command line, in the environment or in a file.
//
// Thread safety: plain data.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/cluster/auth.h"
#include "services/cluster/http_server.h"
#include "services/log_options.h"

namespace CLI {
class App;
}

namespace longwave {

struct ServeOptions {
  std::string data, store, objects, models;
  std::string listen = "127.0.0.1:8080", worker_listen = "tcp://127.0.0.1:0", worker_advertise;
  std::string auth, admin_token_file, admin_token;
  std::string tls_cert, tls_key, curve_key;
  int64_t connections = 1000;
  double request_timeout = 30;
  std::string device = "auto";
  int workers = 1, threads = 0;
  double lease = 6, drain = 60;

  std::string config;
  bool print_config = false;
  LogOptions log;

  // Errors name the option and its value.
  absl::Status Check() const;
  HttpOptions http() const;
  // Who may ask. Reads the admin's token.
  absl::StatusOr<Authenticator::Options> authentication() const;
  // The database's and the object store's addresses; by default in --data, of which `data` is the
  // full path.
  std::string StoreUri(const std::string& data) const;
  std::string ObjectsUri(const std::string& data) const;
};

void AddServeOptions(CLI::App& serve, ServeOptions& options);
// Takes what --config says of options that were not given otherwise. InvalidArgument names file and
// key of what is not known, not once, or not a value of its option.
absl::Status ReadServeConfig(CLI::App& serve, const std::string& path);
// All options with their values, as --config takes them.
std::string PrintServeConfig(const CLI::App& serve);

}  // namespace longwave

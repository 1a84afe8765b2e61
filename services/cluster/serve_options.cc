#include "services/cluster/serve_options.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/text.h"
#include "transport/zmq_context.h"

namespace longwave {
namespace {

constexpr int kMostWorkers = 256;

template <typename Value>
absl::Status Refuse(const char* option, const Value& value, const char* expected) {
  return absl::InvalidArgumentError(absl::StrCat(option, " ", value, ": must be ", expected));
}

}  // namespace

absl::Status ServeOptions::Check() const {
  if (workers < 0 || workers > kMostWorkers) return Refuse("--workers", workers, "0 to 256");
  if (!(lease >= 0.5 && lease <= 3600)) return Refuse("--lease", lease, "0.5 to 3600 seconds");
  if (!(drain >= 0 && drain <= 86400)) return Refuse("--drain", drain, "0 to 86400 seconds");
  if (!(request_timeout >= 0.1 && request_timeout <= 3600)) {
    return Refuse("--request-timeout", request_timeout, "0.1 to 3600 seconds");
  }
  if (connections < 1 || connections > 100000) {
    return Refuse("--connections", connections, "1 to 100000");
  }
  if (data.empty() && (store.empty() || objects.empty())) {
    return absl::InvalidArgumentError(
        "--data: must be given, unless both --store and --objects are");
  }
  if (models.empty()) return absl::InvalidArgumentError("--models: must be given");
  if (!std::filesystem::is_directory(models)) {
    return Refuse("--models", models, "a folder of model folders");
  }
  if (!auth.empty() && auth != "none" && auth != "tokens") {
    return Refuse("--auth", auth, "none or tokens");
  }
  if (auth == "none" && !admin_token_file.empty()) {
    return Refuse("--admin-token-file", admin_token_file, "left out with --auth none");
  }
  if (worker_advertise.empty()) return absl::OkStatus();
  const absl::Status good = CheckEndpoint(worker_advertise);
  if (good.ok()) return good;
  return absl::InvalidArgumentError(absl::StrCat("--worker-advertise ", good.message()));
}

HttpOptions ServeOptions::http() const {
  HttpOptions http;
  http.listen = listen;
  http.connections = connections;
  http.seconds = request_timeout;
  http.tls_cert = tls_cert;
  http.tls_key = tls_key;
  return http;
}

absl::StatusOr<Authenticator::Options> ServeOptions::authentication() const {
  Authenticator::Options options;
  const bool given = !admin_token_file.empty() || !admin_token.empty();
  options.tokens = auth == "tokens" || (auth.empty() && (given || !IsLoopback(listen)));
  if (!options.tokens) return options;
  if (!admin_token_file.empty()) {
    absl::StatusOr<std::string> token = ReadTokenFile(admin_token_file);
    if (!token.ok()) return token.status();
    options.admin_token = *std::move(token);
  } else if (!admin_token.empty()) {
    absl::Status good = CheckToken("LONGWAVE_ADMIN_TOKEN: a token", admin_token);
    if (!good.ok()) return good;
    options.admin_token = admin_token;
  }
  return options;
}

std::string ServeOptions::StoreUri(const std::string& data) const {
  return store.empty() ? absl::StrCat(data, "/jobs.sqlite") : store;
}

std::string ServeOptions::ObjectsUri(const std::string& data) const {
  return objects.empty() ? absl::StrCat("file://", data, "/objects") : objects;
}

void AddServeOptions(CLI::App& serve, ServeOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* about) {
    return serve.add_option(name, value, about)->capture_default_str();
  };
  add("--data", options.data, "The folder of all that is kept, but for --store and --objects");
  add("--store", options.store,
      "The database: a path of SQLite or postgresql://...; default: in --data");
  add("--objects", options.objects,
      "Where inputs and outputs are: file:///PATH or s3://BUCKET/PREFIX; default: in --data");
  add("--models", options.models, "A folder of model folders");
  add("--listen", options.listen, "HOST:PORT of the HTTP API; port 0: any, printed");
  add("--tls-cert", options.tls_cert, "PEM file of a certificate: the API speaks TLS");
  add("--tls-key", options.tls_key, "PEM file of its key; both are read again when they change");
  add("--auth", options.auth,
      "none or tokens: who may use the API; default: none where only this machine can connect "
      "and no admin's token is given");
  add("--admin-token-file", options.admin_token_file,
      "A file whose first line is an admin's token (or LONGWAVE_ADMIN_TOKEN)");
  add("--connections", options.connections, "Connections of clients at a time");
  add("--request-timeout", options.request_timeout,
      "Seconds that a request, or a block of an upload or an output, may take");
  add("--worker-listen", options.worker_listen,
      "tcp://ADDRESS:PORT for workers; port 0: any, printed");
  add("--worker-advertise", options.worker_advertise,
      "tcp://HOST:PORT where workers reach --worker-listen, where that is another");
  add("--curve-key", options.curve_key,
      "A file with the cluster's secret key, 64 hexadecimal digits: workers' connections are "
      "encrypted, and only workers with the key may connect");
  add("--workers", options.workers, "Workers to start here; 0: none");
  add("--device", options.device, "Of these workers: auto, cpu or cuda:N");
  add("--threads", options.threads, "Of each of these workers; 0: the processors shared out");
  add("--lease", options.lease, "Seconds after which a worker that says nothing is given up");
  AddLogOptions(serve, options.log);
  add("--drain", options.drain, "Seconds that chunks in work may take after SIGTERM");
  // A secret: not on the command line, where every user of the machine sees it.
  serve.add_option("--admin-token", options.admin_token)
      ->envname("LONGWAVE_ADMIN_TOKEN")
      ->configurable(false)
      ->group("");
  serve.add_option("--config", options.config, "A file (TOML or INI) with any of these options")
      ->envname("LONGWAVE_CONFIG")
      ->configurable(false);
  serve
      .add_flag("--print-config", options.print_config, "Print all of them as such a file, and end")
      ->configurable(false);
}

absl::Status ReadServeConfig(CLI::App& serve, const std::string& path) {
  const auto refuse = [&](const std::string& key, absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("--config ", path, ": ", ToUtf8(key), why));
  };
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) return refuse("", "is not a file");
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(path);
  } catch (const CLI::Error& e) {
    return refuse("", ToUtf8(e.what()));
  }
  std::set<std::string> seen;
  for (const CLI::ConfigItem& item : items) {
    if (!item.parents.empty()) return refuse(item.parents[0], ": there are no sections");
    const std::string key = item.name;
    CLI::Option* option = serve.get_option_no_throw("--" + item.name);
    if (option == nullptr || !option->get_configurable() || item.name == "help") {
      return refuse(key, ": there is no such option");
    }
    if (!seen.insert(item.name).second) return refuse(key, ": is there twice");
    if (item.inputs.size() != 1) return refuse(key, ": must have one value");
    if (absl::StartsWith(item.inputs[0], "\"")) return refuse(key, ": a quote is not closed");
    if (option->count() > 0) continue;  // the command line goes first
    try {
      option->add_result(item.inputs[0]);
      option->run_callback();
    } catch (const CLI::Error& e) {
      return refuse(key, absl::StrCat(" ", item.inputs[0], ": ", e.what()));
    }
  }
  return absl::OkStatus();
}

std::string PrintServeConfig(const CLI::App& serve) { return serve.config_to_str(true, false); }

}  // namespace longwave

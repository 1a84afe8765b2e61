// `longwave serve`: the HTTP API, the scheduler and, if asked for, workers beside it.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "observability/log.h"
#include "scheduler/observed_objects.h"
#include "services/cluster/api.h"
#include "services/cluster/dispatch_loop.h"
#include "services/cluster/housekeeper.h"
#include "services/cluster/http_server.h"
#include "services/cluster/local_workers.h"
#include "services/cluster/model_catalog.h"
#include "services/cluster/planner.h"
#include "services/cluster/serve_options.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/run_options.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr int kStopHttpSeconds = 2;
constexpr auto kLook = std::chrono::milliseconds(50);
// A long input, and an object store's delays, hold up no other job.
constexpr int kPlanThreads = 8;
constexpr auto kPlanPause = std::chrono::milliseconds(50) * kPlanThreads;
constexpr int64_t kObjectsPatienceMs = 20000;  // clients wait; the rest of the server asks again

constexpr char kNotes[] = R"(Examples:
  longwave serve --data /var/lib/longwave --models models --workers 2
  longwave serve --config /etc/longwave/serve.toml
  longwave serve --data /var/lib/longwave --models models --listen 0.0.0.0:8443
      --tls-cert tls.crt --tls-key tls.key --admin-token-file admin.token

All that it must not forget is in --data, or in --store and --objects: a server that was killed goes
on where it stood. Where others than this machine can connect, a client needs a token (--auth tokens).

SIGTERM: no more chunks are given out, those in work are finished and committed, then it ends.
SIGHUP: certificate and key are read again.)";

// The folder belongs to one server at a time.
class DataLock {
 public:
  ~DataLock() {
    if (fd_ >= 0) close(fd_);
  }
  absl::Status Take(const std::string& folder) {
    const std::string path = folder + "/lock";
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) return absl::ErrnoToStatus(errno, path);
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("--data ", folder, ": another server uses it"));
  }

 private:
  int fd_ = -1;
};

std::atomic<bool> hung_up = false;

// The server's parts, in the order of their start; they end the other way round.
class Server {
 public:
  explicit Server(const ServeOptions& options) : options_(options) {}
  ~Server() {
    stop_planner_ = true;
    plan_.notify_all();
    for (std::thread& thread : planner_threads_) thread.join();
  }

  absl::Status Run() {
    absl::Status status = Start();
    if (!status.ok()) return status;
    status = PrintOut(absl::StrCat("listening on ", http_->url(), "\nworkers connect to ",
                                   loop_->endpoint(), "\n"));
    while (status.ok() && StopSignal() == 0) {
      status = local_->Look(WallClockMs(), true);
      if (hung_up.exchange(false)) {
        const absl::Status reloaded = http_->ReloadTls();
        if (!reloaded.ok()) Warn("the new certificate is not taken", reloaded);
      }
      std::this_thread::sleep_for(kLook);
    }
    if (status.ok()) Drain();
    return status;
  }

 private:
  absl::Status Start() {
    const absl::StatusOr<Authenticator::Options> auth = options_.authentication();
    if (!auth.ok()) return auth.status();
    const absl::StatusOr<std::string> data = TakeData();
    if (!data.ok()) return data.status();
    absl::StatusOr<std::unique_ptr<SqlDatabase>> database = OpenDatabase(options_.StoreUri(*data));
    if (!database.ok()) return database.status();
    absl::StatusOr<std::unique_ptr<JobStore>> store = JobStore::Open(*std::move(database), &probe_);
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    tokens_ = std::make_unique<TokenStore>(store_->database());
    sessions_ = std::make_unique<SessionStore>(store_->database());
    absl::StatusOr<std::unique_ptr<ObjectStore>> objects =
        ObjectStore::Open(options_.ObjectsUri(*data), kObjectsPatienceMs);
    if (!objects.ok()) return objects.status();
    objects_ = Observe(*std::move(objects), probe_.objects());
    models_ = std::make_unique<ModelCatalog>(std::filesystem::canonical(options_.models).string());
    absl::StatusOr<CurveKey> key = CurveKey();
    if (!options_.curve_key.empty()) key = ReadCurveKey(options_.curve_key);
    if (!key.ok()) return key.status();
    absl::StatusOr<std::unique_ptr<MessageSocket>> socket =
        OpenRouter(options_.worker_listen, *key);
    if (!socket.ok()) return socket.status();
    listening_ = (*socket)->endpoint();
    DispatcherOptions dispatching;
    dispatching.lease_ms = static_cast<int64_t>(options_.lease * 1000);
    dispatching.models = models_->folder();
    dispatching.objects = objects_->uri();
    dispatching.probe = &probe_;
    dispatching.complete = [this] { housekeeper_->Wake(); };
    api_ = std::make_unique<Api>(Api::Stores{*store_, *tokens_, *sessions_, *objects_, *models_},
                                 *auth, Hooks());
    const auto health = [this](const absl::Status& status) { Health(status); };
    loop_ = std::make_unique<DispatchLoop>(*store_, dispatching, *std::move(socket),
                                           options_.worker_advertise, health);
    housekeeper_ = std::make_unique<Housekeeper>(*store_, *objects_, *loop_, probe_, health);
    // Before it leads: a server that cannot listen does not take the lead from one that can.
    absl::StatusOr<std::unique_ptr<HttpServer>> http =
        HttpServer::Start(options_.http(), *api_, *objects_);
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
    loop_->Start();
    planner_ = std::make_unique<Planner>(*store_, *objects_, *models_);
    for (int i = 0; i < kPlanThreads; ++i) planner_threads_.emplace_back([this] { Plan(); });
    local_ = std::make_unique<LocalWorkers>(
        options_.workers, WorkerArguments(),
        [this](const std::string& name) { loop_->WorkerEnded(name); });
    api_->SetReady(absl::OkStatus());
    if (!auth->tokens && !IsLoopback(options_.listen)) {
      log::Warning(
          absl::StrCat("--auth none: whoever can connect to ", http_->url(), " may do everything"));
    }
    if (auth->tokens && auth->admin_token.empty()) {
      const absl::StatusOr<bool> any = tokens_->Any();
      if (!any.ok()) return any.status();
      if (!*any) {
        log::Warning("there is no token yet, so nobody may use the API: give --admin-token-file");
      }
    }
    return absl::OkStatus();
  }

  // The folder's full path, locked; empty where nothing is kept there.
  absl::StatusOr<std::string> TakeData() {
    if (options_.data.empty()) return "";
    std::error_code code;
    std::filesystem::create_directories(options_.data, code);
    if (code) return absl::ErrnoToStatus(code.value(), absl::StrCat("--data ", options_.data));
    if (options_.store.empty()) {  // several servers may share a database that is not here
      absl::Status locked = lock_.Take(options_.data);
      if (!locked.ok()) return locked;
    }
    return std::filesystem::canonical(options_.data).string();
  }

  ApiHooks Hooks() {
    ApiHooks hooks;
    hooks.workers = [this] { return loop_->Workers(); };
    hooks.metrics = [this] { return probe_.Text(); };
    hooks.job_created = [this] { plan_.notify_one(); };
    hooks.observe = [this](absl::string_view route, int status, double seconds) {
      const std::pair<absl::string_view, absl::string_view> method_path =
          absl::StrSplit(route, absl::MaxSplits(' ', 1));
      const bool known = !method_path.second.empty();
      probe_.ApiRequest(known ? method_path.second : route, known ? method_path.first : "none",
                        status, seconds);
    };
    return hooks;
  }

  std::vector<std::string> WorkerArguments() const {
    int threads = options_.threads;
    if (threads == 0 && options_.workers > 0) {
      const int cores = static_cast<int>(std::thread::hardware_concurrency());
      threads = std::max(1, cores / options_.workers);
    }
    std::string endpoint = listening_;
    for (const auto& [any, own] : {std::pair("tcp://0.0.0.0:", "tcp://127.0.0.1:"),
                                   std::pair("tcp://[::]:", "tcp://[::1]:")}) {
      if (absl::StartsWith(endpoint, any)) endpoint = own + endpoint.substr(std::strlen(any));
    }
    std::vector<std::string> arguments = {"--connect",    endpoint,
                                          "--device",     options_.device,
                                          "--threads",    absl::StrCat(threads),
                                          "--log-format", options_.log.format,
                                          "--log-level",  options_.log.level};
    if (!options_.curve_key.empty()) {
      arguments.insert(arguments.end(), {"--curve-key", options_.curve_key});
    }
    return arguments;
  }

  void Health(const absl::Status& status) {
    if (!status.ok()) Warn("not ready", status);
    if (StopSignal() == 0) api_->SetReady(status);
  }

  static void Warn(absl::string_view what, const absl::Status& status) {
    log::Warning(what, {{"error", status.message()}});
  }

  void Plan() {
    while (!stop_planner_) {
      if (!loop_->leads()) {
        PausePlanning();
        continue;
      }
      const absl::StatusOr<bool> planned =
          planner_->PlanOne([this] { return stop_planner_.load(); }, WallClockMs());
      if (!planned.ok() || *planned) {
        const std::lock_guard<std::mutex> lock(plan_mutex_);
        if (!planned.ok() && planned.status() != plan_said_) Warn("cannot plan", planned.status());
        plan_said_ = planned.status();
      }
      if (planned.ok() && *planned) {
        loop_->Wake();
      } else {
        PausePlanning();
      }
    }
  }

  // Until a job comes in here. Other servers' are noticed at the latest after kPlanPause, and so is
  // one that comes in between a look and its pause: a thread looks every 50 ms or so.
  void PausePlanning() {
    std::unique_lock<std::mutex> lock(plan_mutex_);
    plan_.wait_for(lock, kPlanPause);
  }

  void Drain() {
    api_->SetReady(absl::UnavailableError("the server drains: it is about to end"));
    loop_->StartDrain();
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::milliseconds(static_cast<int64_t>(options_.drain * 1000));
    while ((loop_->workers() > 0 || local_->running() > 0) &&
           std::chrono::steady_clock::now() < end) {
      const absl::Status looked = local_->Look(WallClockMs(), false);
      if (!looked.ok()) Warn("cannot look at the workers", looked);
      std::this_thread::sleep_for(kLook);
    }
    http_->Stop(kStopHttpSeconds);
  }

  const ServeOptions& options_;
  DataLock lock_;
  ServerProbe probe_;
  std::string listening_;  // for workers
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<TokenStore> tokens_;
  std::unique_ptr<SessionStore> sessions_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<ModelCatalog> models_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<DispatchLoop> loop_;
  std::unique_ptr<Housekeeper> housekeeper_;
  std::atomic<bool> stop_planner_ = false;
  std::mutex plan_mutex_;
  std::condition_variable plan_;
  absl::Status plan_said_;  // what came of planning last: only what is new is said
  std::unique_ptr<Planner> planner_;
  std::vector<std::thread> planner_threads_;
  std::unique_ptr<LocalWorkers> local_;
  std::unique_ptr<HttpServer> http_;
};

absl::Status Serve(const ServeOptions& options) {
  absl::Status good = options.Check();
  if (good.ok()) good = CheckThreads(options.threads);
  if (good.ok() && options.workers > 0) good = ParseDevice(options.device, "auto").status();
  if (good.ok()) good = options.log.Apply();
  if (!good.ok()) return good;
  CatchStopSignals();
  std::signal(SIGHUP, [](int) { hung_up = true; });
  return Server(options).Run();
}

}  // namespace

void AddServeCommand(CLI::App& app, Action& action) {
  CLI::App* serve = app.add_subcommand("serve", "Keep jobs and give their chunks to workers");
  // Who adds arguments to those given, as a chart's user, overrides them.
  serve->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  auto options = std::make_shared<ServeOptions>();
  AddServeOptions(*serve, *options);
  serve->footer(kNotes);
  serve->callback([serve, options, &action] {
    action = [serve, options] {
      if (!options->config.empty()) {
        absl::Status read = ReadServeConfig(*serve, options->config);
        if (!read.ok()) return read;
      }
      return options->print_config ? PrintOut(PrintServeConfig(*serve)) : Serve(*options);
    };
  });
}

}  // namespace longwave

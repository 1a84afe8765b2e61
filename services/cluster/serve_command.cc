// `longwave serve`: the HTTP API, the scheduler and, if asked for, workers beside it.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/cluster/api.h"
#include "services/cluster/dispatch_loop.h"
#include "services/cluster/housekeeper.h"
#include "services/cluster/http_server.h"
#include "services/cluster/local_workers.h"
#include "services/cluster/model_catalog.h"
#include "services/cluster/planner.h"
#include "services/commands.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr int kMostWorkers = 256;
constexpr int kStopHttpSeconds = 2;
constexpr auto kLook = std::chrono::milliseconds(50);
constexpr auto kPlanPause = std::chrono::milliseconds(50);

constexpr char kNotes[] = R"(Example:
  longwave serve --data /var/lib/longwave --models models --listen 127.0.0.1:8080 --workers 2

All that it must not forget is in --data: a server that was killed goes on where it stood. The HTTP
API has no passwords and no encryption: listen where only those can connect who may.

SIGTERM: no more chunks are given out, those in work are finished and committed, then it ends.)";

struct ServeOptions {
  std::string listen = "127.0.0.1:8080", data, worker_listen = "tcp://127.0.0.1:0", models;
  std::string device = "auto";
  int workers = 1;
  int threads = 0;
  double lease = 6, drain = 60;
};

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

absl::Status Check(const ServeOptions& options) {
  const auto refuse = [](const char* option, auto value, const char* expected) {
    return absl::InvalidArgumentError(absl::StrCat(option, " ", value, ": must be ", expected));
  };
  if (options.workers < 0 || options.workers > kMostWorkers) {
    return refuse("--workers", options.workers, "0 to 256");
  }
  if (!(options.lease >= 0.5 && options.lease <= 3600)) {
    return refuse("--lease", options.lease, "0.5 to 3600 seconds");
  }
  if (!(options.drain >= 0 && options.drain <= 86400)) {
    return refuse("--drain", options.drain, "0 to 86400 seconds");
  }
  if (!std::filesystem::is_directory(options.models)) {
    return refuse("--models", options.models, "a folder of model folders");
  }
  return absl::OkStatus();
}

// The server's parts, in the order of their start; they end the other way round.
class Server {
 public:
  explicit Server(const ServeOptions& options) : options_(options) {}
  ~Server() {
    stop_planner_ = true;
    if (planner_thread_.joinable()) planner_thread_.join();
  }

  absl::Status Run() {
    absl::Status status = Start();
    if (!status.ok()) return status;
    status = PrintOut(absl::StrCat("listening on ", http_->url(), "\nworkers connect to ",
                                   loop_->endpoint(), "\n"));
    while (status.ok() && StopSignal() == 0) {
      status = local_->Look(WallClockMs(), true);
      std::this_thread::sleep_for(kLook);
    }
    if (status.ok()) Drain();
    return status;
  }

 private:
  absl::Status Start() {
    std::error_code code;
    std::filesystem::create_directories(options_.data, code);
    if (code) return absl::ErrnoToStatus(code.value(), absl::StrCat("--data ", options_.data));
    absl::Status locked = lock_.Take(options_.data);
    if (!locked.ok()) return locked;
    const std::string data = std::filesystem::canonical(options_.data).string();
    absl::StatusOr<std::unique_ptr<SqlDatabase>> database = OpenSqlite(data + "/jobs.sqlite");
    if (!database.ok()) return database.status();
    absl::StatusOr<std::unique_ptr<JobStore>> store = JobStore::Open(*std::move(database));
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    absl::StatusOr<std::unique_ptr<ObjectStore>> objects =
        ObjectStore::Open(absl::StrCat("file://", data, "/objects"));
    if (!objects.ok()) return objects.status();
    objects_ = *std::move(objects);
    models_ = std::make_unique<ModelCatalog>(std::filesystem::canonical(options_.models).string());
    absl::StatusOr<std::unique_ptr<MessageSocket>> socket = OpenRouter(options_.worker_listen);
    if (!socket.ok()) return socket.status();
    DispatcherOptions dispatching;
    dispatching.lease_ms = static_cast<int64_t>(options_.lease * 1000);
    dispatching.models = models_->folder();
    dispatching.objects = objects_->uri();
    dispatching.probe = &probe_;
    dispatching.complete = [this] { housekeeper_->Wake(); };
    api_ = std::make_unique<Api>(*store_, *objects_, *models_);
    const auto health = [this](const absl::Status& status) { Health(status); };
    loop_ = std::make_unique<DispatchLoop>(*store_, dispatching, *std::move(socket), "", health);
    housekeeper_ = std::make_unique<Housekeeper>(
        *store_, *objects_, probe_, [this] { return loop_->leads(); }, health);
    loop_->Start();
    planner_thread_ = std::thread([this] { Plan(); });
    local_ = std::make_unique<LocalWorkers>(
        options_.workers, WorkerArguments(),
        [this](const std::string& name) { loop_->WorkerEnded(name); });
    api_->SetReady(absl::OkStatus());
    absl::StatusOr<std::unique_ptr<HttpServer>> http =
        HttpServer::Start(options_.listen, *api_, *objects_);
    if (!http.ok()) return http.status();
    http_ = *std::move(http);
    return absl::OkStatus();
  }

  std::vector<std::string> WorkerArguments() const {
    int threads = options_.threads;
    if (threads == 0 && options_.workers > 0) {
      const int cores = static_cast<int>(std::thread::hardware_concurrency());
      threads = std::max(1, cores / options_.workers);
    }
    std::string endpoint = loop_->endpoint();
    const std::string any = "tcp://0.0.0.0:";
    if (endpoint.rfind(any, 0) == 0) endpoint = "tcp://127.0.0.1:" + endpoint.substr(any.size());
    return {"--connect", endpoint, "--device", options_.device, "--threads", absl::StrCat(threads)};
  }

  void Health(const absl::Status& status) {
    if (!status.ok()) Complain(status);
    if (StopSignal() == 0) api_->SetReady(status);
  }

  static void Complain(const absl::Status& status) {
    std::fprintf(stderr, "longwave: %s\n", std::string(status.message()).c_str());
  }

  void Plan() {
    Planner planner(*store_, *objects_, *models_);
    absl::Status said;
    while (!stop_planner_) {
      const absl::StatusOr<bool> planned =
          planner.PlanOne([this] { return stop_planner_.load(); }, WallClockMs());
      if (planned.status() != said) Complain(planned.status());
      said = planned.status();
      if (planned.ok() && *planned) {
        loop_->Wake();
      } else {
        std::this_thread::sleep_for(kPlanPause);
      }
    }
  }

  void Drain() {
    api_->SetReady(absl::UnavailableError("the server drains: it is about to end"));
    loop_->StartDrain();
    const auto end = std::chrono::steady_clock::now() +
                     std::chrono::milliseconds(static_cast<int64_t>(options_.drain * 1000));
    while ((loop_->workers() > 0 || local_->running() > 0) &&
           std::chrono::steady_clock::now() < end) {
      const absl::Status looked = local_->Look(WallClockMs(), false);
      if (!looked.ok()) Complain(looked);
      std::this_thread::sleep_for(kLook);
    }
    http_->Stop(kStopHttpSeconds);
  }

  const ServeOptions& options_;
  DataLock lock_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<ModelCatalog> models_;
  std::unique_ptr<Api> api_;
  ServerProbe probe_;
  std::unique_ptr<DispatchLoop> loop_;
  std::unique_ptr<Housekeeper> housekeeper_;
  std::atomic<bool> stop_planner_ = false;
  std::thread planner_thread_;
  std::unique_ptr<LocalWorkers> local_;
  std::unique_ptr<HttpServer> http_;
};

absl::Status Serve(const ServeOptions& options) {
  absl::Status good = Check(options);
  if (!good.ok()) return good;
  CatchStopSignals();
  return Server(options).Run();
}

}  // namespace

void AddServeCommand(CLI::App& app, Action& action) {
  CLI::App* serve = app.add_subcommand("serve", "Keep jobs and give their chunks to workers");
  auto options = std::make_shared<ServeOptions>();
  serve->add_option("--data", options->data, "The folder of all that is kept")->required();
  serve->add_option("--models", options->models, "A folder of model folders")->required();
  serve->add_option("--listen", options->listen, "HOST:PORT of the HTTP API; port 0: any, printed")
      ->capture_default_str();
  serve
      ->add_option("--worker-listen", options->worker_listen,
                   "tcp://ADDRESS:PORT for workers; port 0: any, printed")
      ->capture_default_str();
  serve->add_option("--workers", options->workers, "Workers to start here; 0: none")
      ->capture_default_str();
  serve->add_option("--device", options->device, "Of these workers: auto, cpu or cuda:N")
      ->capture_default_str();
  serve
      ->add_option("--threads", options->threads,
                   "Of each of these workers; 0: the processors shared out")
      ->capture_default_str();
  serve
      ->add_option("--lease", options->lease,
                   "Seconds after which a worker that says nothing is given up")
      ->capture_default_str();
  serve->add_option("--drain", options->drain, "Seconds that chunks in work may take after SIGTERM")
      ->capture_default_str();
  serve->footer(kNotes);
  serve->callback([options, &action] { action = [options] { return Serve(*options); }; });
}

}  // namespace longwave

// `longwave worker`: computes chunks of a server's jobs.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "observability/log.h"
#include "observability/server_probe.h"
#include "observability/worker_probe.h"
#include "services/cluster/chunk_executor.h"
#include "services/cluster/status_listener.h"
#include "services/cluster/worker_loop.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/log_options.h"
#include "services/run_options.h"
#include "services/signals.h"

namespace longwave {
namespace {

constexpr char kNotes[] = R"(Example:
  longwave worker --connect tcp://10.0.0.1:7001

The server says where its objects and its models are: both must be readable, and the objects
writable, here under the same path.

SIGTERM: the chunk in work is finished and committed, then the worker leaves. A worker that is killed
costs the chunk that it was computing, which another one computes again.)";

struct WorkerOptions {
  std::string connect, device = "auto", dtype = "auto", name, metrics_listen;
  LogOptions log;
  int threads = 0;
  bool die_with_parent = false;
};

std::string NewName() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  std::random_device random;
  return absl::StrCat(host, "-", getpid(), "-", absl::Hex(random(), absl::kZeroPad8));
}

StatusListener::Answer StatusOf(const WorkerProbe& probe, absl::string_view path) {
  StatusListener::Answer answer;
  if (path == "/metrics") {
    answer = {200, ServerProbe::kContentType, probe.Text()};
  } else if (path == "/healthz") {
    const bool healthy = probe.healthy();
    answer = {healthy ? 200 : 503, answer.content_type, healthy ? "ok\n" : "the device failed\n"};
  } else if (path == "/readyz") {
    const bool ready = probe.healthy() && probe.connected();
    answer = {ready ? 200 : 503, answer.content_type,
              ready ? "ok\n" : "no server knows this worker\n"};
  } else {
    answer.body = "there are /metrics, /healthz and /readyz\n";
  }
  return answer;
}

absl::Status Work(const WorkerOptions& options) {
  absl::Status logged = options.log.Apply();
  if (!logged.ok()) return logged;
  if (options.die_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
  absl::StatusOr<ModelOptions> model = ParseDevice(options.device, options.dtype);
  if (!model.ok()) return model.status();
  absl::Status threads = CheckThreads(options.threads);
  if (!threads.ok()) return threads;
  absl::StatusOr<std::unique_ptr<MessageSocket>> socket =
      OpenDealer(options.connect, options.name.empty() ? NewName() : options.name);
  if (!socket.ok()) return socket.status();
  CatchStopSignals();
  WorkerProbe probe(model->device.ToString());
  std::unique_ptr<StatusListener> listener;
  if (!options.metrics_listen.empty()) {
    absl::StatusOr<std::unique_ptr<StatusListener>> started = StatusListener::Start(
        options.metrics_listen, [&](absl::string_view path) { return StatusOf(probe, path); });
    if (!started.ok()) return started.status();
    listener = *std::move(started);
    log::Info("metrics", {{"url", listener->url()}});
  }
  const auto prepare = [&](const Welcome& welcome) -> absl::StatusOr<WorkerLoop::ExecuteFn> {
    absl::StatusOr<std::unique_ptr<ObjectStore>> objects = ObjectStore::Open(welcome.objects);
    if (!objects.ok()) return objects.status();
    auto executor = std::make_shared<ChunkExecutor>(*std::move(objects), welcome.models, *model,
                                                    options.threads);
    return [executor](const Assign& assign) { return executor->Run(assign); };
  };
  WorkerLoop loop(*std::move(socket), model->device.ToString(), prepare);
  return loop.Run([] { return StopSignal() != 0; });
}

}  // namespace

void AddWorkerCommand(CLI::App& app, Action& action) {
  CLI::App* worker = app.add_subcommand("worker", "Compute chunks of a server's jobs");
  auto options = std::make_shared<WorkerOptions>();
  worker->add_option("--connect", options->connect, "The server's --worker-listen: tcp://HOST:PORT")
      ->required();
  worker->add_option("--device", options->device, kDeviceHelp)->capture_default_str();
  worker->add_option("--dtype", options->dtype, kDtypeHelp)->capture_default_str();
  worker->add_option("--threads", options->threads, "Threads; 0: one for each processor")
      ->capture_default_str();
  worker->add_option("--name", options->name,
                     "What the server calls it (default: host and number)");
  worker->add_option("--metrics-listen", options->metrics_listen,
                     "HOST:PORT of /metrics, /healthz and /readyz; port 0: any, logged");
  AddLogOptions(*worker, options->log);
  worker->add_flag("--with-parent", options->die_with_parent,
                   "Leave when the process that started this one ends");
  worker->footer(kNotes);
  worker->callback([options, &action] { action = [options] { return Work(*options); }; });
}

}  // namespace longwave

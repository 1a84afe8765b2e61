// `longwave worker`: computes chunks of a server's jobs.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "observability/log.h"
#include "observability/server_probe.h"
#include "observability/worker_probe.h"
#include "scheduler/observed_objects.h"
#include "services/cluster/chunk_executor.h"
#include "services/cluster/sim_executor.h"
#include "services/cluster/status_listener.h"
#include "services/cluster/worker_loop.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/log_options.h"
#include "services/run_options.h"
#include "services/signals.h"
#include "worker/links/exchange.h"
#include "worker/links/nccl_api.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

constexpr char kNotes[] = R"(Example:
  longwave worker --connect tcp://10.0.0.1:7001
  longwave worker --connect tcp://10.0.0.1:7001,tcp://10.0.0.2:7001

Of several servers one leads; the others tell a worker which. A server that is silent for its lease
time is left, and the next one tried.

The server says where its objects and its models are: both must be readable, and the objects
writable, here under the same path.

SIGTERM: the chunk in work is finished and committed, then the worker leaves. A worker that is killed
costs the chunk that it was computing, which another one computes again.)";

constexpr int kMostSimulated = 1024;

struct WorkerOptions {
  std::string connect, device = "auto", dtype = "auto", name, uid, metrics_listen, curve_key_file;
  CurveKey key;
  std::string link_listen = "tcp://127.0.0.1:0", link_advertise, collective = "auto";
  LogOptions log;
  int threads = 0, count = 1;
  int parent = 0;  // 0: any
  bool wavefront = false;
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

absl::StatusOr<std::unique_ptr<StatusListener>> ListenForStatus(const WorkerOptions& options,
                                                                const WorkerProbe& probe) {
  if (options.metrics_listen.empty()) return nullptr;
  auto started = StatusListener::Start(
      options.metrics_listen, [&](absl::string_view path) { return StatusOf(probe, path); });
  if (started.ok()) log::Info("metrics", {{"url", (*started)->url()}});
  return started;
}

using PipelineFn = std::function<absl::StatusOr<std::unique_ptr<ChunkPipeline>>(
    std::unique_ptr<ObjectStore> objects, const Welcome&, Exchange*, ChunkPipeline::FinishedFn)>;

// One worker, until it is told to leave.
absl::Status RunWorker(const WorkerOptions& options, const std::string& name,
                       const std::string& device, const NcclLinkOptions& nccl, WorkerProbe& probe,
                       const PipelineFn& pipeline) {
  WorkerLoopOptions loop_options;
  loop_options.device = device;
  loop_options.probe = &probe;
  loop_options.uid = options.uid;
  loop_options.stays = options.parent == 0;
  loop_options.connect = [name, key = options.key](const std::string& endpoint) {
    return OpenDealer(endpoint, name, key);
  };
  loop_options.servers = absl::StrSplit(options.connect, ',');
  absl::StatusOr<std::unique_ptr<MessageSocket>> socket =
      loop_options.connect(loop_options.servers.front());
  if (!socket.ok()) return socket.status();
  // Simulated workers of one process are to cost what workers cost: sockets.
  absl::StatusOr<std::unique_ptr<Exchange>> exchange = Exchange::Open(
      {options.link_listen, options.link_advertise, options.count > 1, options.key, nccl, &probe});
  if (!exchange.ok()) return exchange.status();
  loop_options.links = (*exchange)->endpoint();
  const auto prepare =
      [&](const Welcome& welcome,
          ChunkPipeline::FinishedFn finished) -> absl::StatusOr<std::unique_ptr<ChunkPipeline>> {
    auto objects = ObjectStore::Open(welcome.objects);
    if (!objects.ok()) return objects.status();
    return pipeline(Observe(*std::move(objects), probe.objects()), welcome, exchange->get(),
                    std::move(finished));
  };
  WorkerLoop loop(*std::move(socket), loop_options, prepare);
  return loop.Run([] { return StopSignal() != 0; });
}

absl::Status RunModelWorker(const WorkerOptions& options, const std::string& name) {
  if (options.count != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--count ", options.count,
                     ": only simulated devices have several workers in one process; start a "
                     "process for each device"));
  }
  const absl::StatusOr<ModelOptions> model = ParseDevice(options.device, options.dtype);
  if (!model.ok()) return model.status();
  NcclLinkOptions nccl;
  nccl.device = model->device.index;
  LONGWAVE_ASSIGN_OR_RETURN(nccl.api, ChooseCollective(options.collective, model->device));
  CatchStopSignals();
  const std::string device = model->device.ToString();
  WorkerProbe probe(device);
  const auto listener = ListenForStatus(options, probe);
  if (!listener.ok()) return listener.status();
  return RunWorker(options, name, device, nccl, probe,
                   [&](std::unique_ptr<ObjectStore> objects, const Welcome& welcome,
                       Exchange* exchange, ChunkPipeline::FinishedFn finished) {
                     return std::make_unique<ChunkExecutor>(
                         name, std::move(objects), welcome.models, *model, options.threads,
                         options.wavefront, exchange, probe, std::move(finished));
                   });
}

absl::Status RunSimulatedWorkers(const WorkerOptions& options, const std::string& name) {
  if (options.count < 1 || options.count > kMostSimulated) {
    return absl::InvalidArgumentError(
        absl::StrCat("--count ", options.count, ": must be 1 to ", kMostSimulated));
  }
  const absl::StatusOr<SimDevice> device = ParseSimDevice(options.device);
  if (!device.ok()) return device.status();
  CatchStopSignals();
  WorkerProbe probe(device->ToString());
  const auto listener = ListenForStatus(options, probe);
  if (!listener.ok()) return listener.status();
  const auto pipeline = [&](std::unique_ptr<ObjectStore> objects, const Welcome&,
                            Exchange* exchange, ChunkPipeline::FinishedFn finished) {
    return std::make_unique<SimExecutor>(std::move(objects), *device, exchange, probe,
                                         std::move(finished));
  };
  std::vector<absl::Status> statuses(options.count);
  std::vector<std::thread> workers;
  for (int i = 0; i < options.count; ++i) {
    workers.emplace_back([&, i] {
      statuses[i] = RunWorker(options, options.count == 1 ? name : absl::StrCat(name, "-", i),
                              device->ToString(), {}, probe, pipeline);
    });
  }
  for (std::thread& worker : workers) worker.join();
  absl::Status status;
  for (const absl::Status& one : statuses) status.Update(one);
  return status;
}

absl::Status CheckServers(const std::string& connect) {
  for (absl::string_view endpoint : absl::StrSplit(connect, ',')) {
    const absl::Status good = CheckEndpoint(endpoint);
    if (!good.ok()) return absl::InvalidArgumentError(absl::StrCat("--connect ", good.message()));
  }
  return absl::OkStatus();
}

absl::Status Work(WorkerOptions options) {
  absl::Status good = options.log.Apply();
  if (good.ok() && !options.curve_key_file.empty()) {
    absl::StatusOr<CurveKey> key = ReadCurveKey(options.curve_key_file);
    good = key.status();
    if (key.ok()) options.key = *std::move(key);
  }
  if (good.ok()) good = CheckThreads(options.threads);
  if (good.ok()) good = CheckServers(options.connect);
  if (!good.ok()) return good;
  if (options.parent != 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != options.parent) return absl::OkStatus();  // it ended before that
  }
  const std::string name = options.name.empty() ? NewName() : options.name;
  return IsSimDevice(options.device) ? RunSimulatedWorkers(options, name)
                                     : RunModelWorker(options, name);
}

}  // namespace

void AddWorkerCommand(CLI::App& app, Action& action) {
  CLI::App* worker = app.add_subcommand("worker", "Compute chunks of a server's jobs");
  // Who adds arguments to those given, as a chart's user, overrides them.
  worker->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  auto options = std::make_shared<WorkerOptions>();
  worker
      ->add_option("--connect", options->connect,
                   "Where servers listen for workers (--worker-listen): tcp://HOST:PORT,...")
      ->required();
  worker
      ->add_option("--device", options->device,
                   absl::StrCat(kDeviceHelp, "; or sim:layer_ms=..,layers=.. that only sleeps"))
      ->capture_default_str();
  worker->add_option("--count", options->count, "Simulated workers in this process")
      ->capture_default_str();
  worker->add_option("--dtype", options->dtype, kDtypeHelp)->capture_default_str();
  worker->add_option("--threads", options->threads, "Threads; 0: one for each processor")
      ->capture_default_str();
  worker
      ->add_option("--link-listen", options->link_listen,
                   "tcp://ADDRESS:PORT where other workers fetch states; port 0: any")
      ->capture_default_str();
  worker->add_option("--link-advertise", options->link_advertise,
                     "tcp://HOST:PORT that they are told (default: what it listens on)");
  worker
      ->add_option("--collective", options->collective,
                   "How states pass between GPUs: nccl, zmq, or auto: NCCL where it is")
      ->capture_default_str();
  worker->add_option("--name", options->name,
                     "What the server calls it (default: host and number)");
  worker->add_option(
      "--uid", options->uid,
      "The uid of its pod: work goes first to those that Kubernetes would remove last");
  worker->add_option("--metrics-listen", options->metrics_listen,
                     "HOST:PORT of /metrics, /healthz and /readyz; port 0: any, logged");
  worker->add_option("--curve-key", options->curve_key_file,
                     "A file with the cluster's secret key, 64 hexadecimal digits: all connections "
                     "are encrypted, and only who has it may connect");
  worker->add_flag("--wavefront", options->wavefront,
                   "To measure against: states go on when a whole layer is computed");
  AddLogOptions(*worker, options->log);
  worker->add_option("--with-parent", options->parent,
                     "Leave when the process that started this one, of this number, ends");
  worker->footer(kNotes);
  worker->callback([options, &action] { action = [options] { return Work(*options); }; });
}

}  // namespace longwave

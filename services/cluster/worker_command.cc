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

#include "absl/strings/str_cat.h"
#include "services/cluster/chunk_executor.h"
#include "services/cluster/sim_executor.h"
#include "services/cluster/worker_loop.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/run_options.h"
#include "services/signals.h"
#include "worker/links/exchange.h"

namespace longwave {
namespace {

constexpr char kNotes[] = R"(Example:
  longwave worker --connect tcp://10.0.0.1:7001

The server says where its objects and its models are: both must be readable, and the objects
writable, here under the same path.

SIGTERM: the chunk in work is finished and committed, then the worker leaves. A worker that is killed
costs the chunk that it was computing, which another one computes again.)";

constexpr int kMostSimulated = 1024;

struct WorkerOptions {
  std::string connect, device = "auto", dtype = "auto", name;
  std::string link_listen = "tcp://127.0.0.1:0", link_advertise;
  int threads = 0, count = 1;
  bool die_with_parent = false;
};

std::string NewName() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  std::random_device random;
  return absl::StrCat(host, "-", getpid(), "-", absl::Hex(random(), absl::kZeroPad8));
}

using PipelineFn = std::function<absl::StatusOr<std::unique_ptr<ChunkPipeline>>(
    const Welcome&, Exchange*, ChunkPipeline::FinishedFn)>;

// One worker, until it is told to leave.
absl::Status RunWorker(const WorkerOptions& options, const std::string& name,
                       const std::string& device, const PipelineFn& pipeline) {
  WorkerLoopOptions loop_options;
  loop_options.device = device;
  loop_options.connect = [name](const std::string& endpoint) { return OpenDealer(endpoint, name); };
  absl::StatusOr<std::unique_ptr<MessageSocket>> socket = loop_options.connect(options.connect);
  if (!socket.ok()) return socket.status();
  absl::StatusOr<std::unique_ptr<Exchange>> exchange =
      Exchange::Open({options.link_listen, options.link_advertise, options.count > 1});
  if (!exchange.ok()) return exchange.status();
  loop_options.links = (*exchange)->endpoint();
  WorkerLoop loop(*std::move(socket), loop_options,
                  [&](const Welcome& welcome, ChunkPipeline::FinishedFn finished) {
                    return pipeline(welcome, exchange->get(), std::move(finished));
                  });
  return loop.Run([] { return StopSignal() != 0; });
}

absl::Status Work(const WorkerOptions& options) {
  if (options.die_with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
  const std::string name = options.name.empty() ? NewName() : options.name;
  absl::Status threads = CheckThreads(options.threads);
  if (!threads.ok()) return threads;
  if (!IsSimDevice(options.device)) {
    if (options.count != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--count ", options.count,
                       ": only simulated devices have several workers "
                       "in one process; start a process for each device"));
    }
    absl::StatusOr<ModelOptions> model = ParseDevice(options.device, options.dtype);
    if (!model.ok()) return model.status();
    CatchStopSignals();
    return RunWorker(
        options, name, model->device.ToString(),
        [&](const Welcome& welcome, Exchange* exchange,
            ChunkPipeline::FinishedFn finished) -> absl::StatusOr<std::unique_ptr<ChunkPipeline>> {
          auto objects = ObjectStore::Open(welcome.objects);
          if (!objects.ok()) return objects.status();
          return std::make_unique<ChunkExecutor>(*std::move(objects), welcome.models, *model,
                                                 options.threads, exchange, std::move(finished));
        });
  }
  if (options.count < 1 || options.count > kMostSimulated) {
    return absl::InvalidArgumentError(
        absl::StrCat("--count ", options.count, ": must be 1 to ", kMostSimulated));
  }
  const absl::StatusOr<SimDevice> device = ParseSimDevice(options.device);
  if (!device.ok()) return device.status();
  CatchStopSignals();
  const auto pipeline =
      [&](const Welcome& welcome, Exchange* exchange,
          ChunkPipeline::FinishedFn finished) -> absl::StatusOr<std::unique_ptr<ChunkPipeline>> {
    auto objects = ObjectStore::Open(welcome.objects);
    if (!objects.ok()) return objects.status();
    return std::make_unique<SimExecutor>(*std::move(objects), *device, exchange,
                                         std::move(finished));
  };
  std::vector<absl::Status> statuses(options.count);
  std::vector<std::thread> workers;
  for (int i = 0; i < options.count; ++i) {
    workers.emplace_back([&, i] {
      statuses[i] = RunWorker(options, options.count == 1 ? name : absl::StrCat(name, "-", i),
                              device->ToString(), pipeline);
    });
  }
  for (std::thread& worker : workers) worker.join();
  absl::Status status;
  for (const absl::Status& one : statuses) status.Update(one);
  return status;
}

}  // namespace

void AddWorkerCommand(CLI::App& app, Action& action) {
  CLI::App* worker = app.add_subcommand("worker", "Compute chunks of a server's jobs");
  auto options = std::make_shared<WorkerOptions>();
  worker->add_option("--connect", options->connect, "The server's --worker-listen: tcp://HOST:PORT")
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
  worker->add_option("--name", options->name,
                     "What the server calls it (default: host and number)");
  worker->add_flag("--with-parent", options->die_with_parent,
                   "Leave when the process that started this one ends");
  worker->footer(kNotes);
  worker->callback([options, &action] { action = [options] { return Work(*options); }; });
}

}  // namespace longwave

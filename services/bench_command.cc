// `longwave bench ops`: a table, or JSON.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/stream.h"
#include "services/bench_ops.h"
#include "services/commands.h"

namespace longwave {
namespace {

struct BenchFlags {
  BenchOptions options;
  std::string device = "cpu";
  std::vector<std::string> dtypes;
  bool json = false;
};

boost::json::object ToJson(const BenchRow& r) {
  return {{"op", r.op},
          {"length", r.length},
          {"channels", r.channels},
          {"ns_per_token_channel", r.ns},
          {"ns_fastest", r.ns_fastest},
          {"ns_slowest", r.ns_slowest},
          {"gigabytes_per_second", r.gigabytes},
          {"gigaflops", r.gigaflops},
          {"baseline", r.baseline},
          {"ratio", r.ratio},
          {"relative_error", r.error}};
}

absl::Status RunBenchOps(const BenchFlags& flags) {
  boost::json::array rows;
  bool headed = false;
  const absl::Status status = BenchOps(flags.options, [&](const BenchRow& r) {
    if (flags.json) {
      rows.push_back(ToJson(r));
      return;
    }
    if (!headed) {
      std::printf("%-16s %9s %8s %12s %17s %8s %9s  %s\n", "operator", "length", "channels",
                  "ns/tok/chan", "fastest..slowest", "GB/s", "GFLOP/s", "times faster than");
    }
    headed = true;
    std::printf("%-16s %9lld %8lld %12.3f %8.3f..%-7.3f %8.2f %9.1f  %.2f x %s\n", r.op.c_str(),
                static_cast<long long>(r.length), static_cast<long long>(r.channels), r.ns,
                r.ns_fastest, r.ns_slowest, r.gigabytes, r.gigaflops, r.ratio, r.baseline.c_str());
    std::fflush(stdout);
  });
  if (flags.json && status.ok()) {
    const boost::json::object result{{"device", "cpu"},
                                     {"target", CpuTargetName()},
                                     {"version", LONGWAVE_VERSION},
                                     {"threads", ThreadPool(flags.options.threads).threads()},
                                     {"rows", std::move(rows)}};
    std::cout << boost::json::serialize(result) << "\n";
  }
  return status;
}

// ---- a GPU ----

boost::json::object ToCudaJson(const BenchRow& r) {
  return {{"op", r.op},
          {"dtype", Name(r.dtype)},
          {"batch", r.batch},
          {"length", r.length},
          {"channels", r.channels},
          {"ps_per_token_channel", 1e3 * r.ns},
          {"ps_fastest", 1e3 * r.ns_fastest},
          {"ps_slowest", 1e3 * r.ns_slowest},
          {"runs", r.runs},
          {"gigabytes_per_second", r.gigabytes},
          {"teraflops", r.gigaflops / 1e3},
          {"baseline", r.baseline},
          {"ratio", r.ratio},
          {"relative_error", r.error},
          {"tolerance", r.tolerance}};
}

absl::Status RunBenchOpsCuda(const BenchFlags& flags, int device) {
  auto queue = gpu::Queue::Open(device);
  if (!queue.ok()) {
    return absl::Status(queue.status().code(),
                        absl::StrCat("--device ", flags.device, ": ", queue.status().message()));
  }
  const gpu::Properties gpu = (*queue)->properties();
  boost::json::array rows, failures;
  bool headed = false;
  const absl::Status status = BenchOpsCuda(
      flags.options, *std::move(queue),
      [&](const BenchRow& r) {
        if (flags.json) {
          rows.push_back(ToCudaJson(r));
          return;
        }
        if (!headed) {
          std::printf("%s\n%-22s %-8s %5s %8s %8s %12s %19s %8s %8s %8s  %s\n", gpu.name.c_str(),
                      "operator", "type", "batch", "length", "channels", "ps/tok/chan",
                      "fastest..slowest", "GB/s", "TFLOP/s", "error", "times faster than");
        }
        headed = true;
        std::printf(
            "%-22s %-8s %5lld %8lld %8lld %12.3f %9.3f..%-8.3f %8.1f %8.1f %8.1e  %.2f x %s\n",
            r.op.c_str(), Name(r.dtype), static_cast<long long>(r.batch),
            static_cast<long long>(r.length), static_cast<long long>(r.channels), 1e3 * r.ns,
            1e3 * r.ns_fastest, 1e3 * r.ns_slowest, r.gigabytes, r.gigaflops / 1e3, r.error,
            r.ratio, r.baseline.c_str());
        std::fflush(stdout);
      },
      [&](const BenchFailure& f) {
        std::fprintf(stderr, "%s %s, %lld tokens: %s\n", f.op.c_str(), Name(f.dtype),
                     static_cast<long long>(f.length), f.reason.c_str());
        failures.push_back(boost::json::object{{"op", f.op},
                                               {"dtype", Name(f.dtype)},
                                               {"length", f.length},
                                               {"channels", f.channels},
                                               {"reason", f.reason}});
      });
  if (flags.json && (status.ok() || !failures.empty())) {
    const boost::json::object result{{"device", flags.device},
                                     {"gpu", gpu.name},
                                     {"compute_capability", gpu.compute_capability},
                                     {"multiprocessors", gpu.multiprocessors},
                                     {"l2_bytes", gpu.l2_bytes},
                                     {"version", LONGWAVE_VERSION},
                                     {"rows", std::move(rows)},
                                     {"failures", std::move(failures)}};
    std::cout << boost::json::serialize(result) << "\n";
  }
  return status;
}

absl::Status RunBench(BenchFlags flags) {
  for (const std::string& name : flags.dtypes) {
    for (Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
      if (name == Name(dtype)) flags.options.dtypes.push_back(dtype);
    }
    if (name != "float32" && name != "bfloat16" && name != "float16") {
      return absl::InvalidArgumentError(
          absl::StrCat("--dtype ", name, ": must be bfloat16, float16 or float32"));
    }
  }
  if (flags.device == "cpu") return RunBenchOps(flags);
  int device = -1;
  absl::string_view name = flags.device;
  if (!absl::ConsumePrefix(&name, "cuda:") || !absl::SimpleAtoi(name, &device) || device < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", flags.device, ": must be cpu or cuda:N"));
  }
  return RunBenchOpsCuda(flags, device);
}

}  // namespace

void AddBenchCommand(CLI::App& app, Action& action) {
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine");
  bench->require_subcommand(1);
  CLI::App* ops = bench->add_subcommand(
      "ops", "Each operator's time per token and channel, its rates, and its ratio to a baseline");
  auto flags = std::make_shared<BenchFlags>();
  BenchOptions& options = flags->options;
  ops->add_option("--device", flags->device, "cpu (default) or cuda:N");
  ops->add_option("--only", options.only, "Operators whose name contains this");
  ops->add_option("--lengths", options.lengths, "Tokens, separated by commas")->delimiter(',');
  ops->add_option("--channels", options.channels, "Channels of the convolutions");
  ops->add_option("--pairs", options.pairs, "Conjugate pairs of the state: half its size");
  ops->add_option("--threads", options.threads, "Threads; 0: all");
  ops->add_option("--seconds", options.seconds, "At least this long for each measurement");
  ops->add_option("--tokens", options.tokens, "Of a GPU's shapes, all sequences together");
  ops->add_option("--dtype", flags->dtypes, "On a GPU: bfloat16,float16,float32; default all")
      ->delimiter(',');
  ops->add_flag("--json", flags->json, "One JSON object on standard output");
  ops->callback([flags, &action] { action = [flags] { return RunBench(*flags); }; });
  AddBenchModelCommand(*bench, action);
}

}  // namespace longwave

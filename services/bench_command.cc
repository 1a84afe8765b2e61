// `longwave bench ops`: a table, or JSON.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "kernels/stream.h"
#include "services/bench_ops.h"
#include "services/commands.h"

namespace longwave {
namespace {

struct BenchFlags {
  BenchOptions options;
  bool json = false;
};

absl::Status RunBenchOps(const BenchFlags& flags) {
  boost::json::array rows;
  bool headed = false;
  const absl::Status status = BenchOps(flags.options, [&](const BenchRow& r) {
    if (!flags.json) {
      if (!headed) {
        std::printf("%-16s %9s %8s %12s %17s %8s %9s  %s\n", "operator", "length", "channels",
                    "ns/tok/chan", "fastest..slowest", "GB/s", "GFLOP/s", "times faster than");
      }
      headed = true;
      std::printf("%-16s %9lld %8lld %12.3f %8.3f..%-7.3f %8.2f %9.1f  %.2f x %s\n", r.op.c_str(),
                  static_cast<long long>(r.length), static_cast<long long>(r.channels), r.ns,
                  r.ns_fastest, r.ns_slowest, r.gigabytes, r.gigaflops, r.ratio,
                  r.baseline.c_str());
      std::fflush(stdout);
      return;
    }
    rows.push_back({{"op", r.op},
                    {"length", r.length},
                    {"channels", r.channels},
                    {"ns_per_token_channel", r.ns},
                    {"ns_fastest", r.ns_fastest},
                    {"ns_slowest", r.ns_slowest},
                    {"gigabytes_per_second", r.gigabytes},
                    {"gigaflops", r.gigaflops},
                    {"baseline", r.baseline},
                    {"ratio", r.ratio},
                    {"relative_error", r.error}});
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

}  // namespace

void AddBenchCommand(CLI::App& app, Action& action) {
  CLI::App* bench = app.add_subcommand("bench", "Measure this machine");
  bench->require_subcommand(1);
  CLI::App* ops = bench->add_subcommand(
      "ops", "Each operator's time per token and channel, its rates, and its ratio to a baseline");
  auto flags = std::make_shared<BenchFlags>();
  BenchOptions& options = flags->options;
  ops->add_option("--only", options.only, "Operators whose name contains this");
  ops->add_option("--lengths", options.lengths, "Tokens, separated by commas")->delimiter(',');
  ops->add_option("--channels", options.channels, "Channels of the convolutions");
  ops->add_option("--pairs", options.pairs, "Conjugate pairs of the state: half its size");
  ops->add_option("--threads", options.threads, "Threads; 0: all");
  ops->add_option("--seconds", options.seconds, "At least this long for each measurement");
  ops->add_flag("--json", flags->json, "One JSON object on standard output");
  ops->callback([flags, &action] { action = [flags] { return RunBenchOps(*flags); }; });
}

}  // namespace longwave

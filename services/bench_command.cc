// `longwave bench ops` and `longwave bench model`: a table, or JSON.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "kernels/stream.h"
#include "services/bench_model.h"
#include "services/bench_ops.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/text.h"

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

struct ModelBenchFlags {
  ModelBenchOptions options;
  std::string device = "auto", dtype = "auto";
  bool json = false;
};

boost::json::object ToJson(const ModelBenchOptions& o, const ModelBenchResult& r) {
  boost::json::object parts;
  for (const auto& [part, seconds] : r.part_seconds) parts[part] = seconds;
  boost::json::object object{{"shape", o.shape},
                             {"task", o.task},
                             {"device", o.model.device.ToString()},
                             {"device_name", DeviceName(o.model.device)},
                             {"dtype", Name(o.model.dtype)},
                             {"version", LONGWAVE_VERSION},
                             {"parameters", r.parameters},
                             {"weight_bytes", r.weight_bytes},
                             {"chunk", o.chunk}};
  if (o.task == "score") {
    object["tokens"] = o.tokens;
    object["mean_nats"] = r.mean_nats;
  } else {
    object["batch"] = o.batch;
    object["prompt"] = o.prompt;
    object["new_tokens"] = o.new_tokens;
    object["prompt_seconds"] = r.prompt_seconds;
  }
  object["runs"] = r.run.runs;
  object["seconds"] = r.run.median;
  object["seconds_fastest"] = r.run.fastest;
  object["seconds_slowest"] = r.run.slowest;
  object["tokens_per_second"] = r.tokens_per_second;
  object["peak_bytes"] = r.peak_bytes;
  object["part_seconds"] = std::move(parts);
  return object;
}

absl::Status RunBenchModel(ModelBenchFlags& flags) {
  ModelBenchOptions& options = flags.options;
  absl::StatusOr<ModelOptions> model = ParseDevice(flags.device, flags.dtype);
  if (!model.ok()) return model.status();
  options.model = *model;
  const absl::StatusOr<ModelBenchResult> result = BenchModel(options);
  if (!result.ok()) return result.status();
  if (flags.json) {
    return PrintOut(boost::json::serialize(ToJson(options, *result)) + "\n");
  }
  const Timing& run = result->run;
  std::string text = absl::StrFormat(
      "%s %s, %s parameters, %s on %s\n"
      "%s tokens/s: %.4f s, %.4f to %.4f s in %d runs; peak memory %s\n",
      options.shape, options.task, WithCommas(result->parameters), Name(options.model.dtype),
      DeviceName(options.model.device), WithCommas(std::llround(result->tokens_per_second)),
      run.median, run.fastest, run.slowest, run.runs, HumanBytes(result->peak_bytes));
  if (options.task == "generate") {
    absl::StrAppendFormat(&text, "of these %.4f s for the prompts\n", result->prompt_seconds);
  }
  for (const auto& [part, seconds] : result->part_seconds) {
    absl::StrAppendFormat(&text, "  %-12s %.4f s\n", part, seconds);
  }
  return PrintOut(text);
}

void AddBenchModel(CLI::App& bench, Action& action) {
  CLI::App* model = bench.add_subcommand(
      "model", "Tokens per second of a model's shape with random weights, and where they go");
  auto flags = std::make_shared<ModelBenchFlags>();
  ModelBenchOptions& options = flags->options;
  const auto number = [&](const char* name, auto& value, const char* help) {
    model->add_option(name, value, help)->capture_default_str();
  };
  number("--shape", options.shape, "h3-125m, h3-355m, h3-1.3b or h3-1.3b-hybrid");
  number("--task", options.task,
         "score: one sequence and its token losses; generate: a batch of prompts and what follows");
  number("--device", flags->device, kDeviceHelp);
  number("--dtype", flags->dtype, kDtypeHelp);
  number("--chunk", options.chunk, "Most tokens of a sequence in one pass");
  number("--tokens", options.tokens, "score: tokens of the sequence");
  number("--batch", options.batch, "generate: sequences");
  number("--prompt", options.prompt, "generate: tokens of each prompt");
  number("--new-tokens", options.new_tokens, "generate: tokens to make of each");
  number("--runs", options.runs, "Measurements, after one that is not counted; the median is told");
  number("--threads", options.threads, "Threads of the CPU; 0: all");
  model->add_flag("--json", flags->json, "One JSON object on standard output");
  model->callback([flags, &action] { action = [flags] { return RunBenchModel(*flags); }; });
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
  AddBenchModel(*bench, action);
}

}  // namespace longwave

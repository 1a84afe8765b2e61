// `longwave bench model`: a few lines, or JSON.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cmath>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "services/bench_model.h"
#include "services/commands.h"
#include "services/device.h"
#include "services/text.h"

namespace longwave {
namespace {

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

}  // namespace

void AddBenchModelCommand(CLI::App& bench, Action& action) {
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

}  // namespace longwave

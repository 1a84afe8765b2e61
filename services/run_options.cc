#include "services/run_options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/device.h"
#include "services/option_checks.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr int kMostThreads = 1024;
constexpr char kMachine[] = "How it runs";

absl::Status Refuse(const std::string& what, const std::string& value, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(what, " ", value, ": ", why));
}

}  // namespace

absl::StatusOr<InputFormat> ParseFormat(const std::string& name) {
  if (name == "auto") return InputFormat::kAuto;
  if (name == "bytes") return InputFormat::kBytes;
  if (name == "fasta") return InputFormat::kFasta;
  if (name == "npy") return InputFormat::kNpy;
  return Refuse("--format", name, "must be one of auto, bytes, fasta, npy");
}

namespace {

absl::Status CheckOutput(const CLI::App& run, const RunOptions& options) {
  const Task task = options.job.task;
  const bool only_array = task == Task::kEmbed || task == Task::kLogits || task == Task::kTransform;
  if (only_array && options.out.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--task ", Name(task), " makes an array: name its file with --out"));
  }
  if (run["--out"]->count() > 0 && options.out.empty()) return Refuse("--out", "''", "is empty");
  if (options.out == "-") return Refuse("--out", "-", "must be a file");
  return absl::OkStatus();
}

}  // namespace

int64_t PhysicalMemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * int64_t{sysconf(_SC_PAGESIZE)};
}

int64_t RunOptions::DefaultCacheBudget() {
  return std::min(int64_t{8} << 30, PhysicalMemoryBytes() / 2);
}

absl::Status CheckThreads(int threads) {
  if (threads >= 0 && threads <= kMostThreads) return absl::OkStatus();
  return Refuse("--threads", absl::StrCat(threads),
                absl::StrCat("must be 1 to ", kMostThreads, ", or 0 for every processor"));
}

void AddJobOptions(CLI::App& command, JobOptions& options) {
  JobSpec& job = options.job;
  const CLI::Validator whole = WholeNumber();
  command.add_option(
      "INPUT", job.input,
      "Text or any bytes, FASTA (plain or gzip), .npy of token ids or, for transform, of "
      "float32 values; - is standard input");
  command.add_option("--task", options.task_name, absl::StrCat("One of ", TaskNames()))
      ->capture_default_str();
  command.add_option("--format", options.format_name, "What INPUT is: auto, bytes, fasta or npy")
      ->capture_default_str();
  command
      .add_option("--chunk", job.chunk, "Tokens in one piece: memory grows with it, not with INPUT")
      ->check(whole)
      ->capture_default_str()
      ->group(kMachine);

  command.add_option("--window", job.window, "Tokens in one mean (default: all of a sequence)")
      ->check(whole)
      ->group("embed");
  command
      .add_option("--max-logits-bytes", job.max_logits_bytes,
                  "Refuse to make a larger array than this (default 1GB)")
      ->transform(ByteCount())
      ->group("logits");

  const std::string generate = "generate";
  command.add_option("--prompt", job.prompt, "The text to continue, in place of INPUT")
      ->group(generate);
  command.add_option("--max-new-tokens", job.max_new_tokens, "How many tokens to make")
      ->check(whole)
      ->capture_default_str()
      ->group(generate);
  command
      .add_option("--temperature", job.temperature, "0 is greedy; 1 samples as the model predicts")
      ->capture_default_str()
      ->group(generate);
  command.add_option("--top-k", job.top_k, "Only the K most probable tokens; 0: all")
      ->check(whole)
      ->capture_default_str()
      ->group(generate);
  command
      .add_option("--top-p", job.top_p, "Only the most probable tokens that add up to P; 1: all")
      ->capture_default_str()
      ->group(generate);
  command.add_option("--seed", job.seed, "Another seed draws other tokens")
      ->check(WholeNumber<uint64_t>("a whole number from 0 to 2^64 - 1"))
      ->capture_default_str()
      ->group(generate);
}

void AddRunOptions(CLI::App& run, RunOptions& options) {
  const CLI::Validator whole = WholeNumber();
  run.add_option("MODEL", options.job.model, "A folder with config.json and model.safetensors")
      ->required();
  AddJobOptions(run, options);
  run.add_option("--out", options.out,
                 "The .npy file to write; OUT.RECORD.npy for each record where there are several. "
                 "generate: another ending than .npy gets the bytes themselves");
  run.add_flag("--json", options.json,
               "Print one JSON object, and nothing else, on standard output");
  run.add_flag("--quiet", options.quiet, "No progress and no summary");

  run.add_option("--threads", options.threads, "Threads; 0: one for each processor")
      ->check(whole)
      ->capture_default_str()
      ->group(kMachine);
  run.add_option("--device", options.device_name, kDeviceHelp)
      ->capture_default_str()
      ->group(kMachine);
  run.add_option("--dtype", options.dtype_name, kDtypeHelp)->capture_default_str()->group(kMachine);
  run.add_option(
         "--cache-budget", options.cache_budget_bytes,
         "Most memory for attention layers' caches, in bytes or as 512MB, 8GB (of 1024); the "
         "default is half of the memory, 8GB at most")
      ->transform(ByteCount())
      ->group(kMachine);
  run.add_option("--checkpoint", options.checkpoint_seconds,
                 "Seconds between points from which an interrupted run goes on; 0: each chunk")
      ->capture_default_str()
      ->group(kMachine);
}

absl::Status FinishJobOptions(const CLI::App& command, JobOptions& options) {
  absl::StatusOr<Task> task = ParseTask(options.task_name);
  if (!task.ok()) {
    return Refuse("--task", options.task_name, absl::StrCat("must be one of ", TaskNames()));
  }
  options.job.task = *task;
  if (command["--prompt"]->count() > 0 && options.job.prompt.empty()) {
    return absl::InvalidArgumentError("--prompt is empty: a model needs at least one token");
  }
  absl::StatusOr<InputFormat> format = ParseFormat(options.format_name);
  if (!format.ok()) return format.status();
  options.format = *format;
  const auto option = [](const std::string& field) {
    return absl::StrCat("--", absl::StrReplaceAll(field, {{"_", "-"}}));
  };
  return CheckFieldsGiven(
      options.job, [&](const std::string& field) { return command[option(field)]->count() > 0; },
      option);
}

absl::Status FinishRunOptions(const CLI::App& run, RunOptions& options) {
  absl::Status status = FinishJobOptions(run, options);
  if (!status.ok()) return status;
  absl::StatusOr<ModelOptions> model = ParseDevice(options.device_name, options.dtype_name);
  if (!model.ok()) return model.status();
  options.model = *model;
  status = CheckThreads(options.threads);
  if (status.ok()) status = CheckOutput(run, options);
  if (status.ok() && !(options.checkpoint_seconds >= 0 && options.checkpoint_seconds <= 86400)) {
    status = Refuse("--checkpoint", absl::StrCat(options.checkpoint_seconds),
                    "must be 0 to 86400 seconds");
  }
  return status;
}

}  // namespace longwave

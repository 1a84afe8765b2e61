// The command line of `longwave run`.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/token_input.h"
#include "scheduler/job.h"
#include "worker/model/model.h"

namespace CLI {
class App;
}

namespace longwave {

// What a job is, for whoever runs it.
struct JobOptions {
  JobSpec job;
  InputFormat format = InputFormat::kAuto;

  // As typed: FinishJobOptions() reads them.
  std::string task_name = "score", format_name = "auto";
};

struct RunOptions : JobOptions {
  std::string out;  // empty: none
  int threads = 0;  // 0: one for each processor
  int64_t cache_budget_bytes = DefaultCacheBudget();
  double checkpoint_seconds = 2;  // between points from which an interrupted run can go on
  bool json = false;
  bool quiet = false;

  // generate: text goes to standard output as it is made. There JSON owns it, and a quiet run that
  // writes a file wants none.
  bool StreamsText() const {
    return job.task == Task::kGenerate && !json && !(quiet && !out.empty());
  }

  ModelOptions model;  // device and dtype

  // As typed: Finish() reads them.
  std::string device_name = "auto", dtype_name = "auto";

  // Half of the machine's memory, 8 GiB at most.
  static int64_t DefaultCacheBudget();
};

int64_t PhysicalMemoryBytes();

// MODEL, INPUT and the options that are the job's; they are stored in `options`, which must outlive
// the parsing.
void AddJobOptions(CLI::App& command, JobOptions& options);
// After parsing. Names every refused value.
absl::Status FinishJobOptions(const CLI::App& command, JobOptions& options);

// Adds the options to `run`; they are stored in `options`, which must outlive the parsing.
void AddRunOptions(CLI::App& run, RunOptions& options);
// After parsing: what was typed becomes values, and all of it is checked. Names every refused
// value.
absl::Status FinishRunOptions(const CLI::App& run, RunOptions& options);
// "auto", "bytes", "fasta", "npy". Names a refused value.
absl::StatusOr<InputFormat> ParseFormat(const std::string& name);
// Threads a person may ask for. Names a refused value.
absl::Status CheckThreads(int threads);

}  // namespace longwave

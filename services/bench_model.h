// A model's benchmark: a named shape with random weights, so that no checkpoint is needed; one long
// sequence scored, or a batch of prompts continued.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "services/bench_timer.h"
#include "worker/model/model.h"

namespace longwave {

struct ModelBenchOptions {
  std::string shape = "h3-125m";  // as NamedShape() knows it
  ModelOptions model;
  std::string task = "score";  // or "generate"
  int64_t chunk = 65536;       // the most tokens of a sequence in one pass
  int64_t tokens = 1 << 20;    // score: of the sequence
  int64_t batch = 64;          // generate: sequences
  int64_t prompt = 512;        // generate: tokens of each prompt
  int64_t new_tokens = 128;    // generate: to make of each
  int runs = 5;                // after one that is not counted
  int threads = 0;             // of the CPU; 0: all
};

struct ModelBenchResult {
  int64_t parameters = 0, weight_bytes = 0;
  Timing run;                    // seconds of one whole run
  double tokens_per_second = 0;  // score: of the sequence; generate: made, the prompt's time too
  double prompt_seconds = 0;     // generate: of the last run, until the prompts were through
  int64_t peak_bytes = 0;        // of the device's memory; on the CPU, of the process
  std::map<std::string, double> part_seconds;  // of one more run, in which each part is timed
  double mean_nats = 0;  // score: near log(vocabulary), the weights being random
};

absl::StatusOr<ModelBenchResult> BenchModel(const ModelBenchOptions& options);

}  // namespace longwave

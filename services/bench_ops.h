// The operators' benchmark: each one's time per token and channel at several lengths, its rates,
// and its ratio to a baseline of the same run. Every operator's result is checked before it is
// timed.
//
// On a GPU the times are between events on the device, each run after the cache was flushed, and
// every shape has about `tokens` tokens in all: sequences of L tokens, tokens / L of them.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/stream.h"

namespace longwave {

struct BenchOptions {
  std::string only;                 // operators whose name contains this; empty: all
  std::vector<int64_t> lengths;     // empty: the device's usual ones
  std::optional<int64_t> channels;  // 32 on a CPU, 768 on a GPU
  int64_t pairs = 32;               // 64 states
  int threads = 0;                  // 0: all
  std::optional<double> seconds;    // of each measurement, at least: 0.5 on a CPU, 0.03 on a GPU
  int64_t tokens = 1 << 20;         // of a GPU's shapes, all sequences together
  std::vector<Dtype> dtypes;        // of a GPU's activations; empty: all
};

struct BenchRow {
  std::string op;  // "SsmConv dual"
  int64_t length;  // tokens
  int64_t channels;
  double ns;  // per token and channel, median
  double ns_fastest, ns_slowest;
  double gigabytes;      // per second: arrays read and written once
  double gigaflops;      // per second: useful operations, the padding of tiles not counted
  std::string baseline;  // "LongConv", "copy", "sgemm"
  double ratio;          // baseline's time for the same work over this one's: above 1 is faster
  double error;          // relative, against float64
  int64_t batch = 1;
  Dtype dtype = Dtype::kFloat32;
  int runs = 0;
  double tolerance = 0;  // of the error
};

// What a GPU's operators could not do, or did wrongly: the run goes on.
struct BenchFailure {
  std::string op;
  int64_t length, channels;
  Dtype dtype;
  std::string reason;
};

// Calls `row` for each measurement as it comes.
// InvalidArgument: options out of range. Internal: an operator's result is wrong.
absl::Status BenchOps(const BenchOptions& options, absl::FunctionRef<void(const BenchRow&)> row);

// The same on a GPU. Internal after the last row where anything failed.
absl::Status BenchOpsCuda(const BenchOptions& options, std::unique_ptr<gpu::Queue> queue,
                          absl::FunctionRef<void(const BenchRow&)> row,
                          absl::FunctionRef<void(const BenchFailure&)> failure);

// Ranges of the options, which all have values, and that `only` names one of `ops`.
absl::Status CheckBenchOptions(const BenchOptions& options, const std::vector<std::string>& ops);

}  // namespace longwave

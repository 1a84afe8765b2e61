// The operators' benchmark: each one's time per token and channel at several lengths, its rates,
// and its ratio to a baseline of the same run. Every operator's result is checked before it is
// timed.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace longwave {

struct BenchOptions {
  std::string only;  // operators whose name contains this; empty: all
  std::vector<int64_t> lengths = {1024, 65536, 1048576};
  int64_t channels = 32;
  int64_t pairs = 32;    // 64 states
  int threads = 0;       // 0: all
  double seconds = 0.5;  // of each measurement, at least
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
  double error;          // relative, against float64 on a prefix
};

// Calls `row` for each measurement as it comes.
absl::Status BenchOps(const BenchOptions& options, absl::FunctionRef<void(const BenchRow&)> row);

}  // namespace longwave

// What a run has done, for people and for programs.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "boost/json/object.hpp"

namespace longwave {

struct SequenceReport {
  std::string name;
  int64_t tokens = 0;                // of the input
  std::optional<double> mean_nats;   // score, of two tokens or more
  std::optional<int64_t> generated;  // generate: tokens made
  std::optional<std::string> text;   // generate: what they spell, kept only for JSON
  std::vector<int32_t> ids;          // generate, a model without a tokenizer: the same
  std::string output;                // empty: none
};

struct RunReport {
  std::string model, task, device, dtype;
  std::string device_name;  // of a GPU
  int64_t chunk = 0;
  int threads = 0;
  int64_t tokens = 0;          // of all sequences, those generated too
  int64_t resumed_tokens = 0;  // of these, by an earlier run
  double seconds = 0;
  std::vector<SequenceReport> sequences;
  std::vector<std::string> outputs;

  double tokens_per_second() const { return seconds > 0 ? (tokens - resumed_tokens) / seconds : 0; }
};

double BitsPerToken(double mean_nats);
boost::json::object ToJson(const RunReport& report);
// "chr1: 1,000 tokens, mean 1.2717 nats, 1.8346 bits per token -> out.npy", with a newline.
std::string SequenceLine(const SequenceReport& sequence);
// "1,000 tokens in 2.0 s: 500 tokens/s", with a newline.
std::string TotalLine(const RunReport& report);

}  // namespace longwave

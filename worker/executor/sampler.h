// Sampler: the next token from logits. The same options and logits give the same tokens on every
// machine: std::mt19937_64 is defined to the bit, and the uniform numbers are made from it here,
// since std::uniform_real_distribution is not.
//
// Thread safety: one caller at a time.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace longwave {

struct SamplerOptions {
  double temperature = 0;  // 0: greedy, the most probable token, the lowest id among equals
  int64_t top_k = 0;       // only the k most probable tokens; 0: all
  double top_p = 1;        // of those, the fewest whose probabilities add up to p; 1: all
  uint64_t seed = 0;

  absl::Status Validate() const;
};

class Sampler {
 public:
  // REQUIRES: options.Validate().ok().
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  // Internal where a logit is not finite: then the model's arithmetic has failed.
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits);
  // As if so many tokens had been sampled: each that is drawn takes one number.
  void Skip(int64_t tokens) { random_.discard(static_cast<unsigned long long>(tokens)); }

 private:
  struct Candidate {
    int32_t token;
    double probability;  // not normalised: the most probable token has 1
  };
  double Uniform();  // in [0, 1), 53 bits
  void KeepTopK(absl::Span<const float> logits);
  void KeepTopP();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
};

}  // namespace longwave

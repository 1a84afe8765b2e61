#include "worker/executor/sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace longwave {

absl::Status SamplerOptions::Validate() const {
  if (!(temperature >= 0) || std::isinf(temperature)) {
    return absl::InvalidArgumentError(absl::StrCat("temperature ", temperature, " is negative"));
  }
  if (top_k < 0) return absl::InvalidArgumentError(absl::StrCat("top-k ", top_k, " is negative"));
  if (!(top_p > 0 && top_p <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("top-p ", top_p, " is not in (0, 1]"));
  }
  return absl::OkStatus();
}

double Sampler::Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

// Fills candidates_, most probable first where anything depends on the order.
void Sampler::KeepTopK(absl::Span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates_.push_back(
        {static_cast<int32_t>(i), std::exp((logits[i] - most) / options_.temperature)});
  }
  const int64_t all = static_cast<int64_t>(candidates_.size());
  const int64_t kept = options_.top_k == 0 ? all : std::min(options_.top_k, all);
  if (kept == all && options_.top_p == 1) return;
  // By logit: at a small temperature different logits may give equal probabilities (zero).
  std::partial_sort(candidates_.begin(), candidates_.begin() + kept, candidates_.end(),
                    [&](const Candidate& a, const Candidate& b) {
                      const float x = logits[a.token], y = logits[b.token];
                      return x != y ? x > y : a.token < b.token;
                    });
  candidates_.resize(kept);
}

void Sampler::KeepTopP() {
  if (options_.top_p == 1) return;
  double total = 0, sum = 0;
  for (const Candidate& candidate : candidates_) total += candidate.probability;
  size_t kept = 0;
  do {
    sum += candidates_[kept++].probability;
  } while (kept < candidates_.size() && sum < options_.top_p * total);
  candidates_.resize(kept);
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      return absl::InternalError(absl::StrCat("the logit of token ", i, " is ", logits[i]));
    }
  }
  if (options_.temperature == 0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  KeepTopK(logits);
  KeepTopP();
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.probability;
  double left = Uniform() * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.probability;
    if (left < 0) return candidate.token;
  }
  // Rounding has used up the sum: the last that can be drawn at all.
  const auto last = std::find_if(candidates_.rbegin(), candidates_.rend(),
                                 [](const Candidate& c) { return c.probability > 0; });
  return last->token;
}

}  // namespace longwave

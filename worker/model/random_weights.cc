#include "worker/model/random_weights.h"

#include <cmath>

#include "absl/strings/match.h"

namespace longwave {
namespace {

// What a tensor's values are made of: mean + scale u, u uniform with variance one.
struct Spread {
  double mean, scale;
};

Spread SpreadOf(const std::string& name, const std::vector<int64_t>& shape) {
  const auto is = [&](const char* end) { return absl::EndsWith(name, end); };
  const bool shift = absl::StrContains(name, "ssm_k_kernel");
  if (is("log_dt")) return {std::log(1e-2), std::log(10.0) / std::sqrt(3.0)};
  if (is("inv_A_real") || is("log_A_real")) return {std::log(0.5), 0.1};
  if (is("kernel.B") || is("kernel.C")) return {!shift && is("B") ? 1.0 : 0.0, shift ? 0.3 : 1.0};
  if (is("word_embeddings.weight")) return {0, 0.02};
  if (is(".bias")) return {0, 0.02};
  if (shape.size() == 1) return {is("D") ? 0.0 : 1.0, is("D") ? 1.0 : 0.1};  // skips and norms
  return {0, 1 / std::sqrt(static_cast<double>(shape[1]))};
}

}  // namespace

std::vector<float> RandomWeights(const std::string& name, const std::vector<int64_t>& shape,
                                 uint64_t seed) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  std::vector<float> values(count);
  if (absl::EndsWith(name, "A_imag")) {
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(M_PI * (i % shape.back()));
    return values;
  }
  uint64_t x = seed + 0x9e3779b97f4a7c15u;
  for (const char c : name) x = (x ^ static_cast<uint8_t>(c)) * 0x100000001b3u;  // FNV
  const Spread spread = SpreadOf(name, shape);
  const float scale = static_cast<float>(spread.scale * std::sqrt(12.0) * 0x1p-32);
  const float mean = static_cast<float>(spread.mean);
  for (int64_t i = 0; i < count; ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    values[i] = mean + scale * static_cast<float>(static_cast<int32_t>(x >> 32));
  }
  return values;
}

}  // namespace longwave

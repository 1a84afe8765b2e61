#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace longwave {
namespace {

constexpr int64_t kPage = KvCache::kPageTokens;
constexpr int64_t kQueries = 64;  // rows of a tile: scores (64, 256) stay in a second-level cache

// Turns features (i, i + dim/2) of x, i < dim/2, by position * 10000^(-2i/dim); cos and sin:
// (dim/2).
void Rotate(const float* cos, const float* sin, int64_t dim, float* x) {
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

// One token: q turned in place, k (turned) and v written to the cache.
void StoreToken(const AttentionDesc& desc, int64_t position, float* qkv, KvCache& cache,
                float* scratch) {
  const int64_t hd = desc.head_dim, half = desc.rotary_dim / 2;
  float *cos = scratch, *sin = scratch + half;
  for (int64_t i = 0; i < half; ++i) {
    const double angle =
        static_cast<double>(position) *
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(desc.rotary_dim));
    cos[i] = static_cast<float>(std::cos(angle));
    sin[i] = static_cast<float>(std::sin(angle));
  }
  for (int64_t h = 0; h < desc.heads; ++h) {
    float* q = qkv + h * hd;
    const float *k = q + desc.width(), *v = k + desc.width();
    const int64_t offset = (h * kPage + position % kPage) * hd;
    float* key = cache.keys(position / kPage) + offset;
    std::copy_n(k, hd, key);
    std::copy_n(v, hd, cache.values(position / kPage) + offset);
    Rotate(cos, sin, desc.rotary_dim, q);
    Rotate(cos, sin, desc.rotary_dim, key);
  }
}

// One head, `rows` queries from position `first` on: online softmax over the pages of keys.
void RunTile(const AttentionDesc& desc, int64_t head, int64_t first, int64_t rows, const float* q,
             KvCache& cache, float* out, float* scratch) {
  const int64_t hd = desc.head_dim, q_stride = 3 * desc.width();
  float* scores = scratch;                 // (kQueries, kPage)
  float* sum = scores + kQueries * kPage;  // (kQueries, hd)
  float max[kQueries], weight[kQueries];
  std::fill_n(max, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(weight, rows, 0.0f);
  std::fill_n(sum, rows * hd, 0.0f);
  const float scale = 1.0f / std::sqrt(static_cast<float>(hd));
  for (int64_t page = 0; page * kPage < first + rows; ++page) {
    const int64_t keys = std::min(kPage, first + rows - page * kPage);
    Sgemm(false, true, rows, keys, hd, q, q_stride, cache.keys(page) + head * kPage * hd, hd, false,
          scores, kPage);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * kPage;
      const int64_t seen = std::clamp<int64_t>(first + r + 1 - page * kPage, 0, keys);
      std::fill(row + seen, row + keys, 0.0f);
      if (seen == 0) continue;
      Scale(scale, row, seen);
      const float best = std::max(max[r], MaxOf(row, seen));
      const float fade = std::exp(max[r] - best);
      weight[r] = weight[r] * fade + ExpSum(row, seen, best, true);
      if (fade != 1.0f) Scale(fade, sum + r * hd, hd);
      max[r] = best;
    }
    Sgemm(false, false, rows, hd, keys, scores, kPage, cache.values(page) + head * kPage * hd, hd,
          true, sum, hd);
  }
  for (int64_t r = 0; r < rows; ++r) {
    Scale(1.0f / weight[r], sum + r * hd, hd);
    std::copy_n(sum + r * hd, hd, out + r * desc.width());
  }
}

}  // namespace

void KvCache::Clear() {
  pages_.clear();
  tokens_ = 0;
}

int64_t KvCache::Bytes(int64_t heads, int64_t head_dim, int64_t tokens) {
  return (tokens + kPage - 1) / kPage * 2 * heads * kPage * head_dim *
         static_cast<int64_t>(sizeof(float));
}

void KvCache::Extend(int64_t count) {
  tokens_ += count;
  while (pages() * kPage < tokens_) {
    pages_.push_back(AllocateFloats(2 * heads_ * kPage * head_dim_));
  }
}

absl::Status AttentionDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "heads", heads, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "head_dim", head_dim, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "length", length, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "rotary_dim", rotary_dim, 0, head_dim));
  if (rotary_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Attention: rotary_dim = ", rotary_dim, " is odd"));
  }
  return absl::OkStatus();
}

std::string AttentionDesc::ToString() const {
  return absl::StrCat("Attention(heads=", heads, " head_dim=", head_dim, " length=", length,
                      " rotary_dim=", rotary_dim, ")");
}

int64_t AttentionDesc::scratch_floats() const { return kQueries * (kPage + head_dim) + rotary_dim; }

absl::Status RunAttention(const AttentionDesc& desc, float* qkv, KvCache& cache, float* out,
                          Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  const int64_t past = cache.tokens(), width = desc.width();
  cache.Extend(desc.length);
  constexpr int64_t kTokens = 64;
  stream.pool().ParallelFor((desc.length + kTokens - 1) / kTokens, [&](int64_t i, int worker) {
    float* scratch = stream.Scratch(worker, desc.scratch_floats());
    for (int64_t t = i * kTokens; t < std::min(desc.length, (i + 1) * kTokens); ++t) {
      StoreToken(desc, past + t, qkv + t * 3 * width, cache, scratch);
    }
  });
  const int64_t tiles = (desc.length + kQueries - 1) / kQueries;
  stream.pool().ParallelFor(desc.heads * tiles, [&](int64_t i, int worker) {
    const int64_t head = i % desc.heads;
    const int64_t t = (tiles - 1 - i / desc.heads) * kQueries;  // the longest rows first
    const int64_t column = head * desc.head_dim;
    RunTile(desc, head, past + t, std::min(kQueries, desc.length - t), qkv + t * 3 * width + column,
            cache, out + t * width + column, stream.Scratch(worker, desc.scratch_floats()));
  });
  return absl::OkStatus();
}

}  // namespace longwave

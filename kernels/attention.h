// Causal softmax attention with optional rotary embedding and a cache that streams chunk by chunk.
// Online softmax over pages of keys (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135): no (length x length) array. Rotary: non-interleaved halves, base 10000 (Su et al.,
// arXiv 2104.09864), on the first rotary_dim features of each head of q and k.
//
// Thread safety: a KvCache belongs to one sequence and one caller at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/aligned.h"
#include "kernels/stream.h"

namespace longwave {

struct AttentionDesc {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t length = 0;      // tokens of the chunk
  int64_t rotary_dim = 0;  // 0: none; even, at most head_dim

  int64_t width() const { return heads * head_dim; }
  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;  // for each thread
};

// Keys (rotated) and values of all tokens so far, in pages, so that growth never copies.
class KvCache {
 public:
  static constexpr int64_t kPageTokens = 256;

  KvCache(int64_t heads, int64_t head_dim) : heads_(heads), head_dim_(head_dim) {}
  int64_t tokens() const { return tokens_; }
  void Clear();
  // Bytes that `tokens` tokens take.
  static int64_t Bytes(int64_t heads, int64_t head_dim, int64_t tokens);

  // Makes room for `count` more tokens and counts them; their contents are for the caller to write.
  void Extend(int64_t count);
  int64_t pages() const { return static_cast<int64_t>(pages_.size()); }
  // (heads, kPageTokens, head_dim) each.
  float* keys(int64_t page) { return pages_[page].get(); }
  float* values(int64_t page) { return keys(page) + heads_ * kPageTokens * head_dim_; }

 private:
  int64_t heads_, head_dim_, tokens_ = 0;
  std::vector<AlignedFloats> pages_;
};

// qkv: (length, 3, heads, head_dim); q is rotated in place. out: (length, heads, head_dim). The
// chunk's first token has position cache.tokens(), and the chunk is appended to the cache.
absl::Status RunAttention(const AttentionDesc& desc, float* qkv, KvCache& cache, float* out,
                          Stream& stream);

}  // namespace longwave

// Causal softmax attention with optional rotary embedding and a cache that streams chunk by chunk.
// Online softmax over pages of keys (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv
// 2205.14135): no (length x length) array. Rotary: non-interleaved halves, base 10000 (Su et al.,
// arXiv 2104.09864), on the first rotary_dim features of each head of q and k.
//
// On a GPU, where batch sequences of one length run together: 16-bit chunks of 16 tokens or more by
// tensor-core tiles; everything else (a step, float32, odd head dimensions) by a kernel that splits
// the cache between blocks and runs at the memory's speed.
//
// Thread safety: a KvCache belongs to one sequence (or batch of them) and one caller at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/aligned.h"
#include "kernels/dtype.h"
#include "kernels/stream.h"

namespace longwave {

struct AttentionDesc {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t length = 0;      // tokens of the chunk
  int64_t rotary_dim = 0;  // 0: none; even, at most head_dim
  int64_t batch = 1;       // the CPU has 1 only
  Dtype dtype = Dtype::kFloat32;

  int64_t width() const { return heads * head_dim; }
  absl::Status Validate() const;
  std::string ToString() const;
  int64_t scratch_floats() const;  // for each thread of the CPU
  int64_t gpu_scratch_bytes(const Device& device) const;
};

// Keys and values of some tokens, as float32 on the host: (batch, heads, tokens, head_dim) each.
struct CacheRows {
  int64_t tokens = 0;
  std::vector<float> keys, values;
};

// Keys (rotated) and values of all tokens so far. On the CPU: of one sequence, float32, in pages,
// so that growth never copies. On a GPU: of `batch` sequences with equally many tokens, in one
// array that grows by doubling.
class KvCache {
 public:
  static constexpr int64_t kPageTokens = 256;

  KvCache(int64_t heads, int64_t head_dim) : heads_(heads), head_dim_(head_dim) {}
  // Room for `capacity` tokens of each sequence on a GPU.
  static absl::StatusOr<KvCache> OnGpu(const Device& device, int64_t batch, int64_t heads,
                                       int64_t head_dim, Dtype dtype, int64_t capacity);
  int64_t heads() const { return heads_; }
  int64_t head_dim() const { return head_dim_; }
  int64_t tokens() const { return tokens_; }
  // Forgets all tokens; a GPU's memory stays.
  void Clear();
  // Bytes that `tokens` tokens take, on the CPU, and on a GPU with that capacity.
  static int64_t Bytes(int64_t heads, int64_t head_dim, int64_t tokens);
  static int64_t GpuBytes(int64_t batch, int64_t heads, int64_t head_dim, Dtype dtype,
                          int64_t capacity) {
    return 2 * batch * heads * head_dim * capacity * SizeOf(dtype);
  }

  // Counts `count` more tokens; their contents are for the caller to write. On the CPU makes room
  // for them; on a GPU there must be room (Reserve).
  void Extend(int64_t count);

  // The tokens from `first` on, and back behind those that are there, perhaps in another cache: on
  // any device, to the bit. Both wait.
  absl::StatusOr<CacheRows> Export(int64_t first, Stream& stream) const;
  absl::Status Append(const CacheRows& rows, Stream& stream);

  // ---- On a GPU
  bool on_gpu() const { return batch_ > 0; }
  // Room for `tokens` tokens of each sequence: where there is less, twice the room or more is
  // allocated, what is there is copied, and the queue waited for. What was captured in a graph with
  // the old memory is invalid then: reserve before.
  absl::Status Reserve(int64_t tokens, Stream& stream);
  int64_t batch() const { return batch_; }
  int64_t capacity() const { return capacity_; }
  // (batch, heads, capacity, head_dim) each, of dtype().
  Dtype dtype() const { return dtype_; }
  void* gpu_keys() const { return gpu_.data(); }
  void* gpu_values() const {
    return gpu_.as<char>() + batch_ * heads_ * head_dim_ * capacity_ * SizeOf(dtype_);
  }

  // ---- On the CPU
  int64_t pages() const { return static_cast<int64_t>(pages_.size()); }
  // (heads, kPageTokens, head_dim) each.
  float* keys(int64_t page) const { return pages_[page].get(); }
  float* values(int64_t page) const { return keys(page) + heads_ * kPageTokens * head_dim_; }

 private:
  // Between `rows`, of `count` tokens, and the cache's tokens from `first` on.
  absl::Status Move(int64_t first, int64_t count, float* keys, float* values, bool out,
                    Stream& stream) const;
  int64_t heads_, head_dim_, tokens_ = 0;
  std::vector<AlignedFloats> pages_;

  int64_t batch_ = 0, capacity_ = 0;
  Dtype dtype_ = Dtype::kFloat32;
  gpu::DeviceArray gpu_;
};

// qkv: (batch * length, 3, heads, head_dim); q is rotated in place. out: (batch * length, heads,
// head_dim). The chunk's first token has position cache.tokens(), and the chunk is appended to the
// cache, which on a GPU reserves what room is missing.
//
// `position`, on a GPU only: where the chunk's first token stands is read from device memory when
// the kernels run, cache.tokens() is neither read nor changed, and nothing is reserved: what a
// graph captures, to be replayed with growing positions. *position + length must stay within
// cache.capacity(): tokens beyond it are dropped. The caller counts by cache.Extend().
absl::Status RunAttention(const AttentionDesc& desc, void* qkv, KvCache& cache, void* out,
                          Stream& stream, const int64_t* position = nullptr);

}  // namespace longwave

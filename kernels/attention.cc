#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "kernels/attention_cuda.h"
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

absl::StatusOr<KvCache> KvCache::OnGpu(const Device& device, int64_t batch, int64_t heads,
                                       int64_t head_dim, Dtype dtype, int64_t capacity) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("KvCache", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("KvCache", "capacity", capacity, 0));
  KvCache cache(heads, head_dim);
  cache.batch_ = batch;
  cache.dtype_ = dtype;
  cache.capacity_ = capacity;
  if (capacity == 0) return cache;
  absl::StatusOr<gpu::DeviceArray> memory =
      gpu::DeviceArray::Allocate(device.index, GpuBytes(batch, heads, head_dim, dtype, capacity));
  if (!memory.ok()) return memory.status();
  cache.gpu_ = *std::move(memory);
  return cache;
}

absl::Status KvCache::Reserve(int64_t tokens, Stream& stream) {
  if (tokens <= capacity_) return absl::OkStatus();
  absl::StatusOr<KvCache> larger = OnGpu(stream.device(), batch_, heads_, head_dim_, dtype_,
                                         std::max({tokens, 2 * capacity_, kPageTokens}));
  if (!larger.ok()) return larger.status();
  const int64_t row = head_dim_ * SizeOf(dtype_);
  // All that there was room for: positions read on the device may be ahead of tokens_.
  if (capacity_ > 0) {
    for (const auto& [from, to] : {std::pair{gpu_keys(), larger->gpu_keys()},
                                   std::pair{gpu_values(), larger->gpu_values()}}) {
      LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyRowsOnDevice(
          to, larger->capacity_ * row, from, capacity_ * row, capacity_ * row, batch_ * heads_));
    }
    LONGWAVE_RETURN_IF_ERROR(stream.queue().Synchronize());
  }
  gpu_ = std::move(larger->gpu_);
  capacity_ = larger->capacity_;
  return absl::OkStatus();
}

int64_t KvCache::Bytes(int64_t heads, int64_t head_dim, int64_t tokens) {
  return (tokens + kPage - 1) / kPage * 2 * heads * kPage * head_dim *
         static_cast<int64_t>(sizeof(float));
}

void KvCache::Extend(int64_t count) {
  tokens_ += count;
  if (on_gpu()) return;
  while (pages() * kPage < tokens_) {
    pages_.push_back(AllocateFloats(2 * heads_ * kPage * head_dim_));
  }
}

absl::Status KvCache::Move(int64_t first, int64_t count, float* keys, float* values, bool out,
                           Stream& stream) const {
  if (!on_gpu()) {
    for (int64_t h = 0; h < heads_; ++h) {
      for (int64_t t = first; t < first + count; ++t, keys += head_dim_, values += head_dim_) {
        const int64_t offset = (h * kPage + t % kPage) * head_dim_;
        float *key = this->keys(t / kPage) + offset, *value = this->values(t / kPage) + offset;
        std::copy_n(out ? key : keys, head_dim_, out ? keys : key);
        std::copy_n(out ? value : values, head_dim_, out ? values : value);
      }
    }
    return absl::OkStatus();
  }
  const int64_t size = SizeOf(dtype_), part = count * head_dim_;
  std::vector<char> raw(part * size);
  for (int64_t h = 0; h < batch_ * heads_; ++h) {
    const int64_t offset = (h * capacity_ + first) * head_dim_ * size;
    for (auto [device, host] : {std::pair{gpu_keys(), keys}, std::pair{gpu_values(), values}}) {
      void* at = static_cast<char*>(device) + offset;
      if (out) {
        LONGWAVE_RETURN_IF_ERROR(CopyOut(raw.data(), at, part * size, stream));
        ToFloats(dtype_, raw.data(), part, host + h * part);
      } else {
        FromFloats(dtype_, host + h * part, part, raw.data());
        LONGWAVE_RETURN_IF_ERROR(CopyIn(at, raw.data(), part * size, stream));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CacheRows> KvCache::Export(int64_t first, Stream& stream) const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("KvCache", "first", first, 0, tokens_));
  CacheRows rows;
  rows.tokens = tokens_ - first;
  const int64_t size = std::max<int64_t>(batch_, 1) * heads_ * rows.tokens * head_dim_;
  rows.keys.resize(size);
  rows.values.resize(size);
  const absl::Status moved =
      Move(first, rows.tokens, rows.keys.data(), rows.values.data(), true, stream);
  if (!moved.ok()) return moved;
  return rows;
}

absl::Status KvCache::Append(const CacheRows& rows, Stream& stream) {
  const int64_t size = std::max<int64_t>(batch_, 1) * heads_ * rows.tokens * head_dim_;
  for (const std::vector<float>* values : {&rows.keys, &rows.values}) {
    LONGWAVE_RETURN_IF_ERROR(
        CheckRange("KvCache", "values", static_cast<int64_t>(values->size()), size, size));
  }
  const int64_t first = tokens_;
  if (on_gpu()) LONGWAVE_RETURN_IF_ERROR(Reserve(first + rows.tokens, stream));
  Extend(rows.tokens);
  return Move(first, rows.tokens, const_cast<float*>(rows.keys.data()),
              const_cast<float*>(rows.values.data()), false, stream);
}

absl::Status AttentionDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "heads", heads, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "head_dim", head_dim, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "length", length, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "rotary_dim", rotary_dim, 0, head_dim));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention", "batch", batch, 1, 1 << 16));
  if (rotary_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("Attention: rotary_dim = ", rotary_dim, " is odd"));
  }
  return absl::OkStatus();
}

std::string AttentionDesc::ToString() const {
  return absl::StrCat("Attention(heads=", heads, " head_dim=", head_dim, " length=", length,
                      " rotary_dim=", rotary_dim, batch == 1 ? "" : absl::StrCat(" batch=", batch),
                      dtype == Dtype::kFloat32 ? "" : absl::StrCat(" ", Name(dtype)), ")");
}

int64_t AttentionDesc::scratch_floats() const { return kQueries * (kPage + head_dim) + rotary_dim; }

AttentionCudaPlan PlanAttentionCuda(const AttentionDesc& desc, const Device& device, bool aligned) {
  AttentionCudaPlan plan;
  plan.tiles = aligned && desc.dtype != Dtype::kFloat32 && desc.length >= 16 &&
               desc.head_dim % 8 == 0 && desc.head_dim <= 128;
  if (plan.tiles) {
    plan.padded_dim = desc.head_dim <= 32 ? 32 : desc.head_dim <= 64 ? 64 : 128;
    return plan;
  }
  plan.padded_dim = 8;
  while (plan.padded_dim < desc.head_dim) plan.padded_dim *= 2;
  // Enough blocks for eight on each multiprocessor, so that the last to end do not count.
  const int64_t blocks = desc.batch * desc.heads * desc.length;
  const int64_t wanted = 8 * std::max(1, device.multiprocessors);
  plan.splits = std::clamp<int64_t>((wanted + blocks - 1) / blocks, 1, 64);
  if (plan.splits > 1) plan.scratch_bytes = blocks * plan.splits * (desc.head_dim + 2) * 4;
  return plan;
}

int64_t AttentionDesc::gpu_scratch_bytes(const Device& device) const {
  return PlanAttentionCuda(*this, device).scratch_bytes;
}

absl::Status RunAttention(const AttentionDesc& desc, void* qkv_data, KvCache& cache, void* out_data,
                          Stream& stream, const int64_t* position) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (stream.device().is_gpu()) {
    return RunAttentionCuda(desc, qkv_data, cache, out_data, position, stream);
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Attention", "dtype", desc.dtype));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Attention on the CPU", "batch", desc.batch, 1, 1));
  if (position != nullptr || cache.on_gpu()) {
    return absl::InvalidArgumentError("Attention on the CPU: a position or a cache on a GPU");
  }
  float *qkv = static_cast<float*>(qkv_data), *out = static_cast<float*>(out_data);
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

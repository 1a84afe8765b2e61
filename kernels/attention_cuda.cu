// Attention on a GPU, three kernels:
//   StoreTokens  q turned in place; k, turned, and v to the cache (batch, heads, capacity,
//   head_dim) Tiles        a chunk, 16-bit: online softmax over tiles of 64 keys (Dao et al., arXiv
//                2205.14135), a block of four warps for 64 queries of a head. A warp keeps its 16
//                queries and their sums in registers, scores and weights stay there too; keys and
//                values come through shared memory, two tiles deep, in rows padded by 16 bytes so
//                that no two of the eight rows of a matrix load meet in a bank.
//   Split        a query at a time: the cache cut into `splits` ranges, a block for each (query,
//                head, range); `lanes` lanes hold a key's or a value's row, 16 bytes each, four
//                keys and four values in flight; Combine joins the ranges. Bound by the cache's
//                bytes.
// Where the chunk stands is a number or is read from device memory (for graphs).
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/attention_cuda.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"

namespace longwave {
namespace {

struct AttentionParams {
  void* qkv;  // (batch * length, 3, heads, head_dim)
  void *keys, *values;
  void* out;
  float* partial;  // (queries, splits, head_dim + 2)
  const int64_t* position;
  int64_t past, capacity, batch, length;
  int heads, head_dim, rotary_dim, splits;
  float scale;   // of scores, with log2(e): weights are powers of two
  bool vectors;  // rows of the cache and of qkv are aligned to 16 bytes
};

LONGWAVE_DEVICE int64_t Past(const AttentionParams& p) {
  return p.position == nullptr ? p.past : *p.position;
}

// 2^(from - to), right also where both are -infinity.
LONGWAVE_DEVICE float Fade(float from, float to) { return from == to ? 1.0f : exp2f(from - to); }

// Blocks of tokens x parts of the width: all of it, or for few tokens a value for each thread.
template <typename T>
__global__ void __launch_bounds__(256) StoreTokens(const AttentionParams p) {
  const int half = p.rotary_dim / 2, thread = static_cast<int>(threadIdx.x);
  float* cosines = reinterpret_cast<float*>(gpu::DynamicShared());  // (half)
  float* sines = cosines + half;
  const int64_t token = blockIdx.x;
  const int64_t position = Past(p) + token % p.length;
  // The angle in float64, less whole turns: a float32 angle of 1e6 would be off by 0.03.
  for (int i = thread; i < half; i += 256) {
    const double turns =
        static_cast<double>(position) * pow(10000.0, -2.0 * i / p.rotary_dim) * 0.15915494309189535;
    const float angle = static_cast<float>((turns - rint(turns)) * 6.283185307179586);
    cosines[i] = cosf(angle);
    sines[i] = sinf(angle);
  }
  gpu::SyncBlock();
  const int width = p.heads * p.head_dim;
  T* q = static_cast<T*>(p.qkv) + token * 3 * width;
  const bool kept = position < p.capacity;
  for (int i = static_cast<int>(blockIdx.y) * 256 + thread; i < width;
       i += 256 * static_cast<int>(gridDim.y)) {
    const int head = i / p.head_dim, feature = i % p.head_dim;
    if (feature >= half && feature < p.rotary_dim) continue;  // with its partner
    const int64_t to =
        ((token / p.length * p.heads + head) * p.capacity + position) * p.head_dim + feature;
    T* key = static_cast<T*>(p.keys) + to;
    T* value = static_cast<T*>(p.values) + to;
    if (feature >= half) {
      if (kept) *key = q[width + i];
      if (kept) *value = q[2 * width + i];
      continue;
    }
    const float c = cosines[feature], s = sines[feature];
    const float q0 = gpu::ToFloat(q[i]), q1 = gpu::ToFloat(q[i + half]);
    q[i] = gpu::FromFloat<T>(q0 * c - q1 * s);
    q[i + half] = gpu::FromFloat<T>(q1 * c + q0 * s);
    if (!kept) continue;
    const float k0 = gpu::ToFloat(q[width + i]), k1 = gpu::ToFloat(q[width + i + half]);
    key[0] = gpu::FromFloat<T>(k0 * c - k1 * s);
    key[half] = gpu::FromFloat<T>(k1 * c + k0 * s);
    value[0] = q[2 * width + i];
    value[half] = q[2 * width + i + half];
  }
}

// ---- A chunk

constexpr int kQueries = 64, kKeys = 64, kTileThreads = 128;

// kDim: head_dim, filled up with zeros.
template <int kDim>
constexpr int kPitch = kDim + 8;
template <int kDim>
constexpr int64_t kTileShared = 2 * 2 * kKeys* kPitch<kDim> * 2;

// Keys and values [first, first + 64) to shared memory, one after the other; those at `end` and
// beyond as zeros.
template <typename T, int kDim>
LONGWAVE_DEVICE void FetchTile(const T* keys, const T* values, int64_t first, int64_t end,
                               int head_dim, T* tile) {
  constexpr int kPieces = kDim / 8;              // of 16 bytes, of a row
  constexpr int kRows = kTileThreads / kPieces;  // at a time
  const int row = static_cast<int>(threadIdx.x) / kPieces;
  const int column = static_cast<int>(threadIdx.x) % kPieces * 8;
  const int rows = column < head_dim ? static_cast<int>(std::min<int64_t>(kKeys, end - first)) : 0;
  const int64_t from = (first + row) * head_dim + column;
  T* to = tile + row * kPitch<kDim> + column;
  LONGWAVE_UNROLL for (int i = 0; i < kKeys / kRows; ++i) {
    const bool there = row + i * kRows < rows;
    const int64_t at = there ? from + i * kRows * head_dim : 0;
    gpu::CopyAsync16(to + i * kRows * kPitch<kDim>, keys + at, there ? 16 : 0);
    gpu::CopyAsync16(to + (kKeys + i * kRows) * kPitch<kDim>, values + at, there ? 16 : 0);
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads) Tiles(const AttentionParams p) {
  constexpr int kRow = kPitch<kDim>, kTile = kKeys * kRow;
  T* shared = reinterpret_cast<T*>(gpu::DynamicShared());  // (2, {keys, values}, 64, kRow)
  const int lane = gpu::Lane(), g = lane / 4, q2 = lane % 4 * 2;
  const int64_t sequences = p.batch * p.heads;
  const int64_t query_tiles = (p.length + kQueries - 1) / kQueries;
  const int64_t sequence = int64_t{blockIdx.x} % sequences;  // (batch, head)
  // The longest first.
  const int64_t first = (query_tiles - 1 - int64_t{blockIdx.x} / sequences) * kQueries;
  const int64_t past = Past(p);
  const int head = static_cast<int>(sequence % p.heads);
  const int64_t token = sequence / p.heads * p.length;  // the first of the chunk
  const int64_t width = int64_t{p.heads} * p.head_dim;
  const T* keys = static_cast<const T*>(p.keys) + sequence * p.capacity * p.head_dim;
  const T* values = static_cast<const T*>(p.values) + sequence * p.capacity * p.head_dim;
  const int64_t end = std::min(p.capacity, past + std::min(p.length, first + kQueries));

  FetchTile<T, kDim>(keys, values, 0, end, p.head_dim, shared);
  gpu::CopyAsyncCommit();

  // This warp's 16 queries; this lane's are rows g and g + 8.
  const int64_t mine = first + gpu::WarpOfBlock() * 16 + g;
  uint32_t query[kDim / 16][4];
  LONGWAVE_UNROLL for (int k = 0; k < kDim / 16; ++k) {
    LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
      const int64_t t = mine + i % 2 * 8;
      const int feature = k * 16 + q2 + i / 2 * 8;
      const T* from = static_cast<const T*>(p.qkv) + (token + t) * 3 * width +
                      int64_t{head} * p.head_dim + feature;
      query[k][i] =
          t < p.length && feature < p.head_dim ? *reinterpret_cast<const uint32_t*>(from) : 0u;
    }
  }
  float sum[kDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, weight[2] = {0, 0};

  const int64_t tiles = (end + kKeys - 1) / kKeys;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const T* key_tile = shared + tile % 2 * 2 * kTile;
    const T* value_tile = key_tile + kTile;
    if (tile + 1 < tiles) {
      FetchTile<T, kDim>(keys, values, (tile + 1) * kKeys, end, p.head_dim,
                         shared + (tile + 1) % 2 * 2 * kTile);
    }
    gpu::CopyAsyncCommit();
    gpu::CopyAsyncWait<1>();
    gpu::SyncBlock();

    // Scores (16, 64) = queries x keys^T.
    float score[kKeys / 8][4] = {};
    LONGWAVE_UNROLL for (int k = 0; k < kDim / 16; ++k) {
      LONGWAVE_UNROLL for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        gpu::LoadMatrices(
            b, key_tile + (n * 16 + lane / 16 * 8 + lane % 8) * kRow + k * 16 + lane / 8 % 2 * 8);
        gpu::Mma(score[2 * n], query[k], b[0], b[1], T());
        gpu::Mma(score[2 * n + 1], query[k], b[2], b[3], T());
      }
    }
    // The last key of this tile that queries g and g + 8 see; 64 and more: all.
    const int64_t last = std::min(past + mine, end - 1) - tile * kKeys;
    const int64_t last_below = std::min(past + mine + 8, end - 1) - tile * kKeys;
    const int sees[2] = {static_cast<int>(std::min<int64_t>(last, kKeys)),
                         static_cast<int>(std::min<int64_t>(last_below, kKeys))};
    LONGWAVE_UNROLL for (int n = 0; n < kKeys / 8; ++n) {
      LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
        score[n][i] = n * 8 + q2 + i % 2 <= sees[i / 2] ? score[n][i] * p.scale : -INFINITY;
      }
    }
    // The first tile holds key 0, which every query sees: `largest` is finite from there on.
    LONGWAVE_UNROLL for (int r = 0; r < 2; ++r) {
      float best = largest[r];
      LONGWAVE_UNROLL for (int n = 0; n < kKeys / 8; ++n) {
        best = fmaxf(best, fmaxf(score[n][2 * r], score[n][2 * r + 1]));
      }
      best = fmaxf(best, gpu::ShuffleXor(best, 1));
      best = fmaxf(best, gpu::ShuffleXor(best, 2));
      const float fade = exp2f(largest[r] - best);
      largest[r] = best;
      weight[r] *= fade;
      LONGWAVE_UNROLL for (int n = 0; n < kKeys / 8; ++n) {
        LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
          const float e = exp2f(score[n][2 * r + i] - best);
          score[n][2 * r + i] = e;
          weight[r] += e;
        }
      }
      LONGWAVE_UNROLL for (int n = 0; n < kDim / 8; ++n) {
        sum[n][2 * r] *= fade;
        sum[n][2 * r + 1] *= fade;
      }
    }
    // sum (16, kDim) += weights x values.
    LONGWAVE_UNROLL for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t a[4] = {gpu::Pack(score[2 * k][0], score[2 * k][1], T()),
                             gpu::Pack(score[2 * k][2], score[2 * k][3], T()),
                             gpu::Pack(score[2 * k + 1][0], score[2 * k + 1][1], T()),
                             gpu::Pack(score[2 * k + 1][2], score[2 * k + 1][3], T())};
      LONGWAVE_UNROLL for (int n = 0; n < kDim / 16; ++n) {
        uint32_t b[4];
        gpu::LoadMatricesTransposed(
            b, value_tile + (k * 16 + lane % 16) * kRow + n * 16 + lane / 16 * 8);
        gpu::Mma(sum[2 * n], a, b[0], b[1], T());
        gpu::Mma(sum[2 * n + 1], a, b[2], b[3], T());
      }
    }
    gpu::SyncBlock();
  }

  LONGWAVE_UNROLL for (int r = 0; r < 2; ++r) {
    float all = weight[r];
    all += gpu::ShuffleXor(all, 1);
    all += gpu::ShuffleXor(all, 2);
    const float inverse = 1.0f / all;
    const int64_t t = mine + r * 8;
    if (t >= p.length) continue;
    T* to = static_cast<T*>(p.out) + (token + t) * width + int64_t{head} * p.head_dim;
    LONGWAVE_UNROLL for (int n = 0; n < kDim / 8; ++n) {
      const int feature = n * 8 + q2;
      if (feature < p.head_dim) {
        *reinterpret_cast<uint32_t*>(to + feature) =
            gpu::Pack(sum[n][2 * r] * inverse, sum[n][2 * r + 1] * inverse, T());
      }
    }
  }
}

// ---- A query at a time

constexpr int kSplitThreads = 128;

// Joins (largest, weight, sum) of lanes or warps.
LONGWAVE_DEVICE void Join(float& largest, float& weight, float (&sum)[8], float other,
                          float other_weight, const float (&other_sum)[8]) {
  const float best = fmaxf(largest, other);
  const float a = Fade(largest, best), b = Fade(other, best);
  weight = weight * a + other_weight * b;
  LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) sum[i] = sum[i] * a + other_sum[i] * b;
  largest = best;
}

// kLanes lanes for a row of 8 kLanes features.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kSplitThreads) Split(const AttentionParams p) {
  constexpr int kGroups = kSplitThreads / kLanes, kEach = 4;
  constexpr int kWarps = kSplitThreads / 32;
  float* shared = reinterpret_cast<float*>(gpu::DynamicShared());  // (warps, 8 kLanes + 2)
  const int64_t query = blockIdx.x;                                // (batch, length, heads)
  const int split = static_cast<int>(blockIdx.y);
  const int head = static_cast<int>(query % p.heads);
  const int64_t token = query / p.heads;
  const int64_t sequence = token / p.length * p.heads + head;
  const int64_t seen = std::min(p.capacity, Past(p) + token % p.length + 1);
  const int64_t range = (seen + p.splits - 1) / p.splits;
  const int64_t begin = std::min(seen, split * range), end = std::min(seen, begin + range);
  const int group = static_cast<int>(threadIdx.x) / kLanes;
  const int first = static_cast<int>(threadIdx.x) % kLanes * 8;
  const int64_t width = int64_t{p.heads} * p.head_dim;
  const T* keys = static_cast<const T*>(p.keys) + sequence * p.capacity * p.head_dim;
  const T* values = static_cast<const T*>(p.values) + sequence * p.capacity * p.head_dim;

  // This lane's features of a row.
  const auto load = [&](const T* row, float(&to)[8]) {
    gpu::LoadUpTo8(row + first, p.head_dim - first, p.vectors, to);
  };
  float q[8];
  load(static_cast<const T*>(p.qkv) + token * 3 * width + int64_t{head} * p.head_dim, q);
  LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) q[i] *= p.scale;

  float largest = -INFINITY, weight = 0, sum[8] = {};
  for (int64_t base = begin; base < end; base += kGroups * kEach) {
    float k[kEach][8], v[kEach][8], score[kEach];
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      const int64_t at = base + i * kGroups + group;
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) k[i][j] = v[i][j] = 0;
      if (at < end) {
        load(keys + at * p.head_dim, k[i]);
        load(values + at * p.head_dim, v[i]);
      }
    }
    float best = largest;
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      score[i] = 0;
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) score[i] += q[j] * k[i][j];
      LONGWAVE_UNROLL for (int step = kLanes / 2; step > 0; step /= 2) {
        score[i] += gpu::ShuffleXor(score[i], step);
      }
      if (base + i * kGroups + group >= end) score[i] = -INFINITY;
      best = fmaxf(best, score[i]);
    }
    const float fade = Fade(largest, best);
    largest = best;
    weight *= fade;
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) sum[j] *= fade;
    LONGWAVE_UNROLL for (int i = 0; i < kEach; ++i) {
      const float e = score[i] == -INFINITY ? 0.0f : exp2f(score[i] - best);
      weight += e;
      LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) sum[j] += e * v[i][j];
    }
  }

  // The groups of a warp, then the warps.
  LONGWAVE_UNROLL for (int step = kLanes; step < 32; step *= 2) {
    const float other = gpu::ShuffleXor(largest, step);
    const float other_weight = gpu::ShuffleXor(weight, step);
    float other_sum[8];
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) other_sum[j] = gpu::ShuffleXor(sum[j], step);
    Join(largest, weight, sum, other, other_weight, other_sum);
  }
  constexpr int kRow = 8 * kLanes + 2;
  if (gpu::Lane() < kLanes) {
    float* row = shared + gpu::WarpOfBlock() * kRow;
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) row[first + j] = sum[j];
    if (first == 0) {
      row[8 * kLanes] = largest;
      row[8 * kLanes + 1] = weight;
    }
  }
  gpu::SyncBlock();
  if (static_cast<int>(threadIdx.x) >= kLanes) return;
  LONGWAVE_UNROLL for (int w = 1; w < kWarps; ++w) {
    const float* row = shared + w * kRow;
    float other_sum[8];
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) other_sum[j] = row[first + j];
    Join(largest, weight, sum, row[8 * kLanes], row[8 * kLanes + 1], other_sum);
  }
  if (p.splits == 1) {
    const float inverse = 1.0f / weight;
    LONGWAVE_UNROLL for (int j = 0; j < 8; ++j) sum[j] *= inverse;
    gpu::StoreSome(static_cast<T*>(p.out) + query * p.head_dim + first, p.head_dim - first, sum);
  } else {
    float* to = p.partial + (query * p.splits + split) * (p.head_dim + 2);
    gpu::StoreSome(to + first, p.head_dim - first, sum);
    if (first == 0) {
      to[p.head_dim] = largest;
      to[p.head_dim + 1] = weight;
    }
  }
}

// A block for each (query, head).
template <typename T>
__global__ void __launch_bounds__(128) Combine(const AttentionParams p) {
  const int64_t query = blockIdx.x;
  const int row = p.head_dim + 2;
  const float* partial = p.partial + query * p.splits * row;
  float best = -INFINITY, weight = 0;
  for (int s = 0; s < p.splits; ++s) best = fmaxf(best, partial[s * row + p.head_dim]);
  for (int s = 0; s < p.splits; ++s) {
    weight += partial[s * row + p.head_dim + 1] * exp2f(partial[s * row + p.head_dim] - best);
  }
  for (int i = static_cast<int>(threadIdx.x); i < p.head_dim; i += 128) {
    float sum = 0;
    for (int s = 0; s < p.splits; ++s) {
      sum += partial[s * row + i] * exp2f(partial[s * row + p.head_dim] - best);
    }
    static_cast<T*>(p.out)[query * p.head_dim + i] = gpu::FromFloat<T>(sum / weight);
  }
}

template <typename T>
absl::Status LaunchTiles(const AttentionCudaPlan& plan, const AttentionParams& p,
                         const std::string& sizes, Stream& stream) {
  if constexpr (sizeof(T) == 2) {
    const int64_t blocks = p.batch * p.heads * ((p.length + kQueries - 1) / kQueries);
    const auto launch = [&](auto kernel, int64_t shared) {
      return gpu::Launch("Attention's tiles", sizes, kernel, dim3(static_cast<unsigned>(blocks)),
                         kTileThreads, shared, stream.queue().stream(), p);
    };
    switch (plan.padded_dim) {
      case 32:
        return launch(Tiles<T, 32>, kTileShared<32>);
      case 64:
        return launch(Tiles<T, 64>, kTileShared<64>);
      case 128:
        return launch(Tiles<T, 128>, kTileShared<128>);
    }
  }
  return absl::InternalError(absl::StrCat(sizes, ": no tiles for it"));
}

template <typename T>
absl::Status LaunchSplit(const AttentionCudaPlan& plan, const AttentionParams& p,
                         const std::string& sizes, Stream& stream) {
  const int64_t queries = p.batch * p.length * p.heads;
  const dim3 grid(static_cast<unsigned>(queries), static_cast<unsigned>(p.splits));
  const auto launch = [&](auto kernel) -> absl::Status {
    LONGWAVE_RETURN_IF_ERROR(gpu::Launch("Attention", sizes, kernel, grid, kSplitThreads,
                                         kSplitThreads / 32 * (plan.padded_dim + 2) * 4,
                                         stream.queue().stream(), p));
    if (p.splits == 1) return absl::OkStatus();
    return gpu::Launch("Attention's splits", sizes, Combine<T>,
                       dim3(static_cast<unsigned>(queries)), 128, 0, stream.queue().stream(), p);
  };
  switch (plan.padded_dim) {
    case 8:
      return launch(Split<T, 1>);
    case 16:
      return launch(Split<T, 2>);
    case 32:
      return launch(Split<T, 4>);
    case 64:
      return launch(Split<T, 8>);
    case 128:
      return launch(Split<T, 16>);
    case 256:
      return launch(Split<T, 32>);
  }
  return absl::UnimplementedError(absl::StrCat(sizes, ": head_dim above 256 on a GPU"));
}

}  // namespace

absl::Status RunAttentionCuda(const AttentionDesc& desc, void* qkv, KvCache& cache, void* out,
                              const int64_t* position, Stream& stream) {
  const std::string sizes = desc.ToString();
  if (cache.batch() != desc.batch || cache.dtype() != desc.dtype || cache.heads() != desc.heads ||
      cache.head_dim() != desc.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(sizes, ": the cache is of batch ", cache.batch(),
                                                   ", ", cache.heads(), " heads of ",
                                                   cache.head_dim(), ", ", Name(cache.dtype())));
  }
  const AttentionCudaPlan plan = PlanAttentionCuda(
      desc, stream.device(),
      (reinterpret_cast<uintptr_t>(qkv) | reinterpret_cast<uintptr_t>(out)) % 4 == 0);
  const absl::StatusOr<void*> scratch = stream.queue().Scratch(plan.scratch_bytes);
  if (!scratch.ok()) return scratch.status();
  AttentionParams p;
  p.past = cache.tokens();
  if (position == nullptr) {
    LONGWAVE_RETURN_IF_ERROR(cache.Reserve(p.past + desc.length, stream));
  }
  p.qkv = qkv;
  p.keys = cache.gpu_keys();
  p.values = cache.gpu_values();
  p.out = out;
  p.partial = static_cast<float*>(*scratch);
  p.position = position;
  p.capacity = cache.capacity();
  p.batch = desc.batch;
  p.length = desc.length;
  p.heads = static_cast<int>(desc.heads);
  p.head_dim = static_cast<int>(desc.head_dim);
  p.rotary_dim = static_cast<int>(desc.rotary_dim);
  p.splits = static_cast<int>(plan.splits);
  p.scale = 1.4426950408889634f / std::sqrt(static_cast<float>(desc.head_dim));
  p.vectors = gpu::Aligned16(qkv, desc.head_dim * SizeOf(desc.dtype)) && gpu::Aligned16(p.values);
  const int64_t tokens = desc.batch * desc.length;
  const dim3 grid(static_cast<unsigned>(tokens),
                  tokens >= 1024 ? 1 : static_cast<unsigned>((desc.width() + 255) / 256));
  const absl::Status status = gpu::WithType(desc.dtype, [&](auto type) -> absl::Status {
    using T = decltype(type);
    LONGWAVE_RETURN_IF_ERROR(gpu::Launch("Attention's cache", sizes, StoreTokens<T>, grid, 256,
                                         desc.rotary_dim * 4, stream.queue().stream(), p));
    return plan.tiles ? LaunchTiles<T>(plan, p, sizes, stream)
                      : LaunchSplit<T>(plan, p, sizes, stream);
  });
  if (status.ok() && position == nullptr) cache.Extend(desc.length);
  return status;
}

}  // namespace longwave

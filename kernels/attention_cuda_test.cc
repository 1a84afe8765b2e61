#include <algorithm>
#include <cmath>

#include "kernels/attention.h"
#include "kernels/testing/device_data.h"

namespace longwave {
namespace {

using reference::BitwiseEqual;
using reference::DeviceData;
using reference::DeviceIntegers;
using reference::Doubles;
using reference::Floats;
using reference::GpuStream;
using reference::GpuTolerance;
using reference::Near;
using reference::Normal;
using reference::RoundTo;

// (batch, length, 3, heads, head_dim) of a whole run.
Floats MakeQkv(uint64_t seed, const AttentionDesc& desc) {
  return RoundTo(Normal(seed, desc.batch * desc.length * 3 * desc.width()), desc.dtype);
}

// Tokens [begin, begin + length) of each sequence of `whole`.
Floats Part(const Floats& x, int64_t batch, int64_t whole, int64_t row, int64_t begin,
            int64_t length) {
  Floats part;
  for (int64_t b = 0; b < batch; ++b) {
    const auto first = x.begin() + (b * whole + begin) * row;
    part.insert(part.end(), first, first + length * row);
  }
  return part;
}

Doubles Expected(const AttentionDesc& desc, const Floats& qkv) {
  Doubles out;
  const int64_t row = desc.length * 3 * desc.width();
  for (int64_t b = 0; b < desc.batch; ++b) {
    const Doubles one =
        reference::Attention(desc.heads, desc.head_dim, desc.rotary_dim, desc.length,
                             Floats(qkv.begin() + b * row, qkv.begin() + (b + 1) * row));
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

// In chunks, one after another; with `on_device`, positions come from device memory.
Floats Evaluate(GpuStream& stream, const AttentionDesc& whole, const Floats& qkv,
                const std::vector<int64_t>& chunks, bool on_device = false, int64_t shift = 0) {
  absl::StatusOr<KvCache> cache =
      KvCache::OnGpu(stream->device(), whole.batch, whole.heads, whole.head_dim, whole.dtype,
                     on_device ? whole.length : 5);
  EXPECT_TRUE(cache.ok()) << cache.status();
  Floats out(whole.batch * whole.length * whole.width());
  int64_t begin = 0;
  for (const int64_t length : chunks) {
    AttentionDesc desc = whole;
    desc.length = length;
    DeviceData in(stream, whole.dtype,
                  Part(qkv, whole.batch, whole.length, 3 * whole.width(), begin, length), 1, 0,
                  shift);
    DeviceData y(stream, whole.dtype, whole.batch * length, whole.width(), 0, shift);
    const DeviceIntegers<int64_t> position(stream, {begin});
    const absl::Status status = RunAttention(desc, in.data(), *cache, y.data(), *stream,
                                             on_device ? position.data() : nullptr);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(in.Intact() && y.Intact());
    if (on_device) cache->Extend(length);
    const Floats got = y.Get();
    for (int64_t b = 0; b < whole.batch; ++b) {
      std::copy_n(got.begin() + b * length * whole.width(), length * whole.width(),
                  out.begin() + (b * whole.length + begin) * whole.width());
    }
    begin += length;
    EXPECT_EQ(cache->tokens(), begin);
  }
  return out;
}

void ExpectCorrect(GpuStream& stream, const AttentionDesc& desc, const std::vector<int64_t>& chunks,
                   bool on_device = false, int64_t shift = 0) {
  SCOPED_TRACE(desc.ToString() + " in " + ::testing::PrintToString(chunks));
  const Floats qkv = MakeQkv(desc.length + desc.head_dim, desc);
  EXPECT_TRUE(Near(Evaluate(stream, desc, qkv, chunks, on_device, shift), Expected(desc, qkv),
                   GpuTolerance(desc.dtype)));
}

AttentionDesc Of(int64_t heads, int64_t head_dim, int64_t length, int64_t rotary_dim, int64_t batch,
                 Dtype dtype) {
  return {heads, head_dim, length, rotary_dim, batch, dtype};
}

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16};

TEST(AttentionCudaTest, Lengths) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 131}) {
      ExpectCorrect(stream, Of(1, 16, length, 8, 1, dtype), {length});
    }
  }
}

TEST(AttentionCudaTest, HeadsAndHeadDims) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    for (const int64_t head_dim : {1, 7, 8, 24, 33, 64, 80, 128, 136, 256}) {
      // float16 takes bfloat16's way; the emulator is slow.
      if (stream.emulated() && dtype == Dtype::kFloat16 && head_dim != 64) continue;
      const int64_t rotary_dim = head_dim / 4 * 2;
      ExpectCorrect(stream, Of(2, head_dim, 20, rotary_dim, 1, dtype), {20});
      ExpectCorrect(stream, Of(1, head_dim, 3, 0, 2, dtype), {3});
    }
  }
}

TEST(AttentionCudaTest, ChunksAndStepsOfABatch) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    ExpectCorrect(stream, Of(2, 16, 100, 16, 2, dtype), {33, 1, 1, 20, 45});
    ExpectCorrect(stream, Of(2, 16, 70, 4, 3, dtype), {64, 1, 1, 1, 1, 2});
    if (stream.emulated() && dtype == Dtype::kFloat16) continue;
    ExpectCorrect(stream, Of(1, 32, 150, 4, 1, dtype), {70, 80});
  }
}

TEST(AttentionCudaTest, PositionsFromTheDevice) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    ExpectCorrect(stream, Of(2, 16, 60, 16, 2, dtype), {30, 1, 1, 1, 27}, /*on_device=*/true);
  }
}

TEST(AttentionCudaTest, UnalignedRows) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    ExpectCorrect(stream, Of(2, 16, 40, 8, 1, dtype), {20, 1, 19}, false, 1);
  }
}

// Nothing beyond the cache's end is written, and nothing of the future is seen.
TEST(AttentionCudaTest, TheFutureDoesNotMatter) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16}) {
    const AttentionDesc desc = Of(1, 16, 100, 8, 1, dtype);
    Floats qkv = MakeQkv(3, desc);
    const Floats before = Evaluate(stream, desc, qkv, {100});
    std::fill(qkv.begin() + 70 * 48, qkv.end(), 1024.0f);
    const Floats after = Evaluate(stream, desc, qkv, {100});
    EXPECT_TRUE(BitwiseEqual(Floats(after.begin(), after.begin() + 70 * 16),
                             Floats(before.begin(), before.begin() + 70 * 16)));
  }
}

TEST(AttentionCudaTest, LargeScores) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  for (const Dtype dtype : kDtypes) {
    const AttentionDesc desc = Of(1, 16, 150, 0, 1, dtype);
    // A float32 score of 600 is off by 600 x 2^-24 = 4e-5, and its exponential with it.
    const double tolerance = dtype == Dtype::kFloat32 ? 1e-5 : GpuTolerance(dtype);
    Floats qkv = MakeQkv(4, desc);
    for (int64_t t = 0; t < desc.length; ++t) {  // scores 4 t, then -4 t
      std::fill_n(qkv.begin() + t * 48, 16, 1.0f);
      std::fill_n(qkv.begin() + t * 48 + 16, 16, static_cast<float>(t));
    }
    EXPECT_TRUE(Near(Evaluate(stream, desc, qkv, {150}), Expected(desc, qkv), tolerance));
    for (int64_t t = 0; t < desc.length; ++t) std::fill_n(qkv.begin() + t * 48, 16, -1.0f);
    EXPECT_TRUE(Near(Evaluate(stream, desc, qkv, {150}), Expected(desc, qkv), tolerance));
  }
}

TEST(KvCacheCudaTest, GrowthKeepsWhatIsThere) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  auto cache = KvCache::OnGpu(stream->device(), 2, 1, 8, Dtype::kFloat32, 3);
  ASSERT_TRUE(cache.ok());
  Floats values(2 * 2 * 3 * 8);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  ASSERT_TRUE(stream->queue().CopyToDevice(cache->gpu_keys(), values.data(), 4 * 96).ok());
  ASSERT_TRUE(cache->Reserve(4, *stream).ok());
  EXPECT_EQ(cache->capacity(), KvCache::kPageTokens);
  for (int64_t b = 0; b < 2; ++b) {
    for (const bool key : {true, false}) {
      Floats got(24);
      const float* from = static_cast<const float*>(key ? cache->gpu_keys() : cache->gpu_values());
      ASSERT_TRUE(
          stream->queue().CopyToHost(got.data(), from + b * cache->capacity() * 8, 4 * 24).ok());
      ASSERT_TRUE(stream->queue().Synchronize().ok());
      for (int i = 0; i < 24; ++i) EXPECT_EQ(got[i], (key ? 0 : 48) + b * 24 + i);
    }
  }
  EXPECT_TRUE(cache->Reserve(100, *stream).ok());
  EXPECT_EQ(cache->capacity(), KvCache::kPageTokens);
}

TEST(AttentionCudaTest, RejectsACacheOfAnotherShape) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  auto cache = KvCache::OnGpu(stream->device(), 2, 1, 8, Dtype::kBFloat16, 3);
  ASSERT_TRUE(cache.ok());
  for (const AttentionDesc& desc :
       {Of(1, 8, 1, 0, 1, Dtype::kBFloat16), Of(2, 8, 1, 0, 2, Dtype::kBFloat16),
        Of(1, 16, 1, 0, 2, Dtype::kBFloat16), Of(1, 8, 1, 0, 2, Dtype::kFloat16)}) {
    EXPECT_EQ(RunAttention(desc, nullptr, *cache, nullptr, *stream).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(AttentionCudaTest, LargeShapes) {
  GpuStream stream;
  if (!stream.ok()) GTEST_SKIP() << "no GPU";
  if (stream.emulated()) GTEST_SKIP() << "too slow in the emulator";
  for (const Dtype dtype : kDtypes) {
    ExpectCorrect(stream, Of(3, 128, 777, 32, 2, dtype), {500, 1, 1, 275});
    ExpectCorrect(stream, Of(12, 64, 1025, 64, 1, dtype), {1, 1023, 1});
  }
}

}  // namespace
}  // namespace longwave

// The warp and block primitives against their definitions: in the emulator, and on a GPU.
#include <random>

#include "gtest/gtest.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/queue.h"

namespace longwave::gpu {
namespace {

std::unique_ptr<Queue> OpenOrNull() {
  absl::StatusOr<std::unique_ptr<Queue>> queue = Queue::Open(0);
  return queue.ok() ? *std::move(queue) : nullptr;
}

__global__ void ReverseSums(const float* in, float* out, int count) {
  float* shared = reinterpret_cast<float*>(DynamicShared());
  const int t = static_cast<int>(threadIdx.x);
  float x = in[static_cast<int>(blockIdx.x) * count + t];
  LONGWAVE_UNROLL for (int step = 1; step < 32; step *= 2) x += ShuffleXor(x, step);
  shared[t] = x;
  SyncBlock();
  out[static_cast<int>(blockIdx.x) * count + t] = shared[count - 1 - t];
}

TEST(DeviceCodeTest, ShufflesAndSharedMemory) {
  auto queue = OpenOrNull();
  if (queue == nullptr) GTEST_SKIP() << "no GPU";
  constexpr int kThreads = 96, kBlocks = 3;
  std::vector<float> in(kThreads * kBlocks), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  const int64_t bytes = static_cast<int64_t>(in.size() * sizeof(float));
  auto from = DeviceArray::Allocate(0, bytes), to = DeviceArray::Allocate(0, bytes);
  ASSERT_TRUE(from.ok() && to.ok());
  ASSERT_TRUE(queue->CopyToDevice(from->data(), in.data(), bytes).ok());
  ASSERT_TRUE(Launch("ReverseSums", "", ReverseSums, dim3(kBlocks), kThreads, kThreads * 4,
                     queue->stream(), from->as<float>(), to->as<float>(), kThreads)
                  .ok());
  ASSERT_TRUE(queue->CopyToHost(out.data(), to->data(), bytes).ok());
  ASSERT_TRUE(queue->Synchronize().ok());
  for (int b = 0; b < kBlocks; ++b) {
    for (int t = 0; t < kThreads; ++t) {
      const int warp = (kThreads - 1 - t) / 32;
      float sum = 0;
      for (int i = 0; i < 32; ++i) sum += in[b * kThreads + warp * 32 + i];
      EXPECT_EQ(out[b * kThreads + t], sum);
    }
  }
}

template <typename T>
__global__ void Product(const float* a, const float* b, float* d) {
  const int g = Lane() / 4, q = Lane() % 4;
  uint32_t fa[4], fb[2];
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) {
    const float* p = a + (g + i % 2 * 8) * 16 + 2 * q + i / 2 * 8;
    fa[i] = Pack(p[0], p[1], T());
  }
  LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
    const float* p = b + (2 * q + i * 8) * 8 + g;
    fb[i] = Pack(p[0], p[8], T());
  }
  float sum[4] = {1, 1, 1, 1};
  Mma(sum, fa, fb[0], fb[1], T());
  LONGWAVE_UNROLL for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = sum[i];
}

template <typename T>
void ExpectProduct() {
  auto queue = OpenOrNull();
  if (queue == nullptr) GTEST_SKIP() << "no GPU";
  std::mt19937 random(1);
  std::vector<float> a(256), b(128), d(128);
  for (float& x : a) x = static_cast<float>(static_cast<int>(random() % 17) - 8);
  for (float& x : b) x = static_cast<float>(static_cast<int>(random() % 17) - 8);
  auto ga = DeviceArray::Allocate(0, 1024), gb = DeviceArray::Allocate(0, 512),
       gd = DeviceArray::Allocate(0, 512);
  ASSERT_TRUE(ga.ok() && gb.ok() && gd.ok());
  ASSERT_TRUE(queue->CopyToDevice(ga->data(), a.data(), 1024).ok());
  ASSERT_TRUE(queue->CopyToDevice(gb->data(), b.data(), 512).ok());
  ASSERT_TRUE(Launch("Product", "", Product<T>, dim3(1), 32, 0, queue->stream(), ga->as<float>(),
                     gb->as<float>(), gd->as<float>())
                  .ok());
  ASSERT_TRUE(queue->CopyToHost(d.data(), gd->data(), 512).ok());
  ASSERT_TRUE(queue->Synchronize().ok());
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = 1;
      for (int k = 0; k < 16; ++k) sum += a[i * 16 + k] * b[k * 8 + j];
      EXPECT_EQ(d[i * 8 + j], sum) << i << ", " << j;
    }
  }
}

TEST(DeviceCodeTest, MmaBFloat16) { ExpectProduct<__nv_bfloat16>(); }
TEST(DeviceCodeTest, MmaFloat16) { ExpectProduct<__half>(); }

}  // namespace
}  // namespace longwave::gpu

// Runs kernels on the host: each thread of a block is a fiber, warp and block primitives are their
// meeting points, blocks run one after another in the order of their index. For tests on machines
// without a GPU; slow, exact in its semantics, and as strict: a warp primitive that not all lanes
// reach, or a barrier that a thread misses, ends the program with a message.
//
// Only device_code.h and launch.h include this. Thread safety: launches of several threads run one
// after another.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define LONGWAVE_DEVICE inline
#define LONGWAVE_UNROLL
#define LONGWAVE_UNROLL_BY(n)

#undef __launch_bounds__
#define __launch_bounds__(...)

namespace longwave::gpu {

namespace emulator {

struct Thread {
  uint3 thread_index;
  uint3 block_index;
};
extern Thread* current;  // the fiber that runs
extern dim3 block_dimensions, grid_dimensions;

// All lanes of the warp have called it; returns what lane i gave at [i], until the lane's next
// exchange but one.
using Words = uint32_t[6];
const Words* Exchange(const Words& words);
void SyncBlock();
void SyncWarp();
void Progress();  // something happened that others may wait for
void Yield();     // lets the other fibers run
unsigned char* Shared();

// Runs the grid to its end.
void Run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulator

#define threadIdx (::longwave::gpu::emulator::current->thread_index)
#define blockIdx (::longwave::gpu::emulator::current->block_index)
#define blockDim (::longwave::gpu::emulator::block_dimensions)
#define gridDim (::longwave::gpu::emulator::grid_dimensions)

inline int Lane() { return static_cast<int>(threadIdx.x) % 32; }
inline int WarpOfBlock() { return static_cast<int>(threadIdx.x) / 32; }
inline void SyncBlock() { emulator::SyncBlock(); }
inline void SyncWarp() { emulator::SyncWarp(); }

template <typename T>
inline T ShuffleFrom(T value, int lane) {
  static_assert(sizeof(T) == 4);
  emulator::Words words = {};
  std::memcpy(words, &value, 4);
  std::memcpy(&value, emulator::Exchange(words)[lane & 31], 4);
  return value;
}
template <typename T>
inline T ShuffleUp(T value, int delta, int width = 32) {
  return ShuffleFrom(value, Lane() % width >= delta ? Lane() - delta : Lane());
}
template <typename T>
inline T ShuffleDown(T value, int delta) {
  return ShuffleFrom(value, Lane() + delta < 32 ? Lane() + delta : Lane());
}
template <typename T>
inline T ShuffleXor(T value, int mask) {
  return ShuffleFrom(value, Lane() ^ mask);
}

// The count, how many are missing in this phase, the phase's parity.
struct PhaseBarrier {
  int16_t count, missing;
  int32_t parity;
};
inline void InitBarrier(PhaseBarrier* barrier, int count) {
  *barrier = {static_cast<int16_t>(count), static_cast<int16_t>(count), 0};
}
inline void Arrive(PhaseBarrier* barrier) {
  emulator::Progress();
  if (--barrier->missing > 0) return;
  barrier->missing = barrier->count;
  barrier->parity ^= 1;
}
inline void Wait(PhaseBarrier* barrier, int parity) {
  while (barrier->parity == parity) emulator::Yield();
}

inline unsigned char* DynamicShared() { return emulator::Shared(); }

// The real copy lands between its start and the wait; here it lands at once, so a missing wait is
// not seen.
inline void CopyAsync16(void* shared, const void* global, int valid = 16) {
  std::memset(shared, 0, 16);
  std::memcpy(shared, global, static_cast<size_t>(valid));
}
inline void CopyAsyncCommit() {}
template <int N>
inline void CopyAsyncWait() {}

// Fragments as device_code.h says.
void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16);
void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half);
void MmaTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
inline uint32_t ToTf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return x == x ? (bits + 0x1000u) & 0xffffe000u : 0x7fc00000u;
}

inline void LoadMatrices(uint32_t (&r)[4], const void* row) {
  emulator::Words words = {};
  std::memcpy(words, &row, sizeof(row));
  const emulator::Words* rows = emulator::Exchange(words);
  for (int i = 0; i < 4; ++i) {
    const char* from;
    std::memcpy(&from, rows[8 * i + Lane() / 4], sizeof(from));
    std::memcpy(&r[i], from + Lane() % 4 * 4, 4);
  }
}
inline void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  emulator::Words words = {};
  std::memcpy(words, &row, sizeof(row));
  const emulator::Words* rows = emulator::Exchange(words);
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      const char* from;
      std::memcpy(&from, rows[8 * i + 2 * (Lane() % 4) + j], sizeof(from));
      std::memcpy(&pair[j], from + Lane() / 4 * 2, 2);
    }
    std::memcpy(&r[i], pair, 4);
  }
}

inline uint4 LoadStreaming(const void* p) { return *static_cast<const uint4*>(p); }
inline void StoreStreaming(void* p, uint4 value) { *static_cast<uint4*>(p) = value; }

}  // namespace longwave::gpu

// What device code calls by CUDA's own names.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
template <typename T>
inline T __ldg(const T* p) {
  return *p;
}
inline float atomicAdd(float* p, float v) {
  const float old = *p;
  *p += v;
  return old;
}
inline int atomicAdd(int* p, int v) {
  const int old = *p;
  *p += v;
  return old;
}

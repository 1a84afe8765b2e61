// What kernels are written in: the few warp and block primitives they use, once for the GPU and
// once for the emulator (emulator.h), which runs the same kernels on the host, thread by thread, so
// that every kernel is tested on machines without a GPU.
//
// A kernel is a `__global__ void Foo(const FooParams p)`; all its shared memory is DynamicShared();
// every thread of a warp takes part in each warp primitive (full mask), every thread of a block in
// each SyncBlock(). Launched by Launch() of launch.h.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef LONGWAVE_EMULATE
#include "kernels/gpu/emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace longwave::gpu {

constexpr int kWarp = 32;

#ifndef LONGWAVE_EMULATE
#define LONGWAVE_DEVICE __device__ __forceinline__
#define LONGWAVE_UNROLL _Pragma("unroll")
#define LONGWAVE_PRAGMA(x) _Pragma(#x)
#define LONGWAVE_UNROLL_BY(n) LONGWAVE_PRAGMA(unroll n)

LONGWAVE_DEVICE int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
LONGWAVE_DEVICE int WarpOfBlock() { return static_cast<int>(threadIdx.x) / kWarp; }

LONGWAVE_DEVICE void SyncBlock() { __syncthreads(); }
LONGWAVE_DEVICE void SyncWarp() { __syncwarp(); }

// T of 4 bytes. Up and Down: a lane without a partner, in the warp or in its part of `width` lanes
// (a power of two), gets its own value.
template <typename T>
LONGWAVE_DEVICE T ShuffleUp(T value, int delta, int width = kWarp) {
  return __shfl_up_sync(0xffffffffu, value, delta, width);
}
template <typename T>
LONGWAVE_DEVICE T ShuffleDown(T value, int delta) {
  return __shfl_down_sync(0xffffffffu, value, delta);
}
template <typename T>
LONGWAVE_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T>
LONGWAVE_DEVICE T ShuffleFrom(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

LONGWAVE_DEVICE unsigned char* DynamicShared() {
  extern __shared__ __align__(128) unsigned char longwave_shared[];
  return longwave_shared;
}

// A barrier in shared memory that some threads of a block only pass a word on with and others wait
// for: phase after phase, each over when `count` threads have arrived. What they wrote before is
// seen after the wait. `parity`: of the phase that is waited for, 0 for the first.
using PhaseBarrier = uint64_t;
LONGWAVE_DEVICE unsigned SharedAddress(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
LONGWAVE_DEVICE void InitBarrier(PhaseBarrier* barrier, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(count)
               : "memory");
}
LONGWAVE_DEVICE void Arrive(PhaseBarrier* barrier) {
  asm volatile("{\n .reg .b64 state;\n mbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(
                   SharedAddress(barrier))
               : "memory");
}
LONGWAVE_DEVICE void Wait(PhaseBarrier* barrier, int parity) {
  int done = 0;
  while (done == 0) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
        " selp.b32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        " selp.b32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
#endif
  }
}

// 16 bytes from global to shared memory, asynchronously; both aligned to 16. `valid` of the 16 are
// read, the rest become zero.
LONGWAVE_DEVICE void CopyAsync16(void* shared, const void* global, int valid = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid)
               : "memory");
}
LONGWAVE_DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the newest N groups of this thread have arrived (for this thread: others need a barrier).
template <int N>
LONGWAVE_DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// d += a b for one warp: a (16, 16) row major, b (16, 8), d (16, 8), in PTX's fragment layout of
// mma.m16n8k16: with g = lane / 4, q = lane % 4
//   a[0] = (g, 2q..2q+1)  a[1] = (g+8, 2q..)  a[2] = (g, 2q+8..)  a[3] = (g+8, 2q+8..)
//   b[0] = (2q..2q+1, g)  b[1] = (2q+8.., g)
//   d[0..1] = (g, 2q..2q+1)  d[2..3] = (g+8, 2q..)
LONGWAVE_DEVICE void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
LONGWAVE_DEVICE void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The same with k = 8 in tf32, operands as float32 bits whose lowest 13 are zero:
//   a[0] = (g, q)  a[1] = (g+8, q)  a[2] = (g, q+4)  a[3] = (g+8, q+4)   b0 = (q, g)  b1 = (q+4, g)
LONGWAVE_DEVICE void MmaTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// To the nearest tf32, as MmaTf32 takes it; NaN stays NaN.
LONGWAVE_DEVICE uint32_t ToTf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits & 0xffffe000u;
}

// Four 8 x 8 matrices of 16-bit values from shared memory for one warp: lane l gives the address of
// row l % 8 of matrix l / 8 (16 bytes, aligned), and gets of matrix i in r[i] the elements (g,
// 2q..2q+1), or transposed (2q..2q+1, g).
LONGWAVE_DEVICE void LoadMatrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
LONGWAVE_DEVICE void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}

// 16 bytes that are read once: past the first-level cache's lines of others.
LONGWAVE_DEVICE uint4 LoadStreaming(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }
LONGWAVE_DEVICE void StoreStreaming(void* p, uint4 value) { __stcs(static_cast<uint4*>(p), value); }
#endif

LONGWAVE_DEVICE uint32_t FloatBits(float x) {
  union {
    float f;
    uint32_t u;
  } bits{x};
  return bits.u;
}
LONGWAVE_DEVICE float BitsFloat(uint32_t x) {
  union {
    uint32_t u;
    float f;
  } bits{x};
  return bits.f;
}

// Two values of T in one register, the first in the low half.
LONGWAVE_DEVICE uint32_t Pack(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
LONGWAVE_DEVICE uint32_t Pack(float a, float b, __half) {
  const __half2 v = __floats2half2_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
LONGWAVE_DEVICE float2 Unpack(uint32_t x, __nv_bfloat16) {
  return {BitsFloat(x << 16), BitsFloat(x & 0xffff0000u)};
}
LONGWAVE_DEVICE float2 Unpack(uint32_t x, __half) {
  __half2 v;
  memcpy(static_cast<void*>(&v), &x, 4);
  return __half22float2(v);
}

// One value of T as float32, and back with rounding to nearest.
LONGWAVE_DEVICE float ToFloat(float x) { return x; }
LONGWAVE_DEVICE float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
LONGWAVE_DEVICE float ToFloat(__half x) { return __half2float(x); }
template <typename T>
LONGWAVE_DEVICE T FromFloat(float x);
template <>
LONGWAVE_DEVICE float FromFloat<float>(float x) {
  return x;
}
template <>
LONGWAVE_DEVICE __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
LONGWAVE_DEVICE __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

}  // namespace longwave::gpu

#include "kernels/gpu/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

namespace longwave::gpu::emulator {

Thread* current = nullptr;
dim3 block_dimensions, grid_dimensions;

namespace {

constexpr size_t kStack = 256 << 10;

// A meeting point: the last to arrive opens it for all.
struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

struct Warp {
  Barrier barrier;
  uint64_t exchanges[32] = {};  // each lane's count of exchanges: the parity chooses the slots
  Words slots[2][32] = {};
};

// Kept from launch to launch: each runs its thread of one block after another. Made with a
// ucontext, then switched by jumps, which unlike swapcontext() call no kernel.
struct Fiber : Thread {
  ucontext_t start;
  jmp_buf at;
  bool started = false;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

struct Block {
  std::vector<Fiber*> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  std::vector<unsigned char> shared;
  size_t running = 0;                  // index of the fiber that runs
  uint64_t yields = 0, yields_at = 0;  // turns given away since `progress` had that value
  uint64_t progress = 0;               // grows whenever a barrier opens, a thread ends or yields
  jmp_buf main;
  const std::function<void()>* kernel = nullptr;
};
Block* block = nullptr;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "emulator: block (%u, %u, %u): %s\n", current->block_index.x,
               current->block_index.y, current->block_index.z, what);
  std::abort();
}

void Entry();

[[noreturn]] void Enter(Fiber& fiber) {
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStack;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, Entry, 0);
  setcontext(&fiber.start);
  std::abort();
}

// Back when it is this fiber's turn again.
void SwitchToNext() {
  Fiber& from = *block->fibers[block->running];
  const size_t count = block->fibers.size();
  size_t next = block->running;
  do {
    next = (next + 1) % count;
  } while (block->fibers[next]->done && next != block->running);
  if (next == block->running) return;
  block->running = next;
  current = block->fibers[next];
  if (_setjmp(from.at) == 0) Enter(*block->fibers[next]);
}

void Arrive(Barrier& barrier, int count) {
  ++block->progress;
  if (++barrier.arrived < count) return;
  barrier.arrived = 0;
  ++barrier.generation;
}

void Wait(Barrier& barrier, int count) {
  const uint64_t generation = barrier.generation;
  Arrive(barrier, count);
  // Every other fiber is given a turn; when a whole round of turns moves nothing, nothing will.
  uint64_t seen = block->progress;
  for (size_t idle = 0; barrier.generation == generation;) {
    SwitchToNext();
    idle = block->progress == seen ? idle + 1 : 0;
    seen = block->progress;
    if (idle > 8 * block->fibers.size())
      Fail("a barrier or warp primitive that not all threads reach");
  }
}

Warp& MyWarp() { return block->warps[current->thread_index.x / 32]; }

void Entry() {
  while (true) {
    (*block->kernel)();
    Fiber& self = *block->fibers[block->running];
    self.done = true;
    ++block->progress;
    const bool last = std::all_of(block->fibers.begin(), block->fibers.end(),
                                  [](const Fiber* fiber) { return fiber->done; });
    if (!last) SwitchToNext();  // back in another block
    if (last && _setjmp(self.at) == 0) _longjmp(block->main, 1);
  }
}

// One block, all of whose fibers are ready. Not inlined: nothing of its caller's is in a register
// that a jump back would lose.
[[gnu::noinline]] void RunBlock() {
  if (_setjmp(block->main) == 0) Enter(*block->fibers[0]);
}

}  // namespace

const Words* Exchange(const Words& words) {
  Warp& warp = MyWarp();
  const int lane = static_cast<int>(current->thread_index.x % 32);
  Words* slots = warp.slots[warp.exchanges[lane]++ % 2];
  std::memcpy(slots[lane], words, sizeof(Words));
  Wait(warp.barrier, 32);
  return slots;
}

void SyncBlock() { Wait(block->barrier, static_cast<int>(block->fibers.size())); }
void SyncWarp() { Wait(MyWarp().barrier, 32); }
void Progress() { ++block->progress; }
void Yield() {
  if (block->yields_at != block->progress) block->yields = 0;
  block->yields_at = block->progress;
  if (++block->yields > 64 * block->fibers.size()) Fail("a wait for what nobody does");
  SwitchToNext();
}
unsigned char* Shared() {
  const auto address = reinterpret_cast<uintptr_t>(block->shared.data());
  return block->shared.data() + (128 - address % 128) % 128;
}

void Run(dim3 grid, dim3 dimensions, size_t shared_bytes, const std::function<void()>& kernel) {
  if (dimensions.y != 1 || dimensions.z != 1 || dimensions.x % 32 != 0) {
    std::fprintf(stderr, "emulator: blocks are rows of whole warps\n");
    std::abort();
  }
  static auto& turn = *new std::mutex;
  const std::lock_guard<std::mutex> lock(turn);
  block_dimensions = dimensions;
  grid_dimensions = grid;
  Block state;
  block = &state;
  state.kernel = &kernel;
  static auto& pool = *new std::vector<std::unique_ptr<Fiber>>;
  while (pool.size() < dimensions.x) {
    pool.push_back(std::make_unique<Fiber>());
    pool.back()->stack.reset(new char[kStack]);
  }
  for (unsigned t = 0; t < dimensions.x; ++t) state.fibers.push_back(pool[t].get());
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        state.warps.assign(dimensions.x / 32, Warp{});
        state.barrier = Barrier{};
        state.shared.assign(shared_bytes + 128, 0xff);  // NaN: nobody may count on zeros
        for (unsigned t = 0; t < dimensions.x; ++t) {
          Fiber& fiber = *state.fibers[t];
          fiber.thread_index = {t, 0, 0};
          fiber.block_index = {x, y, z};
          fiber.done = false;
        }
        state.running = 0;
        current = state.fibers[0];
        RunBlock();
      }
    }
  }
  block = nullptr;
  current = nullptr;
}

}  // namespace longwave::gpu::emulator

namespace longwave::gpu {
namespace {

float ValueOf(uint32_t bits, __nv_bfloat16) {
  bits <<= 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
float ValueOf(uint32_t bits, __half) {
  const auto half = static_cast<uint16_t>(bits);
  __half h;
  std::memcpy(static_cast<void*>(&h), &half, 2);
  return __half2float(h);
}

// Everyone's fragments are exchanged, and each lane computes its own four sums.
template <typename T>
void Mma16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T type) {
  const emulator::Words* f = emulator::Exchange({a[0], a[1], a[2], a[3], b0, b1});
  const int g = Lane() / 4, q = Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i >= 2 ? 8 : 0), column = 2 * q + i % 2;
    float sum = d[i];
    for (int k = 0; k < 16; ++k) {
      const uint32_t x = f[row % 8 * 4 + k % 8 / 2][(row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0)];
      const uint32_t y = f[column * 4 + k % 8 / 2][k >= 8 ? 5 : 4];
      const int shift = k % 2 * 16;
      sum += ValueOf(x >> shift & 0xffff, type) * ValueOf(y >> shift & 0xffff, type);
    }
    d[i] = sum;
  }
}

}  // namespace

void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16 type) {
  Mma16(d, a, b0, b1, type);
}
void Mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half type) {
  Mma16(d, a, b0, b1, type);
}

void MmaTf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto tf32 = [](uint32_t bits) {  // what the hardware reads
    bits &= 0xffffe000u;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  const emulator::Words* f = emulator::Exchange({a[0], a[1], a[2], a[3], b0, b1});
  const int g = Lane() / 4, q = Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i >= 2 ? 8 : 0), column = 2 * q + i % 2;
    float sum = d[i];
    for (int k = 0; k < 8; ++k) {
      sum += tf32(f[row % 8 * 4 + k % 4][(row >= 8 ? 1 : 0) + (k >= 4 ? 2 : 0)]) *
             tf32(f[column * 4 + k % 4][k >= 4 ? 5 : 4]);
    }
    d[i] = sum;
  }
}

}  // namespace longwave::gpu

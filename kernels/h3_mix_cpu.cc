// H3Mix on the CPU: one thread a head, tile by tile. For each tile of a head: every k channel
// through its shift filter, then for each output channel d2 the sum over d1 of q[d1] * SSM(k[d1] *
// v[d2]).
#include "kernels/h3_mix_cpu.h"

#include <algorithm>
#include <cstring>

#include "kernels/elementwise.h"
#include "kernels/shift_tile.h"
#include "kernels/ssm_conv_filter.h"
#include "kernels/ssm_tile.h"

namespace longwave {
namespace {

constexpr int64_t kTile = kSsmTile;

// One thread's arrays, in the order of its scratch.
struct Scratch {
  float* states;    // (head_dim d1, head_dim d2, 2 P)
  float* matrices;  // (head_dim, shift matrix)
  float* history;   // (head_dim, taps - 1 + tile + pad)
  float* k;         // (head_dim, tile + pad): after the shift
  float* kv;        // (tile)
  float* y;         // (tile)
  float* sum;       // (tile)
  float* rows;      // (tile blocks, 2 P)
  int64_t matrix_floats, history_floats, total;

  Scratch(float* base, const H3MixDesc& desc) {
    const int64_t hd = desc.head_dim;
    const int64_t padded =
        (desc.pairs + kSsmPairsMultiple - 1) / kSsmPairsMultiple * kSsmPairsMultiple;
    matrix_floats = ShiftMatrixFloats(desc.shift_taps);
    history_floats = (desc.shift_taps - 1 + kTile + kShiftPad + 15) / 16 * 16;
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      float* p = base == nullptr ? nullptr : base + used;
      used += count;
      return p;
    };
    states = take(hd * hd * 2 * padded);
    matrices = take(hd * matrix_floats);
    history = take(hd * history_floats);
    k = take(hd * (kTile + kShiftPad));
    kv = take(kTile);
    y = take(kTile);
    sum = take(kTile);
    rows = take(kSsmTileBlocks * 2 * padded);
    total = used;
  }
};

void RunHead(const H3MixPlan& plan, const SsmTileFilter& filter, const H3MixArgs& args,
             int64_t batch, int64_t head, const Scratch& s) {
  const H3MixDesc& desc = plan.desc;
  const int64_t hd = desc.head_dim, P = filter.padded, halo = desc.shift_taps - 1;
  const int64_t first = head * hd;                              // the head's channels of q, k, v
  const int64_t state = (batch * desc.heads + head) * hd * hd;  // its states
  const bool dual = plan.evaluation == SsmEvaluation::kDualForm;
  const bool known = args.kv != nullptr && args.y != nullptr;  // kv is there, nothing is shifted
  const auto at = [&](const void* p, int64_t channel) {
    return static_cast<const float*>(p) + batch * args.batch_stride + channel * args.channel_stride;
  };
  const auto halo_at = [&](auto* p, int64_t d1) {
    return p + (batch * desc.width() + first + d1) * halo;
  };

  for (int64_t i = 0; i < hd * hd; ++i) {
    PadState(args.state_in == nullptr ? nullptr : args.state_in + (state + i) * 2 * desc.pairs,
             desc.pairs, P, s.states + i * 2 * P);
  }
  for (int64_t d1 = 0; d1 < hd && !known; ++d1) {
    ShiftBuildMatrix(args.shift_taps + (first + d1) * desc.shift_taps, desc.shift_taps, desc.length,
                     s.matrices + d1 * s.matrix_floats);
    float* history = s.history + d1 * s.history_floats;
    if (args.halo_in == nullptr) {
      std::fill_n(history, halo, 0.0f);
    } else {
      std::copy_n(halo_at(args.halo_in, d1), halo, history);
    }
  }

  int64_t count = 0;
  for (int64_t begin = 0; begin < desc.length; begin += kTile) {
    const int64_t before = count;
    count = std::min(kTile, desc.length - begin);
    for (int64_t d1 = 0; d1 < hd && !known; ++d1) {
      float* history = s.history + d1 * s.history_floats;
      ShiftAdvance(at(args.k, first + d1) + begin, desc.shift_taps, before, count, history);
      ShiftRun(s.matrices + d1 * s.matrix_floats, args.shift_taps + (first + d1) * desc.shift_taps,
               desc.shift_taps, history + halo, count, s.k + d1 * (kTile + kShiftPad));
    }
    for (int64_t d2 = 0; d2 < hd; ++d2) {
      const float* v = at(args.v, first + d2) + begin;
      float* out = args.y == nullptr
                       ? nullptr
                       : const_cast<float*>(at(args.y, d2 * desc.heads + head)) + begin;
      for (int64_t d1 = 0; d1 < hd; ++d1) {
        float* kv = args.kv == nullptr ? s.kv : const_cast<float*>(at(args.kv, first)) + begin;
        if (!known) Multiply(s.k + d1 * (kTile + kShiftPad), v, kv, count);
        SsmRunTokens(filter, dual, count, kv, out == nullptr ? nullptr : s.y,
                     s.states + (d1 * hd + d2) * 2 * P, s.rows);
        if (out == nullptr) continue;
        const float* q = at(args.q, first + d1) + begin;
        if (d1 == 0) {
          Multiply(q, s.y, hd == 1 ? out : s.sum, count);
        } else {
          MultiplyAdd(q, s.y, s.sum, count);
        }
      }
      if (hd > 1 && out != nullptr) std::copy_n(s.sum, count, out);
    }
  }

  if (args.halo_out != nullptr) {
    for (int64_t d1 = 0; d1 < hd; ++d1) {
      std::copy_n(s.history + d1 * s.history_floats + count, halo, halo_at(args.halo_out, d1));
    }
  }
  if (args.state_out != nullptr) {
    for (int64_t i = 0; i < hd * hd; ++i) {
      UnpadState(s.states + i * 2 * P, desc.pairs, P,
                 args.state_out + (state + i) * 2 * desc.pairs);
    }
  }
}

}  // namespace

int64_t H3MixScratchFloats(const H3MixDesc& desc) { return Scratch(nullptr, desc).total; }

absl::Status RunH3MixCpu(const H3MixPlan& plan, const SsmFilter& filter, const H3MixArgs& args,
                         Stream& stream) {
  const H3MixDesc& desc = plan.desc;
  stream.pool().ParallelFor(desc.batch * desc.heads, [&](int64_t i, int worker) {
    const Scratch scratch(stream.Scratch(worker, plan.scratch_floats), desc);
    const int64_t head = i % desc.heads;
    RunHead(plan, SsmFilterAccess::Tile(filter, head), args, i / desc.heads, head, scratch);
  });
  return absl::OkStatus();
}

void WriteHaloCpu(const H3MixDesc& desc, const H3MixArgs& args) {
  const int64_t halo = desc.shift_taps - 1;
  const int64_t kept = std::max<int64_t>(0, halo - desc.length);  // of what came in
  for (int64_t i = 0; i < desc.batch * desc.width(); ++i) {
    const float* k = static_cast<const float*>(args.k) + i / desc.width() * args.batch_stride +
                     i % desc.width() * args.channel_stride;
    float* out = args.halo_out + i * halo;
    if (args.halo_in == nullptr) {
      std::fill_n(out, kept, 0.0f);
    } else {
      std::memmove(out, args.halo_in + i * halo + halo - kept, sizeof(float) * kept);
    }
    std::copy_n(k + desc.length - (halo - kept), halo - kept, out + kept);
  }
}

}  // namespace longwave

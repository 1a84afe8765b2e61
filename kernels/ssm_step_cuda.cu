// The recurrence x = a x + b w, y = 2 Re(c x) + d w on a GPU, with H3's shift filter before it: one
// warp a head and batch entry, a lane for each pair (more pairs: each lane several). A step reads
// and writes the state once, 16 bytes a pair, and the halo; everything else is small. A warp goes
// through kBatch batch entries so that it reads its filter once for all of them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/ssm_step_cuda.h"

namespace longwave {
namespace {

using gpu::FromFloat;
using gpu::Lane;
using gpu::ShuffleXor;
using gpu::SyncWarp;
using gpu::ToFloat;
using gpu::WarpOfBlock;

constexpr int kStepWarps = 4;
constexpr int kBatch = 4;

struct StepParams {
  const void *u, *pre_gate, *post_gate;  // H3: v, k, q
  void* y;                               // null: state only
  int64_t batch_stride, channel_stride, batch, length;
  int64_t heads;  // SsmConv: channels
  int head_dim, channels_per_filter, pairs;
  const float* step;  // (filters, 8, pairs)
  const float* d;     // (filters)
  const float* state_in;
  float* state;  // (batch, heads, d1, d2, 2, pairs): out, and between tokens
  int taps;      // 0: no shift
  const float* shift_taps;
  const float* bias;
  const float* halo_in;
  float* halo_out;
};

// One head of one batch entry.
template <typename T>
struct Head {
  const StepParams& p;
  int64_t n, head;

  LONGWAVE_DEVICE int64_t width() const { return p.heads * p.head_dim; }
  LONGWAVE_DEVICE float Value(const void* base, int64_t channel, int64_t t) const {
    return ToFloat(
        static_cast<const T*>(base)[n * p.batch_stride + channel * p.channel_stride + t]);
  }
  LONGWAVE_DEVICE float Bias(int which, int64_t channel) const {
    return p.bias == nullptr ? 0.0f : p.bias[which * width() + channel];
  }
  // k at token t >= -(taps - 1)
  LONGWAVE_DEVICE float K(int64_t channel, int64_t t) const {
    if (t >= 0) return Value(p.pre_gate, channel, t) + Bias(1, channel);
    if (p.halo_in == nullptr) return 0;
    return p.halo_in[(n * width() + channel) * (p.taps - 1) + p.taps - 1 + t];
  }
  LONGWAVE_DEVICE static float WarpSum(float x) {
    LONGWAVE_UNROLL for (int step = 1; step < 32; step *= 2) x += ShuffleXor(x, step);
    return x;
  }
  // What gates u before the SSM.
  LONGWAVE_DEVICE float Gate(int64_t channel, int64_t t) const {
    if (p.taps == 0) return p.pre_gate == nullptr ? 1.0f : Value(p.pre_gate, channel, t);
    float sum = 0;
    for (int i = Lane(); i < p.taps; i += 32) {
      sum = fmaf(p.shift_taps[channel * p.taps + i], K(channel, t - i), sum);
    }
    return WarpSum(sum);
  }

  // Pair by pair through one token; returns the lanes' share of y.
  LONGWAVE_DEVICE float Step(int64_t index, int64_t filter, bool first, float w) const {
    const float* in = first ? p.state_in : p.state;
    float y = 0;
    for (int pair = Lane(); pair < p.pairs; pair += 32) {
      const float* c = p.step + filter * 8 * p.pairs + pair;
      const int64_t at = index * 2 * p.pairs + pair;
      const float re = in == nullptr ? 0.0f : in[at];
      const float im = in == nullptr ? 0.0f : in[at + p.pairs];
      const float ar = c[0], ai = c[p.pairs], low_r = c[2 * p.pairs], low_i = c[3 * p.pairs];
      const float x =
          fmaf(ar, re, fmaf(-ai, im, fmaf(low_r, re, fmaf(-low_i, im, c[4 * p.pairs] * w))));
      const float z =
          fmaf(ar, im, fmaf(ai, re, fmaf(low_r, im, fmaf(low_i, re, c[5 * p.pairs] * w))));
      p.state[at] = x;
      p.state[at + p.pairs] = z;
      y = fmaf(c[6 * p.pairs], x, fmaf(c[7 * p.pairs], z, y));
    }
    return y;
  }

  LONGWAVE_DEVICE void Run() const {
    const int64_t filter = head / p.channels_per_filter, hd = p.head_dim;
    for (int64_t t = 0; t < p.length; ++t) {
      // q is read before y, which may stand in its place, is written.
      for (int64_t d2 = 0; d2 < hd; ++d2) {
        const float v = Value(p.u, head * hd + d2, t) + Bias(2, head * hd + d2);
        float sum = 0;
        for (int64_t d1 = 0; d1 < hd; ++d1) {
          const int64_t channel = head * hd + d1;
          const float w = Gate(channel, t) * v;
          const int64_t index = ((n * p.heads + head) * hd + d1) * hd + d2;
          const float y = WarpSum(Step(index, filter, t == 0, w)) + p.d[filter] * w;
          const float gate =
              p.post_gate == nullptr ? 1.0f : Value(p.post_gate, channel, t) + Bias(0, channel);
          sum = fmaf(gate, y, sum);
        }
        SyncWarp();
        if (p.y != nullptr && Lane() == 0) {
          static_cast<T*>(p.y)[n * p.batch_stride + (d2 * p.heads + head) * p.channel_stride + t] =
              FromFloat<T>(sum);
        }
      }
    }
    if (p.halo_out == nullptr) return;
    for (int64_t d1 = 0; d1 < hd; ++d1) WriteHalo(head * hd + d1);
  }

  // Old values move towards the front: going up never reads what was written.
  LONGWAVE_DEVICE void WriteHalo(int64_t channel) const {
    float* out = p.halo_out + (n * width() + channel) * (p.taps - 1);
    for (int i = 0; i < p.taps - 1; i += 32) {
      const int mine = i + Lane();
      const float x = mine < p.taps - 1 ? K(channel, p.length - (p.taps - 1) + mine) : 0.0f;
      SyncWarp();
      if (mine < p.taps - 1) out[mine] = x;
      SyncWarp();
    }
  }
};

template <typename T, bool kHaloOnly>
__global__ void __launch_bounds__(kStepWarps * 32) StepKernel(const StepParams p) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kStepWarps + WarpOfBlock();
  const int64_t head = task % p.heads, first = task / p.heads * kBatch;
  for (int64_t n = first; n < first + kBatch && n < p.batch; ++n) {
    const Head<T> self{p, n, head};
    if constexpr (kHaloOnly) {
      for (int64_t d1 = 0; d1 < p.head_dim; ++d1) self.WriteHalo(head * p.head_dim + d1);
    } else {
      self.Run();
    }
  }
}

// The same for generation's usual shape, one token, one channel a head, at most 32 pairs and 64
// taps: everything that kBatch entries need is asked for before anything is used, so that many
// reads are under way at once.
template <typename T>
__global__ void __launch_bounds__(kStepWarps * 32) OneStepKernel(const StepParams p) {
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kStepWarps + WarpOfBlock();
  const int64_t channel = task % p.heads, first = task / p.heads * kBatch;
  if (first >= p.batch) return;
  const int lane = Lane(), count = static_cast<int>(p.batch - first);
  const int64_t filter = channel / p.channels_per_filter;

  // The lane's pair; its taps i = lane and lane + 32, which meet the inputs i tokens ago.
  float c[8] = {};
  if (lane < p.pairs) {
    LONGWAVE_UNROLL for (int i = 0; i < 8; ++i) {
      c[i] = p.step[filter * 8 * p.pairs + i * p.pairs + lane];
    }
  }
  float tap[2] = {}, bias[3] = {};
  LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
    const int at = lane + 32 * i;
    if (at < p.taps) tap[i] = p.shift_taps[channel * p.taps + at];
  }
  if (p.bias != nullptr) {
    LONGWAVE_UNROLL for (int i = 0; i < 3; ++i) bias[i] = p.bias[i * p.heads + channel];
  }

  float re[kBatch], im[kBatch], past[kBatch][2], u[kBatch], gate[kBatch], k[kBatch];
  LONGWAVE_UNROLL for (int b = 0; b < kBatch; ++b) {
    const int64_t n = first + b, sequence = n * p.heads + channel;
    re[b] = im[b] = past[b][0] = past[b][1] = u[b] = k[b] = 0;
    gate[b] = 1;
    if (b >= count) continue;
    if (p.state_in != nullptr && lane < p.pairs) {
      re[b] = p.state_in[sequence * 2 * p.pairs + lane];
      im[b] = p.state_in[sequence * 2 * p.pairs + p.pairs + lane];
    }
    LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {
      const int ago = lane + 32 * i;
      if (p.halo_in != nullptr && ago > 0 && ago < p.taps) {
        past[b][i] = p.halo_in[sequence * (p.taps - 1) + p.taps - 1 - ago];
      }
    }
    const int64_t at = n * p.batch_stride + channel * p.channel_stride;
    u[b] = ToFloat(static_cast<const T*>(p.u)[at]) + bias[2];
    if (p.post_gate != nullptr) gate[b] = ToFloat(static_cast<const T*>(p.post_gate)[at]) + bias[0];
    if (p.pre_gate != nullptr) k[b] = ToFloat(static_cast<const T*>(p.pre_gate)[at]) + bias[1];
  }

  LONGWAVE_UNROLL for (int b = 0; b < kBatch; ++b) {
    if (b >= count) break;
    const int64_t n = first + b, sequence = n * p.heads + channel;
    float w = u[b];
    if (p.taps > 0) {
      if (lane == 0) past[b][0] = k[b];
      w *= Head<T>::WarpSum(fmaf(tap[0], past[b][0], tap[1] * past[b][1]));
      if (p.halo_out != nullptr) {
        LONGWAVE_UNROLL for (int i = 0; i < 2; ++i) {  // one token further back
          const int ago = lane + 32 * i;
          if (ago < p.taps - 1) p.halo_out[sequence * (p.taps - 1) + p.taps - 2 - ago] = past[b][i];
        }
      }
    } else if (p.pre_gate != nullptr) {
      w *= k[b];
    }
    const float x =
        fmaf(c[0], re[b], fmaf(-c[1], im[b], fmaf(c[2], re[b], fmaf(-c[3], im[b], c[4] * w))));
    const float z =
        fmaf(c[0], im[b], fmaf(c[1], re[b], fmaf(c[2], im[b], fmaf(c[3], re[b], c[5] * w))));
    if (lane < p.pairs) {
      p.state[sequence * 2 * p.pairs + lane] = x;
      p.state[sequence * 2 * p.pairs + p.pairs + lane] = z;
    }
    const float y = Head<T>::WarpSum(fmaf(c[6], x, c[7] * z)) + p.d[filter] * w;
    if (p.y != nullptr && lane == 0) {
      static_cast<T*>(p.y)[n * p.batch_stride + channel * p.channel_stride] =
          FromFloat<T>(gate[b] * y);
    }
  }
}

template <bool kHaloOnly>
absl::Status LaunchStep(const std::string& sizes, Dtype dtype, const StepParams& p,
                        Stream& stream) {
  const int64_t tasks = p.heads * ((p.batch + kBatch - 1) / kBatch);
  const dim3 grid(static_cast<unsigned>((tasks + kStepWarps - 1) / kStepWarps));
  const auto launch = [&](auto kernel) {
    return gpu::Launch("step", sizes, kernel, grid, kStepWarps * 32, 0, stream.queue().stream(), p);
  };
  const bool one_step =
      !kHaloOnly && p.length == 1 && p.head_dim == 1 && p.pairs <= 32 && p.taps <= 64;
  return gpu::WithType(dtype, [&](auto type) {
    using T = decltype(type);
    return one_step ? launch(OneStepKernel<T>) : launch(StepKernel<T, kHaloOnly>);
  });
}

// The state's memory between tokens: the caller's, or scratch.
absl::Status SetState(float* state_out, int64_t floats, StepParams& p, Stream& stream) {
  p.state = state_out;
  if (state_out != nullptr) return absl::OkStatus();
  absl::StatusOr<void*> scratch =
      stream.queue().Scratch(floats * static_cast<int64_t>(sizeof(float)));
  if (!scratch.ok()) return scratch.status();
  p.state = static_cast<float*>(*scratch);
  return absl::OkStatus();
}

StepParams H3Params(const H3MixDesc& desc, const H3MixArgs& args) {
  StepParams p = {};
  SetArrays(desc, args, p);
  p.batch = desc.batch;
  p.length = desc.length;
  p.heads = desc.heads;
  p.channels_per_filter = 1;
  p.halo_out = args.halo_out;
  return p;
}

}  // namespace

absl::Status RunSsmStep(const SsmConvDesc& desc, const SsmDeviceFilter& filter,
                        const SsmConvArgs& args, Stream& stream) {
  StepParams p = {};
  SetArrays(desc, args, p);
  p.batch = desc.batch;
  p.length = desc.length;
  p.heads = desc.channels;
  p.channels_per_filter = static_cast<int>(desc.channels_per_filter);
  p.step = filter.step.as<float>();
  p.d = filter.d(desc.channels / desc.channels_per_filter, desc.pairs);
  LONGWAVE_RETURN_IF_ERROR(
      SetState(args.state_out, desc.batch * desc.channels * 2 * desc.pairs, p, stream));
  return LaunchStep<false>(desc.ToString(), desc.dtype, p, stream);
}

absl::Status RunH3Step(const H3MixDesc& desc, const SsmDeviceFilter& filter, const H3MixArgs& args,
                       Stream& stream) {
  StepParams p = H3Params(desc, args);
  p.step = filter.step.as<float>();
  p.d = filter.d(desc.heads, desc.pairs);
  LONGWAVE_RETURN_IF_ERROR(SetState(
      args.state_out, desc.batch * desc.width() * desc.head_dim * 2 * desc.pairs, p, stream));
  return LaunchStep<false>(desc.ToString(), desc.dtype, p, stream);
}

absl::Status WriteHalo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream) {
  if (args.halo_out == nullptr || desc.shift_taps == 1) return absl::OkStatus();
  return LaunchStep<true>(desc.ToString(), desc.dtype, H3Params(desc, args), stream);
}

}  // namespace longwave

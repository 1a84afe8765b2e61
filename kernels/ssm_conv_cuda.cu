// SsmConv and H3Mix on a GPU: constants, tiles' sizes and launches of ssm_conv_kernel.cuh, and the
// small kernels around it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/gpu/vector.h"
#include "kernels/ssm_conv_cuda.h"
#include "kernels/ssm_conv_kernel.cuh"
#include "kernels/ssm_power.cuh"
#include "kernels/ssm_step_cuda.h"

namespace longwave {
namespace {

using gpu::Front;
using gpu::kPairs;
using gpu::kT;
using gpu::SlotPair;
using gpu::SlotToken;
using gpu::SsmParams;

constexpr int64_t kDeviceGroup16 = 2 * gpu::kMatrixBytes<__half> + sizeof(gpu::PairConstants);
constexpr int64_t kDeviceGroup32 = 2 * gpu::kMatrixBytes<float> + sizeof(gpu::PairConstants);

// ---- Constants

// A number's bits as the matrix fragments of `dtype` have it.
uint32_t Bits(double x, Dtype dtype) {
  uint16_t bits;
  if (dtype == Dtype::kBFloat16) {
    const __nv_bfloat16 v = __double2bfloat16(x);
    std::memcpy(&bits, &v, 2);
  } else {
    const __half v = __double2half(x);
    std::memcpy(&bits, &v, 2);
  }
  return bits;
}

// tf32: a float32 rounded to 10 bits of mantissa.
uint32_t Tf32(double x) {
  const float f = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return (bits + 0x1000u) & 0xffffe000u;
}

double ValueOf(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// The fragments of a matrix (64, 64) whose element at slots (p, q, e), (p', q', e') is
// value(p, q, e, p', q', e'): see BuildMatrix() in ssm_rows.cuh.
template <typename Value>
void FillMatrix(Dtype dtype, unsigned char* out, Value value) {
  const bool wide = dtype == Dtype::kFloat32;
  const int count = (wide ? gpu::kMatrixBytes<float> : gpu::kMatrixBytes<__half>) / 16;
  auto* words = reinterpret_cast<uint32_t*>(out);
  for (int i = 0; i < count; ++i) {
    const int lane = i % 32, g = lane / 4, q = lane % 4;
    for (int r = 0; r < 4; ++r) {
      if (wide) {
        const double x = value(i / 32 / 8, q, r % 2, i / 32 % 8, g / 2, g % 2);
        const uint32_t high = Tf32(x);
        words[4 * i + r] = r < 2 ? high : Tf32(x - ValueOf(high));
      } else {
        const int p = i / 32 / 4 * 2 + r % 2, j = i / 32 % 4 * 2 + r / 2;
        words[4 * i + r] = Bits(value(p, q, 0, j, g / 2, g % 2), dtype) |
                           Bits(value(p, q, 1, j, g / 2, g % 2), dtype) << 16;
      }
    }
  }
}

float2 High(Complex z) { return {static_cast<float>(z.real()), static_cast<float>(z.imag())}; }
float2 Low(Complex z) {
  const float2 high = High(z);
  return {static_cast<float>(z.real() - double{high.x}),
          static_cast<float>(z.imag() - double{high.y})};
}

// A power of two that brings the state of white noise near 1: float16 then has room on both sides.
double StateScale(Complex a, Complex b) {
  const double size = std::abs(b) / std::sqrt(std::max(1 - std::norm(a), 1e-9));
  if (!(size > 1e-30)) return 1;
  return std::exp2(std::clamp(-std::round(std::log2(size)), -60.0, 60.0));
}

void FillFilter(const DiagonalSsm& ssm, int64_t filter, Dtype dtype, int rows, int groups,
                unsigned char* out) {
  const int64_t matrix =
      dtype == Dtype::kFloat32 ? gpu::kMatrixBytes<float> : gpu::kMatrixBytes<__half>;
  double taps[kT];
  ssm.Taps(filter, absl::MakeSpan(taps));
  taps[0] += ssm.d[filter];
  FillMatrix(dtype, out, [&](int p, int q, int e, int p2, int q2, int e2) {
    const int from = SlotToken(p, q, e), to = SlotToken(p2, q2, e2);
    return to >= from ? taps[to - from] : 0.0;
  });
  out += matrix;
  std::vector<Complex> power((kT + 1) * kPairs);
  for (int group = 0; group < groups; ++group) {
    gpu::PairConstants constants = {};
    std::vector<Complex> in(kPairs), gain(kPairs);
    for (int n = 0; n < kPairs; ++n) {
      const int64_t pair = int64_t{group} * kPairs + n;
      constants.scale.of(n) = {1, 1};
      std::fill_n(power.begin() + n * (kT + 1), kT + 1, Complex(0));
      if (pair >= ssm.pairs) continue;
      const int64_t i = filter * ssm.pairs + pair;
      const Complex a = ssm.a[i];
      const double scale = StateScale(a, ssm.b[i]);
      power[n * (kT + 1)] = 1;
      for (int j = 1; j <= kT; ++j) power[n * (kT + 1) + j] = power[n * (kT + 1) + j - 1] * a;
      in[n] = ssm.b[i] * scale;
      gain[n] = 2.0 * ssm.c[i] / scale;
      constants.a.of(n) = High(a);
      constants.a_low.of(n) = Low(a);
      constants.b.of(n) = High(in[n]);
      constants.scale.of(n) = {static_cast<float>(scale), static_cast<float>(1 / scale)};
      constants.row.of(n) = High(Power(a, kT));
      constants.row_low.of(n) = Low(Power(a, kT));
      for (int g = 0; g <= gpu::kGroups; ++g) {
        const Complex z = Power(a, int64_t{kT} * rows * g);
        constants.group[g].of(n) = High(z);
        constants.group_low[g].of(n) = Low(z);
      }
    }
    const auto part = [](Complex z, int e) { return e == 0 ? z.real() : z.imag(); };
    // V: token t adds b a^(T-1-t) to the state.
    FillMatrix(dtype, out, [&](int p, int q, int e, int p2, int q2, int e2) {
      const int n = SlotPair(p2, q2);
      return part(in[n] * power[n * (kT + 1) + kT - 1 - SlotToken(p, q, e)], e2);
    });
    // W: the state before adds 2 Re(c a^(t+1) x) to token t.
    FillMatrix(dtype, out + matrix, [&](int p, int q, int e, int p2, int q2, int e2) {
      const int n = SlotPair(p, q);
      const Complex z = gain[n] * power[n * (kT + 1) + SlotToken(p2, q2, e2) + 1];
      return e == 0 ? z.real() : -z.imag();
    });
    std::memcpy(out + 2 * matrix, &constants, sizeof(constants));
    out += 2 * matrix + sizeof(constants);
  }
}

std::vector<float> StepConstants(const DiagonalSsm& ssm) {
  const int64_t P = ssm.pairs;
  std::vector<float> out(ssm.filters * (8 * P + 1));
  for (int64_t i = 0; i < ssm.filters * P; ++i) {
    float* to = out.data() + i / P * 8 * P + i % P;
    const float2 a = High(ssm.a[i]), low = Low(ssm.a[i]), b = High(ssm.b[i]);
    const float2 c = High(2.0 * ssm.c[i]);
    const float values[8] = {a.x, a.y, low.x, low.y, b.x, b.y, c.x, -c.y};
    for (int k = 0; k < 8; ++k) to[k * P] = values[k];
  }
  for (int64_t f = 0; f < ssm.filters; ++f) {
    out[ssm.filters * 8 * P + f] = static_cast<float>(ssm.d[f]);
  }
  return out;
}

// mma tiles of a warp: two where the registers hold them, so that a fragment of V, K or W is read
// once for 32 rows. (16 bits, measured: 1.84 ps at two tiles and 8 warps a multiprocessor; 2.2 ps
// at one tile and 12 warps, 2.4 ps at 16, whose registers spill.)
template <typename T>
constexpr int kTilesOf = std::is_same_v<T, float> ? 1 : 2;

// Blocks of one thread in the kernel for `dtype`.
int RowsOf(Dtype dtype) {
  return 2 * (dtype == Dtype::kFloat32 ? kTilesOf<float> : kTilesOf<__half>);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SsmDeviceFilter>> UploadSsmFilter(const DiagonalSsm& ssm,
                                                                       Dtype dtype,
                                                                       Stream& stream) {
  auto filter = std::make_shared<SsmDeviceFilter>();
  filter->device = stream.device().index;
  filter->dtype = dtype;
  filter->pair_groups = static_cast<int>((ssm.pairs + kPairs - 1) / kPairs);
  const bool wide = dtype == Dtype::kFloat32;
  filter->filter_bytes =
      (wide ? gpu::kMatrixBytes<float> : gpu::kMatrixBytes<__half>)+filter->pair_groups *
      (wide ? kDeviceGroup32 : kDeviceGroup16);
  std::vector<unsigned char> host(static_cast<size_t>(ssm.filters * filter->filter_bytes));
  stream.pool().ParallelFor(ssm.filters, [&](int64_t i, int) {
    FillFilter(ssm, i, dtype, RowsOf(dtype), filter->pair_groups,
               host.data() + i * filter->filter_bytes);
  });
  const std::vector<float> step = StepConstants(ssm);
  const int64_t step_bytes = static_cast<int64_t>(step.size() * sizeof(float));
  absl::StatusOr<gpu::DeviceArray> memory =
      gpu::DeviceArray::Allocate(filter->device, static_cast<int64_t>(host.size()));
  if (!memory.ok()) return memory.status();
  filter->dual = *std::move(memory);
  absl::StatusOr<gpu::DeviceArray> step_memory =
      gpu::DeviceArray::Allocate(filter->device, step_bytes);
  if (!step_memory.ok()) return step_memory.status();
  filter->step = *std::move(step_memory);
  gpu::Queue& queue = stream.queue();
  LONGWAVE_RETURN_IF_ERROR(
      queue.CopyToDevice(filter->dual.data(), host.data(), static_cast<int64_t>(host.size())));
  LONGWAVE_RETURN_IF_ERROR(queue.CopyToDevice(filter->step.data(), step.data(), step_bytes));
  LONGWAVE_RETURN_IF_ERROR(queue.Synchronize());
  return filter;
}

// ---- Small kernels

namespace {

struct CombineParams {
  const float* local;  // (sequences, segments, 2, pairs): what each segment adds, the last's unused
  float* before;       // (sequences, segments, 2, pairs): the state before each segment
  const float* state_in;
  const float* step;  // (filters, 8, pairs)
  int64_t sequences, channels, segment_length;
  int channels_per_filter, segments, pairs;
};

// One thread a sequence and pair: x_in[s+1] = a^c x_in[s] + x_local[s].
__global__ void CombineSegments(const CombineParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.sequences * p.pairs) return;
  const int64_t sequence = i / p.pairs, n = i % p.pairs;
  const float* c = p.step + sequence % p.channels / p.channels_per_filter * 8 * p.pairs + n;
  const double2 power = gpu::Power(gpu::StepFactor(c, p.pairs), p.segment_length);
  double x = 0, y = 0;
  if (p.state_in != nullptr) {
    x = p.state_in[sequence * 2 * p.pairs + n];
    y = p.state_in[sequence * 2 * p.pairs + p.pairs + n];
  }
  for (int s = 0; s < p.segments; ++s) {
    const int64_t at = (sequence * p.segments + s) * 2 * p.pairs + n;
    p.before[at] = static_cast<float>(x);
    p.before[at + p.pairs] = static_cast<float>(y);
    if (s + 1 == p.segments) break;
    const double r = power.x * x - power.y * y + p.local[at];
    y = power.x * y + power.y * x + p.local[at + p.pairs];
    x = r;
  }
}

// ---- Launches

// Sizes of a launch, from the descriptor alone.
struct Sizes {
  int64_t batch, channels, filters, length;
  int segments;
  int64_t segment_length;
  int multiprocessors;
  std::string text;  // for messages
};

template <typename Traits>
absl::Status LaunchTiles(const char* name, const Sizes& sizes, SsmParams p, int64_t passes,
                         Stream& stream) {
  using T = typename Traits::T;
  constexpr int64_t kTile = int64_t{gpu::kGroups} * Traits::kRows * kT;
  p.lanes_log2 = 0;
  while (1 << p.lanes_log2 < gpu::kGroups &&
         (Traits::kRows * kT) << p.lanes_log2 < p.segment_length) {
    ++p.lanes_log2;
  }
  const int64_t sequences = int64_t{p.filter_sequences} * p.run_segments;
  const int64_t per_item = gpu::kGroups >> p.lanes_log2;
  const int64_t together = (sequences + per_item - 1) / per_item;
  const int64_t items = together * ((p.segment_length + kTile - 1) / kTile);
  // Enough thread blocks to fill the device, and several rounds of them where each still has much
  // to do.
  const auto rounds = [&](int64_t blocks) {
    return (blocks * sizes.multiprocessors + sizes.filters - 1) / sizes.filters;
  };
  p.splits = static_cast<int>(
      std::min(together, std::max(rounds(8 / Traits::kWarps), std::min(rounds(16), items / 32))));
  p.splits = std::max(p.splits, 1);
  const auto is_aligned = [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
  };
  constexpr int64_t kVector = 16 / sizeof(T);
  p.aligned = is_aligned(p.u) && is_aligned(p.pre_gate) && is_aligned(p.post_gate) &&
              is_aligned(p.y) && is_aligned(p.kv) && p.batch_stride % kVector == 0 &&
              p.channel_stride % kVector == 0;
  return gpu::Launch(name, sizes.text, gpu::SsmKernel<Traits>,
                     dim3(static_cast<unsigned>(sizes.filters * p.splits)), Traits::kThreads,
                     gpu::SsmShared<Traits>::Bytes(passes), stream.queue().stream(), p);
}

template <typename T>
absl::Status LaunchType(const char* name, const Sizes& sizes, const SsmParams& p, Stream& stream) {
  constexpr int kTiles = kTilesOf<T>, kBlocks = 2;
  if (p.pair_groups > 1 || p.head_dim > 1 || p.taps > kT) {
    return LaunchTiles<gpu::SsmTraits<T, Front::kGeneral, true, 1, kTiles, 1>>(
        name, sizes, p, int64_t{p.head_dim} * p.pair_groups, stream);
  }
  const auto launch = [&](auto traits) {
    return LaunchTiles<decltype(traits)>(name, sizes, p, 1, stream);
  };
  if (p.taps > 0) {
    return p.y != nullptr ? launch(gpu::SsmTraits<T, Front::kShift, true, 4, kTiles, kBlocks>{})
                          : launch(gpu::SsmTraits<T, Front::kShift, false, 4, kTiles, kBlocks>{});
  }
  const bool gates = p.pre_gate != nullptr || p.post_gate != nullptr;
  if (p.y != nullptr) {
    return gates ? launch(gpu::SsmTraits<T, Front::kGates, true, 4, kTiles, kBlocks>{})
                 : launch(gpu::SsmTraits<T, Front::kNone, true, 4, kTiles, kBlocks>{});
  }
  return gates ? launch(gpu::SsmTraits<T, Front::kGates, false, 4, kTiles, kBlocks>{})
               : launch(gpu::SsmTraits<T, Front::kNone, false, 4, kTiles, kBlocks>{});
}

absl::Status LaunchDual(const char* name, const Sizes& sizes, const SsmParams& p, Dtype dtype,
                        Stream& stream) {
  return gpu::WithType(
      dtype, [&](auto type) { return LaunchType<decltype(type)>(name, sizes, p, stream); });
}

// The dual form: in one launch, or for segments the state-only pass, their states, and the rest.
absl::Status RunDual(const char* name, const Sizes& sizes, SsmParams p,
                     const SsmDeviceFilter& filter, Stream& stream) {
  // The kernel counts a filter's sequences, and the filters, in 32 bits.
  const int64_t filter_channels = sizes.channels / sizes.filters;
  if (sizes.filters > INT32_MAX || filter_channels > INT32_MAX ||
      sizes.batch > INT32_MAX / sizes.segments / filter_channels) {
    return absl::InvalidArgumentError(absl::StrCat(
        sizes.text, ": ", sizes.batch, " batch entries x ", filter_channels,
        " channels a filter x ", sizes.segments, " segments, of ", sizes.filters,
        " filters: more than ", INT32_MAX, " sequences of a filter or filters on a GPU"));
  }
  p.filter_channels = static_cast<int>(filter_channels);
  p.filter_sequences = static_cast<int>(sizes.batch * filter_channels);
  p.heads = static_cast<int>(sizes.filters);
  p.filters = filter.dual.as<unsigned char>();
  p.filter_bytes = filter.filter_bytes;
  p.pair_groups = filter.pair_groups;
  p.length = sizes.length;
  p.channels = sizes.channels;
  p.segments = p.run_segments = sizes.segments;
  p.segment_length = sizes.segments > 1 ? sizes.segment_length : sizes.length;
  if (sizes.segments == 1) return LaunchDual(name, sizes, p, filter.dtype, stream);

  const int64_t sequences = sizes.batch * sizes.channels;
  const int64_t floats = sequences * sizes.segments * 2 * p.pairs;
  absl::StatusOr<void*> scratch =
      stream.queue().Scratch(2 * floats * static_cast<int64_t>(sizeof(float)));
  if (!scratch.ok()) return scratch.status();
  auto* local = static_cast<float*>(*scratch);
  float* before = local + floats;
  SsmParams states = p;
  states.y = nullptr;
  states.post_gate = nullptr;
  states.kv = nullptr;
  states.state_in = nullptr;
  states.state_out = local;
  states.run_segments = sizes.segments - 1;
  LONGWAVE_RETURN_IF_ERROR(LaunchDual(name, sizes, states, filter.dtype, stream));
  const CombineParams combine{
      local,          before,         p.state_in,           filter.step.as<float>(),
      sequences,      sizes.channels, sizes.segment_length, p.filter_channels,
      sizes.segments, p.pairs};
  LONGWAVE_RETURN_IF_ERROR(
      gpu::Launch("CombineSegments", sizes.text, CombineSegments,
                  dim3(static_cast<unsigned>((sequences * p.pairs + 127) / 128)), 128, 0,
                  stream.queue().stream(), combine));
  p.state_in = before;
  p.only_last = true;
  return LaunchDual(name, sizes, p, filter.dtype, stream);
}

}  // namespace

absl::Status RunSsmConvCuda(const SsmConvPlan& plan, const SsmDeviceFilter& filter,
                            const SsmConvArgs& args, Stream& stream) {
  const SsmConvDesc& desc = plan.desc;
  if (plan.evaluation == SsmEvaluation::kStep) return RunSsmStep(desc, filter, args, stream);
  SsmParams p = {};
  SetArrays(desc, args, p);
  p.state_out = args.state_out;
  const Sizes sizes{desc.batch,
                    desc.channels,
                    desc.channels / desc.channels_per_filter,
                    desc.length,
                    static_cast<int>(plan.segments),
                    plan.segment_length,
                    stream.device().multiprocessors,
                    desc.ToString()};
  return RunDual("SsmConv", sizes, p, filter, stream);
}

absl::Status RunH3MixCuda(const H3MixPlan& plan, const SsmDeviceFilter& filter,
                          const H3MixArgs& args, Stream& stream) {
  const H3MixDesc& desc = plan.desc;
  if (plan.evaluation == SsmEvaluation::kStep) return RunH3Step(desc, filter, args, stream);
  SsmParams p = {};
  SetArrays(desc, args, p);
  p.kv = args.kv;
  if (args.kv != nullptr && args.y != nullptr) {  // what remains is SsmConv with a gate after
    p.u = args.kv;
    p.pre_gate = nullptr;
    p.taps = 0;
  }
  p.state_out = args.state_out;
  const Sizes sizes{desc.batch,
                    desc.width(),
                    desc.heads,
                    desc.length,
                    static_cast<int>(plan.segments),
                    plan.segment_length,
                    stream.device().multiprocessors,
                    desc.ToString()};
  LONGWAVE_RETURN_IF_ERROR(RunDual("H3Mix", sizes, p, filter, stream));
  return WriteHalo(desc, args, stream);
}

}  // namespace longwave

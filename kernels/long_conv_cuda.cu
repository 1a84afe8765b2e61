// LongConv on a GPU: tables and filters, and the launches of each evaluation.
#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/long_conv_cuda.h"
#include "kernels/long_conv_kernel.cuh"
#include "kernels/long_conv_toeplitz.cuh"

namespace longwave {
namespace {

using long_conv::ColumnsParams;
using long_conv::Complex;
using long_conv::FftConvParams;
using long_conv::Items;
using long_conv::kRootRows;

constexpr int64_t kMaxGrid = (int64_t{1} << 31) - 1;

// ---- Tables of roots

// Appends (kRootRows, width): in column m, e(m / (4 n)), then e(m / n) to the 1, 2, ... 16.
void AppendRoots(int64_t width, int64_t n, std::vector<Complex>* roots) {
  const auto root = [](int64_t a, int64_t b) {
    const double angle =
        2 * 3.14159265358979323846 * static_cast<double>(a % b) / static_cast<double>(b);
    return Complex{static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
  };
  for (int64_t m = 0; m < width; ++m) roots->push_back(root(m, 4 * n));
  for (int i = 0; i < kRootRows - 1; ++i) {
    for (int64_t m = 0; m < width; ++m) roots->push_back(root(m << i, n));
  }
}

// Where each table stands in LongConvFilter::OnDevice::roots.
struct RootTables {
  int64_t first, second, inner, outer, steps, end;
  explicit RootTables(const LongConvRadices& r) {
    first = 0;
    second = first + kRootRows * r.second * r.third;
    inner = second + kRootRows * r.third;
    outer = inner + (r.columns() > 1 ? kRootRows * r.columns2 : 0);
    steps = outer + (r.columns() > 1 ? kRootRows * r.row() : 0);
    end = steps + (r.columns2 > 1 ? kRootRows * r.row() : 0);
  }
};

std::vector<Complex> MakeRoots(const LongConvRadices& r) {
  std::vector<Complex> roots;
  roots.reserve(RootTables(r).end);
  const int64_t N = r.columns() * r.row(), M = int64_t{r.second} * r.third;
  AppendRoots(M, r.row(), &roots);
  AppendRoots(r.third, M, &roots);
  if (r.columns() > 1) {
    AppendRoots(r.columns2, r.columns(), &roots);
    AppendRoots(r.row(), N, &roots);
  }
  if (r.columns2 > 1) AppendRoots(r.row(), N / r.columns1, &roots);
  return roots;
}

// ---- Launches

template <int R2, int R3, Items kItems>
absl::Status LaunchFftConvOf(const LongConvPlan& plan, FftConvParams p, Stream& stream) {
  using Shape = long_conv::FftConvShape<R2, R3>;
  p.groups = (p.items + Shape::kSequences - 1) / Shape::kSequences;
  const int64_t blocks = kItems == Items::kSequences ? plan.thread_blocks
                         : kItems == Items::kRows    ? p.groups
                                                     : int64_t{p.groups} * plan.desc.channels;
  if (blocks > kMaxGrid) {
    return absl::InvalidArgumentError(
        absl::StrCat(plan.ToString(), ": more than ", kMaxGrid, " blocks of tokens"));
  }
  return gpu::Launch(
      "FftConvKernel", plan.ToString(), long_conv::FftConvKernel<R2, R3, kItems>,
      dim3(static_cast<unsigned>(blocks)), plan.threads,
      Shape::kSequences * Shape::Row(p.first_radix * R2) * static_cast<int64_t>(sizeof(Complex)),
      stream.queue().stream(), p);
}

absl::Status LaunchFftConv(const LongConvPlan& plan, Items items, const FftConvParams& p,
                           Stream& stream) {
  const auto key = [](Items i, int second, int third) {
    return (static_cast<int>(i) * 256 + second) * 256 + third;
  };
  switch (key(items, plan.radices.second, plan.radices.third)) {
    case key(Items::kBlocks, 1, 16):
      return LaunchFftConvOf<1, 16, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 1, 32):
      return LaunchFftConvOf<1, 32, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 4, 16):
      return LaunchFftConvOf<4, 16, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 8, 16):
      return LaunchFftConvOf<8, 16, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 16, 16):
      return LaunchFftConvOf<16, 16, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 16, 32):
      return LaunchFftConvOf<16, 32, Items::kBlocks>(plan, p, stream);
    case key(Items::kBlocks, 32, 32):
      return LaunchFftConvOf<32, 32, Items::kBlocks>(plan, p, stream);
    case key(Items::kSequences, 32, 32):
      return LaunchFftConvOf<32, 32, Items::kSequences>(plan, p, stream);
    case key(Items::kRows, 8, 16):
      return LaunchFftConvOf<8, 16, Items::kRows>(plan, p, stream);
    case key(Items::kRows, 16, 16):
      return LaunchFftConvOf<16, 16, Items::kRows>(plan, p, stream);
    case key(Items::kRows, 16, 32):
      return LaunchFftConvOf<16, 32, Items::kRows>(plan, p, stream);
    case key(Items::kRows, 32, 32):
      return LaunchFftConvOf<32, 32, Items::kRows>(plan, p, stream);
    default:
      return absl::InternalError(absl::StrCat(plan.ToString(), ": no kernel of these radices"));
  }
}

absl::Status LaunchColumns(const LongConvPlan& plan, bool forward, int64_t sequences,
                           ColumnsParams p, Stream& stream) {
  const LongConvRadices& r = plan.radices;
  const bool tiled = r.columns2 > 1;
  const int64_t columns = tiled ? long_conv::kColumns : long_conv::kColumnThreads;
  p.tiles = static_cast<unsigned>((r.row() + columns - 1) / columns);
  const int64_t shared = tiled ? r.columns() * columns * static_cast<int64_t>(sizeof(Complex)) : 0;
  const auto kernel =
      tiled ? (forward ? long_conv::ColumnsKernel<16, true> : long_conv::ColumnsKernel<16, false>)
            : (forward ? long_conv::ColumnsKernel<1, true> : long_conv::ColumnsKernel<1, false>);
  if (sequences * p.tiles > kMaxGrid) {
    return absl::InvalidArgumentError(absl::StrCat(plan.ToString(), ": too many columns"));
  }
  return gpu::Launch(forward ? "ColumnsKernel forward" : "ColumnsKernel back", plan.ToString(),
                     kernel, dim3(static_cast<unsigned>(sequences * p.tiles)),
                     long_conv::kColumnThreads, shared, stream.queue().stream(), p);
}

// What launches have in common.
FftConvParams FftConvParamsOf(const LongConvPlan& plan, const Complex* roots) {
  FftConvParams p = {};
  const RootTables at(plan.radices);
  p.blocks = 1;
  p.batch = 1;
  p.rows_of_sequence = static_cast<unsigned>(plan.radices.columns());
  p.filters = static_cast<unsigned>(plan.filters);
  p.filter_stride = plan.desc.channels * plan.block;
  p.first_radix = plan.radices.first;
  p.first_roots = roots + at.first;
  p.second_roots = roots + at.second;
  return p;
}
ColumnsParams ColumnsParamsOf(const LongConvPlan& plan, const Complex* roots) {
  ColumnsParams p = {};
  const RootTables at(plan.radices);
  p.R = plan.radices.row();
  p.first_radix = plan.radices.columns1;
  p.inner_roots = roots + at.inner;
  p.outer_roots = roots + at.outer;
  p.outer_steps = roots + at.steps;
  return p;
}

// ---- Memory

absl::Status Allocate(int64_t bytes, Stream& stream, gpu::DeviceArray* array) {
  absl::StatusOr<gpu::DeviceArray> made =
      gpu::DeviceArray::Allocate(stream.queue().device(), bytes);
  if (made.ok()) *array = *std::move(made);
  return made.status();
}
absl::Status Upload(const void* host, int64_t bytes, Stream& stream, gpu::DeviceArray* array) {
  LONGWAVE_RETURN_IF_ERROR(Allocate(bytes, stream, array));
  return stream.queue().CopyToDevice(array->data(), host, bytes);
}

// ---- Filters

// taps = scale * out, the largest of them 1.
template <typename T>
void RoundTaps(const float* taps, int64_t count, T* out, float* scale) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(taps[i]));
  *scale = largest > 0 && std::isfinite(largest) ? largest : 1.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = taps[i] / *scale;
    if constexpr (std::is_same_v<T, __half>) {
      out[i] = __float2half_rn(scaled);
    } else {
      out[i] = __float2bfloat16_rn(scaled);
    }
  }
}

template <typename T>
absl::Status CreateToeplitz(const LongConvPlan& plan, const float* taps, Stream& stream,
                            LongConvFilter::OnDevice* filter) {
  const LongConvDesc& desc = plan.desc;
  const int64_t used = std::min(desc.taps, desc.length);
  std::vector<T> rounded(desc.channels * used);
  std::vector<float> scales(desc.channels);
  for (int64_t c = 0; c < desc.channels; ++c) {
    RoundTaps(taps + c * desc.taps, used, rounded.data() + c * used, &scales[c]);
  }
  LONGWAVE_RETURN_IF_ERROR(Upload(rounded.data(), desc.channels * used * 2, stream, &filter->taps));
  LONGWAVE_RETURN_IF_ERROR(Upload(scales.data(), desc.channels * 4, stream, &filter->scales));
  return stream.queue().Synchronize();
}

// The taps' spectrum by the same kernels that transform tokens, so in their order and with no error
// larger than theirs.
absl::Status CreateSpectrum(const LongConvPlan& plan, const float* taps, Stream& stream,
                            LongConvFilter::OnDevice* filter) {
  const LongConvDesc& desc = plan.desc;
  const LongConvRadices& radices = plan.radices;
  const int64_t N = plan.block, used = std::min(desc.taps, desc.length);
  constexpr int64_t kComplex = sizeof(Complex);
  const std::vector<Complex> roots = MakeRoots(radices);
  gpu::DeviceArray device_taps;
  LONGWAVE_RETURN_IF_ERROR(
      Upload(roots.data(), static_cast<int64_t>(roots.size()) * kComplex, stream, &filter->roots));
  LONGWAVE_RETURN_IF_ERROR(
      Allocate(plan.filters * desc.channels * N * kComplex, stream, &filter->spectrum));
  // Rows of whole blocks, zeros after the last tap.
  const int64_t row = plan.filters * N;
  LONGWAVE_RETURN_IF_ERROR(Allocate(desc.channels * row * 4, stream, &device_taps));
  LONGWAVE_RETURN_IF_ERROR(stream.queue().Fill(device_taps.data(), 0, desc.channels * row * 4));
  for (int64_t c = 0; c < desc.channels; ++c) {
    LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyToDevice(device_taps.as<float>() + c * row,
                                                         taps + c * desc.taps, used * 4));
  }

  FftConvParams p = FftConvParamsOf(plan, filter->roots.as<Complex>());
  p.spectrum_scale = static_cast<float>(1.0 / static_cast<double>(N));
  p.spectrum_out = filter->spectrum.as<Complex>();
  long_conv::Tokens tokens = {};
  tokens.u = device_taps.as<float>();
  tokens.dtype = Dtype::kFloat32;
  tokens.channel_stride = row;
  tokens.length = row;
  if (radices.columns() == 1) {
    p.tokens = tokens;
    p.items = p.blocks = static_cast<unsigned>(plan.filters);
    LONGWAVE_RETURN_IF_ERROR(LaunchFftConv(plan, Items::kBlocks, p, stream));
    return stream.queue().Synchronize();
  }
  for (int64_t j = 0; j < plan.filters; ++j) {
    tokens.u = device_taps.as<float>() + j * N;
    tokens.length = N;
    // The columns' transforms go to where the spectrum will stand, a row from itself to itself.
    ColumnsParams columns = ColumnsParamsOf(plan, filter->roots.as<Complex>());
    columns.tokens = tokens;
    columns.batch = 1;
    columns.rows = p.rows = p.spectrum_out = filter->spectrum.as<Complex>() + j * desc.channels * N;
    LONGWAVE_RETURN_IF_ERROR(LaunchColumns(plan, true, desc.channels, columns, stream));
    p.items = static_cast<unsigned>(desc.channels * radices.columns());
    LONGWAVE_RETURN_IF_ERROR(LaunchFftConv(plan, Items::kRows, p, stream));
  }
  return stream.queue().Synchronize();
}

// Kernels count sequences, blocks and rows in 32 bits (elements in 64).
absl::Status CheckCounts(const LongConvPlan& plan) {
  const LongConvDesc& desc = plan.desc;
  const double sequences = static_cast<double>(desc.batch) * static_cast<double>(desc.channels);
  const double pieces = static_cast<double>(std::max(plan.input_blocks, plan.radices.columns()));
  if (sequences * pieces < static_cast<double>(kMaxGrid)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(plan.ToString(), ": more than ", kMaxGrid, " blocks of tokens"));
}

// ---- Evaluations

long_conv::Tokens TokensOf(const LongConvDesc& desc, const LongConvArgs& args) {
  return {args.u,     args.pre_gate,     args.post_gate,      args.y,
          desc.dtype, args.batch_stride, args.channel_stride, desc.length};
}

// A copy of everything between an array's first and last token, in scratch.
absl::Status CopyTokens(const LongConvPlan& plan, const LongConvArgs& args, Stream& stream,
                        const void** array) {
  const LongConvDesc& desc = plan.desc;
  const int64_t bytes = ((desc.batch - 1) * args.batch_stride +
                         (desc.channels - 1) * args.channel_stride + desc.length) *
                        SizeOf(desc.dtype);
  const absl::StatusOr<void*> copy = stream.queue().Scratch(bytes);
  if (!copy.ok()) return copy.status();
  LONGWAVE_RETURN_IF_ERROR(stream.queue().CopyOnDevice(*copy, *array, bytes));
  *array = *copy;
  return absl::OkStatus();
}

absl::Status RunOnChip(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                       const LongConvArgs& args, Stream& stream) {
  FftConvParams p = FftConvParamsOf(plan, filter.roots.as<Complex>());
  p.tokens = TokensOf(plan.desc, args);
  p.blocks = static_cast<unsigned>(plan.input_blocks);
  p.spectrum = filter.spectrum.as<Complex>();
  if (plan.tap_blocks > 1) {
    const absl::StatusOr<void*> scratch = stream.queue().Scratch(plan.device_scratch);
    if (!scratch.ok()) return scratch.status();
    p.passed = static_cast<Complex*>(*scratch);
    p.items = static_cast<unsigned>(plan.desc.batch * plan.desc.channels);
    p.batch = static_cast<unsigned>(plan.desc.batch);
    return LaunchFftConv(plan, Items::kSequences, p, stream);
  }
  // A block of tokens reads the one before it, which may have been written.
  if (plan.input_blocks > 1 && args.y == args.u) {
    LONGWAVE_RETURN_IF_ERROR(CopyTokens(plan, args, stream, &p.tokens.u));
    if (args.pre_gate == args.u) p.tokens.pre_gate = p.tokens.u;
  } else if (plan.input_blocks > 1 && args.y == args.pre_gate) {
    LONGWAVE_RETURN_IF_ERROR(CopyTokens(plan, args, stream, &p.tokens.pre_gate));
  }
  p.items = static_cast<unsigned>(plan.desc.batch * plan.input_blocks);
  return LaunchFftConv(plan, Items::kBlocks, p, stream);
}

// Sequences in groups whose rows stay in the L2 cache. Blocks of tokens from the last to the first:
// an output over an input destroys what later blocks alone would read.
absl::Status RunOuter(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                      const LongConvArgs& args, Stream& stream) {
  const LongConvDesc& desc = plan.desc;
  const int64_t N = plan.block;
  const absl::StatusOr<void*> scratch = stream.queue().Scratch(plan.device_scratch);
  if (!scratch.ok()) return scratch.status();
  ColumnsParams columns = ColumnsParamsOf(plan, filter.roots.as<Complex>());
  columns.tokens = TokensOf(desc, args);
  columns.batch = static_cast<unsigned>(desc.batch);
  columns.rows = static_cast<Complex*>(*scratch);
  if (plan.tap_blocks > 1) {
    columns.sum = reinterpret_cast<float*>(columns.rows + plan.sequences * N);
  }
  FftConvParams rows = FftConvParamsOf(plan, filter.roots.as<Complex>());
  rows.rows = columns.rows;
  rows.batch = static_cast<unsigned>(desc.batch);
  for (int64_t first = 0; first < desc.batch * desc.channels; first += plan.sequences) {
    const int64_t sequences = std::min(plan.sequences, desc.batch * desc.channels - first);
    columns.first_channel = rows.first_channel = static_cast<unsigned>(first / desc.batch);
    columns.first_batch = rows.first_batch = static_cast<unsigned>(first % desc.batch);
    rows.items = static_cast<unsigned>(sequences * plan.radices.columns());
    for (int64_t b = plan.input_blocks - 1; b >= 0; --b) {
      const int64_t filters = std::min(plan.tap_blocks, b + 1);
      for (int64_t j = 0; j < filters; ++j) {
        columns.begin = b * N;
        columns.input_begin = (b - j) * N;
        columns.first_of_sum = j == 0;
        columns.last_of_sum = j == filters - 1;
        rows.spectrum = filter.spectrum.as<Complex>() + j * desc.channels * N;
        LONGWAVE_RETURN_IF_ERROR(LaunchColumns(plan, true, sequences, columns, stream));
        LONGWAVE_RETURN_IF_ERROR(LaunchFftConv(plan, Items::kRows, rows, stream));
        LONGWAVE_RETURN_IF_ERROR(LaunchColumns(plan, false, sequences, columns, stream));
      }
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status RunToeplitz(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                         const LongConvArgs& args, Stream& stream) {
  const LongConvDesc& desc = plan.desc;
  long_conv::ToeplitzParams p = {};
  p.u = args.u;
  p.pre_gate = args.pre_gate;
  p.post_gate = args.post_gate;
  p.y = args.y;
  p.batch_stride = args.batch_stride;
  p.channel_stride = args.channel_stride;
  p.batch = desc.batch;
  p.length = static_cast<int>(desc.length);
  p.taps = static_cast<int>(std::min(desc.taps, desc.length));
  p.groups = static_cast<int>(plan.row_groups);
  p.row_blocks = (desc.batch + 32 * plan.row_groups - 1) / (32 * plan.row_groups);
  uintptr_t bits = static_cast<uintptr_t>(2 * (args.batch_stride | args.channel_stride));
  for (const void* array :
       {args.u, args.pre_gate, args.post_gate, const_cast<const void*>(args.y)}) {
    bits |= reinterpret_cast<uintptr_t>(array);
  }
  p.vectors = bits % 16 == 0;
  p.h = filter.taps.data();
  p.scales = filter.scales.as<float>();
  const int64_t blocks = p.row_blocks * desc.channels;
  if (blocks > kMaxGrid) {
    return absl::InvalidArgumentError(absl::StrCat(plan.ToString(), ": too many sequences"));
  }
  return gpu::Launch("ToeplitzKernel", plan.ToString(), long_conv::ToeplitzKernel<T>,
                     dim3(static_cast<unsigned>(blocks)), long_conv::kToeplitzThreads,
                     long_conv::ToeplitzShared(p.length, p.groups), stream.queue().stream(), p);
}

}  // namespace

absl::Status CreateLongConvFilterCuda(const LongConvPlan& plan, const float* taps, Stream& stream,
                                      LongConvFilter::OnDevice* filter) {
  LONGWAVE_RETURN_IF_ERROR(CheckCounts(plan));
  if (plan.evaluation != LongConvEvaluation::kToeplitz) {
    return CreateSpectrum(plan, taps, stream, filter);
  }
  if (plan.desc.dtype == Dtype::kFloat16) {
    return CreateToeplitz<__half>(plan, taps, stream, filter);
  }
  return CreateToeplitz<__nv_bfloat16>(plan, taps, stream, filter);
}

absl::Status RunLongConvCuda(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                             const LongConvArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckCounts(plan));
  switch (plan.evaluation) {
    case LongConvEvaluation::kToeplitz:
      return plan.desc.dtype == Dtype::kFloat16
                 ? RunToeplitz<__half>(plan, filter, args, stream)
                 : RunToeplitz<__nv_bfloat16>(plan, filter, args, stream);
    case LongConvEvaluation::kOnChipFft:
      return RunOnChip(plan, filter, args, stream);
    case LongConvEvaluation::kOuterFft:
      return RunOuter(plan, filter, args, stream);
    case LongConvEvaluation::kAuto:
    case LongConvEvaluation::kBlockFft:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat(plan.ToString(), ": this plan is for a CPU"));
}

}  // namespace longwave

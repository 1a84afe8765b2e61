#include "kernels/long_conv.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/fft_conv.h"
#include "kernels/long_conv_cuda.h"

namespace longwave {

absl::Status LongConvDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "length", length, 1, int64_t{1} << 36));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "taps", taps, 1));
  return CheckRange("LongConv", "block", block, 0);
}

std::string LongConvDesc::ToString() const {
  return absl::StrCat(
      "LongConv(batch=", batch, " channels=", channels, " length=", length, " taps=", taps, " ",
      Name(dtype),
      evaluation == LongConvEvaluation::kAuto ? "" : absl::StrCat(" ", Name(evaluation)),
      block == 0 ? "" : absl::StrCat(" block=", block), ")");
}

const char* Name(LongConvEvaluation evaluation) {
  switch (evaluation) {
    case LongConvEvaluation::kAuto:
      return "auto";
    case LongConvEvaluation::kBlockFft:
      return "block_fft";
    case LongConvEvaluation::kToeplitz:
      return "toeplitz";
    case LongConvEvaluation::kOnChipFft:
      return "on_chip_fft";
    case LongConvEvaluation::kOuterFft:
      return "outer_fft";
  }
  return "?";
}

std::string LongConvPlan::ToString() const {
  return absl::StrCat(desc.ToString(), ": ", Name(evaluation), " N=", block, " = ",
                      radices.columns1, "*", radices.columns2, " * ", radices.first, "*",
                      radices.second, "*", radices.third, ", ", input_blocks, " x ", tap_blocks,
                      " blocks, ", threads, " threads, ", sequences, " sequences at a time, ",
                      device_scratch, " bytes of scratch");
}

namespace {

// ---- Plans for a GPU

// On chip N = R1 M. FftConvKernel has these M = R2 R3 and R1.
constexpr int kMiddles[][2] = {{1, 16}, {1, 32}, {4, 16}, {8, 16}, {16, 16}, {16, 32}, {32, 32}};
constexpr int kFirsts[] = {8, 9, 10, 12, 14, 16};
constexpr int kManyBlocksMiddle = 1024;        // M of the kernel for more taps than N
constexpr int64_t kSmallestRow = 2048;         // of an outer transform
constexpr int64_t kSpectraInCache = 32 << 20;  // bytes, of kOnChipFft with more taps than N
constexpr int64_t kRowsInCache = 26 << 20;     // bytes of an outer transform's rows at a time
// The longest Toeplitz product whose tokens fit in shared memory: 186 KB, or 148.
constexpr int64_t kToeplitzMinLength = 16;
constexpr int64_t kToeplitzMaxLength = 2048, kToeplitzMaxLengthInLess = 1536;

// Every shape there is, on chip or with columns, by rising N, without two of one N: the one with
// the shorter rows, of which more fit on a multiprocessor.
std::vector<LongConvRadices> Shapes(bool outer) {
  std::vector<LongConvRadices> shapes;
  for (const auto& middle : kMiddles) {
    if (!outer) {
      for (const int first : kFirsts) shapes.push_back({1, 1, first, middle[0], middle[1]});
    } else if (16 * middle[0] * middle[1] >= kSmallestRow) {
      for (const int columns2 : {1, 16}) {
        for (const int columns1 : kFirsts) {
          shapes.push_back({columns1, columns2, 16, middle[0], middle[1]});
        }
      }
    }
  }
  const auto size = [](const LongConvRadices& r) { return r.columns() * r.row(); };
  std::stable_sort(shapes.begin(), shapes.end(), [&](const auto& a, const auto& b) {
    return size(a) != size(b) ? size(a) < size(b) : a.row() < b.row();
  });
  shapes.erase(std::unique(shapes.begin(), shapes.end(),
                           [&](const auto& a, const auto& b) { return size(a) == size(b); }),
               shapes.end());
  return shapes;
}

// How rows of R1 M values run on a multiprocessor.
struct Occupancy {
  int threads = 0;       // of a block
  int64_t resident = 0;  // blocks
  double steps = 0;      // that threads take one after the other, for a value
};

// The number of threads that leaves least of them without work: a pass has M, R1 R3 or R1 R2
// columns of R1, R2 or R3 values for them. 24 warps have enough registers for columns of 16, 16
// for 32.
Occupancy BestOccupancy(const LongConvRadices& r, Device device) {
  const int64_t M = int64_t{r.second} * r.third;
  if (M < 128) return {128, 6, 1};  // several sequences a block
  const int64_t shared = (device.shared_bytes > 0 ? device.shared_bytes : 227 << 10) + 1024;
  const int64_t values = r.row() / r.third * (r.third + 1);
  const int most = M >= 1024 ? 512 : M >= 256 ? 256 : 128;
  Occupancy best;
  for (int threads = most; threads > 0; threads -= 32) {
    const int64_t resident =
        std::min<int64_t>((r.third > 16 ? 16 : 24) / (threads / 32), shared / (8 * values + 1024));
    const auto pass = [&](int64_t columns, int radix) {
      return static_cast<double>((columns + threads - 1) / threads * radix);
    };
    const double steps = (pass(M, r.first) + pass(int64_t{r.first} * r.third, r.second) +
                          pass(int64_t{r.first} * r.second, r.third)) /
                         static_cast<double>(std::max<int64_t>(resident, 1) * r.row());
    // Of equals the most threads, but rather two blocks than one, so that they wait in turns.
    if (best.threads == 0 || steps < best.steps || (steps == best.steps && best.resident == 1))
      best = {threads, resident, steps};
  }
  return best;
}

// Predicted time in ps for each token and channel of an H100: measured at powers of two, from
// counts in between. Between them only part of the time that threads wait shows: its root.
double OnChipCost(const LongConvDesc& desc, int64_t taps, const LongConvRadices& radices,
                  Device device) {
  const int64_t N = radices.row();
  const double n = static_cast<double>(N);
  const int M = radices.second * radices.third;
  const double full = M >= 1024 ? 6.4 : M >= 512 ? 5.6 : M >= 256 ? 5.2 : M >= 128 ? 5.0 : 4.5;
  LongConvRadices sixteen = radices;
  sixteen.first = 16;
  const Occupancy here = BestOccupancy(radices, device);
  const double blocks = std::ceil(static_cast<double>(desc.length) / n);
  double cost = full * std::sqrt(here.steps / BestOccupancy(sixteen, device).steps);
  if (taps > N) {
    // Products beyond a block's first, and spectra written; they come from the L2 cache if they fit
    // there. Sequences in waves.
    const double filters = std::min(std::ceil(static_cast<double>(taps) / n) + 1, blocks);
    const double products =
        (filters * (filters - 1) / 2 + (blocks - filters) * (filters - 1)) / blocks;
    const double slots = static_cast<double>(std::max(device.multiprocessors, 1)) *
                         static_cast<double>(here.resident);
    const bool cached = slots * (filters - 1) * n * 8 < static_cast<double>(kSpectraInCache);
    const double sequences = static_cast<double>(desc.batch) * static_cast<double>(desc.channels);
    cost += products * (cached ? 2 : 5) + (cached ? 1 : 4) * (blocks - 1) / blocks;
    cost *= std::ceil(sequences / slots) * slots / sequences;
  }
  return blocks * n / static_cast<double>(desc.length) * cost;
}
double OuterCost(const LongConvDesc& desc, int64_t taps, const LongConvRadices& radices) {
  const double n = static_cast<double>(radices.columns() * radices.row());
  const double inputs = std::ceil(static_cast<double>(desc.length) / n);
  const double filters = std::ceil(static_cast<double>(taps) / n);
  const double pairs = inputs * filters - filters * (filters - 1) / 2;
  const double row = radices.row() <= 2048 ? 0 : radices.row() <= 4096 ? 1 : 4;
  const double columns = radices.columns2 > 1 ? 2 : 0;
  return pairs * n / static_cast<double>(desc.length) *
         (15.5 + row + columns + (filters > 1 ? 3 : 0));
}
// Measured: 1.5 (256 tokens), 1.8, 2.7 and 5.0 (2048), the last with one block on a multiprocessor.
double ToeplitzCost(const LongConvDesc& desc, int64_t taps) {
  const double length = static_cast<double>((desc.length + 63) / 64 * 64);
  const double t = static_cast<double>(taps) + 64;
  const double products = t < length ? t * (2 * length - t) / length : length;
  const double rows = static_cast<double>((desc.batch + 31) / 32 * 32);
  const double slope = desc.length > 1152 ? 0.0018 : 0.0014;
  return 1.2 + slope * products * rows / static_cast<double>(desc.batch);
}

absl::StatusOr<LongConvPlan> PlanForGpu(const LongConvDesc& desc, Device device) {
  const int64_t taps = std::min(desc.taps, desc.length);
  LongConvPlan plan;
  plan.desc = desc;
  plan.evaluation = LongConvEvaluation::kAuto;
  double best = 0;
  const auto consider = [&](LongConvEvaluation evaluation, const LongConvRadices& radices,
                            double cost) {
    if (desc.evaluation != LongConvEvaluation::kAuto && desc.evaluation != evaluation) return;
    if (desc.block != 0 && desc.block != radices.columns() * radices.row()) return;
    if (plan.evaluation != LongConvEvaluation::kAuto && cost >= best) return;
    best = cost;
    plan.evaluation = evaluation;
    plan.radices = radices;
  };
  const bool less_shared = device.shared_bytes > 0 && device.shared_bytes < (200 << 10);
  // Below kToeplitzMinLength its roundings are too few to average out.
  const bool forced = desc.evaluation == LongConvEvaluation::kToeplitz;
  if (desc.dtype != Dtype::kFloat32 && (forced || desc.length >= kToeplitzMinLength) &&
      desc.length <= (less_shared ? kToeplitzMaxLengthInLess : kToeplitzMaxLength)) {
    consider(LongConvEvaluation::kToeplitz, {}, ToeplitzCost(desc, taps));
  }
  for (const LongConvRadices& radices : Shapes(false)) {
    // More taps than N: only where no block holds them, in the kernel for the longest.
    if (radices.row() < taps && radices.second * radices.third < kManyBlocksMiddle) continue;
    consider(LongConvEvaluation::kOnChipFft, radices, OnChipCost(desc, taps, radices, device));
  }
  for (const LongConvRadices& radices : Shapes(true)) {
    consider(LongConvEvaluation::kOuterFft, radices, OuterCost(desc, taps, radices));
  }
  if (plan.evaluation == LongConvEvaluation::kAuto) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": there is no such evaluation on a GPU"));
  }
  const int64_t n = plan.radices.columns() * plan.radices.row();
  plan.block = plan.evaluation == LongConvEvaluation::kToeplitz ? desc.length : n;
  plan.input_blocks = (desc.length + plan.block - 1) / plan.block;
  plan.tap_blocks = (taps + plan.block - 1) / plan.block;
  if (plan.evaluation == LongConvEvaluation::kToeplitz) {
    // About two tiles of 64 tokens for each of the block's 8 warps.
    const int64_t tiles = (desc.length + 63) / 64;
    plan.row_groups = std::clamp<int64_t>(16 / tiles, 1, 8);
    plan.row_groups = std::min(plan.row_groups, (desc.batch + 31) / 32);
    plan.device_filter = desc.channels * (2 * taps + 4);
  } else {
    const Occupancy occupancy = BestOccupancy(plan.radices, device);
    plan.threads = occupancy.threads;
    plan.filters = plan.tap_blocks;
    if (plan.evaluation == LongConvEvaluation::kOnChipFft && plan.tap_blocks > 1) {
      // The last block of taps reaches into one more block of outputs.
      plan.filters = std::min(plan.tap_blocks + 1, plan.input_blocks);
      plan.thread_blocks = std::min(std::max(device.multiprocessors, 1) * occupancy.resident,
                                    desc.batch * desc.channels);
      plan.device_scratch = plan.thread_blocks * plan.filters * n * 8;
    }
    plan.device_filter = 8 * desc.channels * plan.filters * n;
  }
  if (plan.evaluation == LongConvEvaluation::kOuterFft) {
    plan.sequences = std::clamp<int64_t>(kRowsInCache / (8 * n), 1, desc.batch * desc.channels);
    plan.device_scratch = plan.sequences * n * (plan.tap_blocks > 1 ? 12 : 8);
  }
  return plan;
}

}  // namespace

std::vector<int64_t> LongConvBlocks(bool outer) {
  std::vector<int64_t> blocks;
  for (const LongConvRadices& r : Shapes(outer)) blocks.push_back(r.columns() * r.row());
  return blocks;
}

absl::StatusOr<LongConvPlan> PlanLongConv(const LongConvDesc& desc, Device device) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (device.is_gpu()) return PlanForGpu(desc, device);
  if (desc.dtype != Dtype::kFloat32 || desc.block != 0 ||
      (desc.evaluation != LongConvEvaluation::kAuto &&
       desc.evaluation != LongConvEvaluation::kBlockFft)) {
    return absl::UnimplementedError(absl::StrCat(desc.ToString(), " on ", device.ToString(),
                                                 ": it has float32 block FFTs of its own choice"));
  }
  const int64_t taps = std::min(desc.taps, desc.length);
  // Two transforms a block cost about 8 N log2 N operations, a product of spectra 8 N (and its
  // loads).
  double best = 0;
  LongConvPlan plan;
  plan.desc = desc;
  for (int64_t n = kFftConvSmallest;; n *= 2) {
    const double inputs = std::ceil(static_cast<double>(desc.length) / static_cast<double>(n));
    const double filters = std::ceil(static_cast<double>(taps) / static_cast<double>(n));
    const double products = inputs * filters - filters * (filters - 1) / 2;
    const double cost = static_cast<double>(n) * (8 * inputs * std::log2(n) + 12 * products);
    if (plan.block == 0 || cost < best) {
      best = cost;
      plan.block = n;
    }
    if (n >= desc.length) break;
  }
  plan.input_blocks = (desc.length + plan.block - 1) / plan.block;
  plan.tap_blocks = (taps + plan.block - 1) / plan.block;
  plan.scratch_floats = (2 * plan.tap_blocks + 4) * plan.block;
  return plan;
}

absl::StatusOr<LongConvFilter> LongConvFilter::Create(const LongConvPlan& plan, const float* taps,
                                                      Stream& stream) {
  if (stream.device().is_gpu()) {
    LongConvFilter filter;
    LONGWAVE_RETURN_IF_ERROR(CreateLongConvFilterCuda(plan, taps, stream, &filter.device_));
    return filter;
  }
  const int64_t N = plan.block, used = std::min(plan.desc.taps, plan.desc.length);
  const FftConv& fft = FftConv::Shared(N);
  LongConvFilter filter;
  filter.stride_ = 2 * N * plan.tap_blocks;
  filter.data_ = AllocateFloats(filter.stride_ * plan.desc.channels);
  stream.pool().ParallelFor(plan.desc.channels * plan.tap_blocks, [&](int64_t i, int) {
    const int64_t channel = i / plan.tap_blocks, begin = i % plan.tap_blocks * N;
    float* out = filter.data_.get() + i * 2 * N;
    fft.Forward(taps + channel * plan.desc.taps + begin, std::min(N, used - begin), out);
    fft.ScaleTaps(out);
  });
  return filter;
}

namespace {

// One channel: y_b = Re Z_b + Im Z_(b-1), Z_b = sum_j H_j X_(b-j), over blocks b of N tokens.
void RunChannel(const LongConvPlan& plan, const float* taps, const LongConvArgs& args,
                int64_t offset, float* scratch) {
  const int64_t N = plan.block;
  const FftConv& fft = FftConv::Shared(N);
  float* ring = scratch;                        // (tap_blocks, 2, N): the last inputs' spectra
  float* sum = ring + plan.tap_blocks * 2 * N;  // (2, N)
  float* carry = sum + 2 * N;                   // (N): Im Z of the block before
  float* tile = carry + N;                      // (N)
  std::fill_n(carry, N, 0.0f);
  for (int64_t b = 0; b < plan.input_blocks; ++b) {
    const int64_t begin = offset + b * N, count = std::min(N, plan.desc.length - b * N);
    const float* u = static_cast<const float*>(args.u) + begin;
    float* y = static_cast<float*>(args.y) + begin;
    if (args.pre_gate != nullptr) {
      Multiply(static_cast<const float*>(args.pre_gate) + begin, u, tile, count);
      u = tile;
    }
    fft.Forward(u, count, ring + b % plan.tap_blocks * 2 * N);
    for (int64_t j = 0; j < std::min(plan.tap_blocks, b + 1); ++j) {
      fft.Product(taps + j * 2 * N, ring + (b - j) % plan.tap_blocks * 2 * N, j > 0, sum);
    }
    fft.Inverse(sum);
    Add(carry, sum, count);
    std::copy_n(sum + N, N, carry);
    if (args.post_gate != nullptr) {
      Multiply(static_cast<const float*>(args.post_gate) + begin, sum, y, count);
    } else {
      std::copy_n(sum, count, y);
    }
  }
}

}  // namespace

absl::Status RunLongConv(const LongConvPlan& plan, const LongConvFilter& filter,
                         const LongConvArgs& args, Stream& stream) {
  const LongConvDesc& desc = plan.desc;
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      stream.pool().ParallelFor(desc.batch * desc.channels, [&](int64_t i, int worker) {
        const int64_t batch = i / desc.channels, channel = i % desc.channels;
        RunChannel(plan, filter.transform(channel), args,
                   batch * args.batch_stride + channel * args.channel_stride,
                   stream.Scratch(worker, plan.scratch_floats));
      });
      return absl::OkStatus();
    case Device::Kind::kCuda:
      return RunLongConvCuda(plan, filter.on_device(), args, stream);
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

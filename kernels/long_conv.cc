#include "kernels/long_conv.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/fft_conv.h"

namespace longwave {

absl::Status LongConvDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("LongConv", "length", length, 1, int64_t{1} << 36));
  return CheckRange("LongConv", "taps", taps, 1);
}

std::string LongConvDesc::ToString() const {
  return absl::StrCat("LongConv(batch=", batch, " channels=", channels, " length=", length,
                      " taps=", taps, ")");
}

absl::StatusOr<LongConvPlan> PlanLongConv(const LongConvDesc& desc, Device device) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  const int64_t taps = std::min(desc.taps, desc.length);
  // Two transforms a block cost about 8 N log2 N operations, a product of spectra 8 N (and its
  // loads).
  double best = 0;
  LongConvPlan plan{desc, 0, 0, 0, 0};
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

LongConvFilter LongConvFilter::Create(const LongConvPlan& plan, const float* taps, Stream& stream) {
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
    const float* u = args.u + begin;
    if (args.pre_gate != nullptr) {
      Multiply(args.pre_gate + begin, u, tile, count);
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
      Multiply(args.post_gate + begin, sum, args.y + begin, count);
    } else {
      std::copy_n(sum, count, args.y + begin);
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
      break;
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

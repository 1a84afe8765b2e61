// SsmConv on the CPU: one thread a channel, tile by tile, the state in the first-level cache.
#include "kernels/ssm_conv_cpu.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/fft_conv.h"
#include "kernels/ssm_conv_filter.h"
#include "kernels/ssm_tile.h"

namespace longwave {
namespace {

// One channel's pointers.
struct Channel {
  const float *u, *pre, *post;
  float* y;
};

// The tile's input: u itself, or pre * u, or a copy where y would overwrite it.
const float* TileInput(const Channel& channel, int64_t begin, int64_t count, float* tile) {
  const float* u = channel.u + begin;
  if (channel.pre != nullptr) {
    Multiply(channel.pre + begin, u, tile, count);
    return tile;
  }
  if (channel.y == channel.u) {
    std::copy_n(u, count, tile);
    return tile;
  }
  return u;
}

void TileOutput(const Channel& channel, int64_t begin, int64_t count, const float* tile) {
  if (channel.post != nullptr) {
    Multiply(channel.post + begin, tile, channel.y + begin, count);
  } else if (tile != channel.y + begin) {
    std::copy_n(tile, count, channel.y + begin);
  }
}

// kDualForm and kStep. scratch: plan.scratch_floats.
void RunTiles(const SsmConvPlan& plan, const SsmTileFilter& filter, const Channel& channel,
              float* state, float* scratch) {
  float* in_tile = scratch;
  float* out_tile = in_tile + kSsmTile;
  float* rows = out_tile + kSsmTile;
  const bool dual = plan.evaluation == SsmEvaluation::kDualForm;
  for (int64_t begin = 0; begin < plan.desc.length; begin += kSsmTile) {
    const int64_t count = std::min(kSsmTile, plan.desc.length - begin);
    const float* u = TileInput(channel, begin, count, in_tile);
    float* y = channel.y == nullptr      ? nullptr
               : channel.post != nullptr ? out_tile
                                         : channel.y + begin;
    SsmRunTokens(filter, dual, count, u, y, state, rows);
    if (y != nullptr) TileOutput(channel, begin, count, y);
  }
}

// kBlockFft: y = conv(taps[0, N), u) within a block, plus what the state before the block adds.
// scratch: plan.scratch_floats.
void RunFftBlocks(const SsmConvPlan& plan, const SsmFilter& filters, int64_t filter_index,
                  const Channel& channel, float* state, float* scratch) {
  const SsmTileFilter filter = SsmFilterAccess::Tile(filters, filter_index);
  const int64_t N = plan.block;
  const FftConv& fft = FftConv::Shared(N);
  float* real = scratch;                                      // (N)
  float* spectrum = real + N;                                 // (2, N)
  float* rows = spectrum + 2 * N;                             // (kSsmTileBlocks, 2 P)
  float* before = rows + kSsmTileBlocks * 2 * filter.padded;  // the state before the block
  for (int64_t begin = 0; begin < plan.desc.length; begin += N) {
    const int64_t count = std::min(N, plan.desc.length - begin);
    if (channel.pre != nullptr) {
      Multiply(channel.pre + begin, channel.u + begin, real, count);
    } else {
      std::copy_n(channel.u + begin, count, real);
    }
    std::copy_n(state, 2 * filter.padded, before);
    if (channel.y != nullptr) fft.Forward(real, count, spectrum);
    SsmRunTokens(filter, /*dual=*/true, count, real, nullptr, state, rows);
    if (channel.y == nullptr) continue;
    fft.Product(SsmFilterAccess::Transform(filters, filter_index), spectrum, false, spectrum);
    fft.Inverse(spectrum);  // its real part: the block's own convolution
    const int64_t blocks = (count + kSsmBlock - 1) / kSsmBlock;
    for (int64_t b = 0; b < blocks; b += kSsmTileBlocks) {
      const int64_t n = std::min(kSsmTileBlocks, blocks - b);
      SsmScan(filter, n, /*with_input=*/false, rows, before);
      SsmProjectOut(filter, n, rows, nullptr, spectrum + b * kSsmBlock);
    }
    TileOutput(channel, begin, count, spectrum);
  }
}

}  // namespace

absl::Status RunSsmConvCpu(const SsmConvPlan& plan, const SsmFilter& filter,
                           const SsmConvArgs& args, Stream& stream) {
  const SsmConvDesc& desc = plan.desc;
  if (desc.dtype != Dtype::kFloat32) {
    return absl::UnimplementedError(
        absl::StrCat(desc.ToString(), ": the CPU has float32 activations only"));
  }
  const int64_t padded = SsmFilterAccess::padded(filter);
  stream.pool().ParallelFor(desc.batch * desc.channels, [&](int64_t i, int worker) {
    const int64_t batch = i / desc.channels, channel = i % desc.channels;
    const int64_t offset = batch * args.batch_stride + channel * args.channel_stride;
    const auto at = [offset](const void* p) {
      return p == nullptr ? nullptr : static_cast<const float*>(p) + offset;
    };
    const Channel c{at(args.u), at(args.pre_gate), at(args.post_gate),
                    const_cast<float*>(at(args.y))};
    float* state = stream.Scratch(worker, plan.scratch_floats);
    float* rest = state + 2 * padded;
    const float* in = args.state_in == nullptr ? nullptr : args.state_in + i * 2 * desc.pairs;
    PadState(in, desc.pairs, padded, state);
    const int64_t index = channel / desc.channels_per_filter;
    if (plan.evaluation == SsmEvaluation::kBlockFft) {
      RunFftBlocks(plan, filter, index, c, state, rest);
    } else {
      RunTiles(plan, SsmFilterAccess::Tile(filter, index), c, state, rest);
    }
    if (args.state_out != nullptr) {
      UnpadState(state, desc.pairs, padded, args.state_out + i * 2 * desc.pairs);
    }
  });
  return absl::OkStatus();
}

}  // namespace longwave

#include "kernels/shift_conv.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/shift_tile.h"

namespace longwave {

absl::Status ShiftConvDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("ShiftConv", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("ShiftConv", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("ShiftConv", "length", length, 1));
  return CheckRange("ShiftConv", "taps", taps, 1, 1024);
}

std::string ShiftConvDesc::ToString() const {
  return absl::StrCat("ShiftConv(batch=", batch, " channels=", channels, " length=", length,
                      " taps=", taps, ")");
}

void ShiftSsmTaps(absl::Span<const float> B, absl::Span<const float> C, double skip,
                  absl::Span<float> taps) {
  for (size_t i = 0; i < taps.size(); ++i) {
    double sum = i == 0 ? skip : 0.0;
    for (size_t j = 0; i + j < taps.size(); ++j) sum += double{B[j]} * double{C[i + j]};
    taps[i] = static_cast<float>(sum);
  }
}

namespace {

constexpr int64_t kTile = 768;  // tokens: a multiple of 12 blocks of 4, 8 and 16

absl::Status RunShiftConvCpu(const ShiftConvDesc& desc, const ShiftConvArgs& args, Stream& stream) {
  const int64_t halo = desc.taps - 1;
  const int64_t matrix_floats = ShiftMatrixFloats(desc.taps);
  const int64_t history_floats = halo + kTile + kShiftPad;
  stream.pool().ParallelFor(desc.batch * desc.channels, [&](int64_t i, int worker) {
    const int64_t batch = i / desc.channels, channel = i % desc.channels;
    const int64_t offset = batch * args.batch_stride + channel * args.channel_stride;
    const float* taps = args.taps + channel * desc.taps;
    float* matrix = stream.Scratch(worker, matrix_floats + history_floats + kTile + kShiftPad);
    float* out = matrix + matrix_floats;
    float* history = out + kTile + kShiftPad;
    ShiftBuildMatrix(taps, desc.taps, desc.length, matrix);
    if (args.halo_in == nullptr) {
      std::fill_n(history, halo, 0.0f);
    } else {
      std::copy_n(args.halo_in + i * halo, halo, history);
    }
    int64_t count = 0;
    for (int64_t begin = 0; begin < desc.length; begin += kTile) {
      const int64_t before = count;
      count = std::min(kTile, desc.length - begin);
      ShiftAdvance(args.u + offset + begin, desc.taps, before, count, history);
      ShiftRun(matrix, taps, desc.taps, history + halo, count, out);
      std::copy_n(out, count, args.y + offset + begin);
    }
    if (args.halo_out != nullptr) std::copy_n(history + count, halo, args.halo_out + i * halo);
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status RunShiftConv(const ShiftConvDesc& desc, const ShiftConvArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      return RunShiftConvCpu(desc, args, stream);
    case Device::Kind::kCuda:
      break;
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

#include "kernels/mlp.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace longwave {
namespace {

// Rows of a tile: its inner array stays in a second-level cache of 1 MiB up to 512 wide, and the
// products stay large enough above that. 0: too few rows for tiles, run as two Gemms cut along
// their outputs.
int64_t TileRows(const MlpDesc& desc) {
  if (desc.rows < 64) return 0;
  return desc.rows >= 1024 ? 256 : 64;
}

absl::Status RunAsGemms(const MlpDesc& desc, const MlpArgs& args, Stream& stream) {
  float* inner = stream.SharedScratch(desc.rows * desc.inner);
  GemmDesc fc1{.rows = desc.rows, .in = desc.width, .out = desc.inner};
  fc1.activation = desc.activation;
  LONGWAVE_RETURN_IF_ERROR(RunGemm(fc1,
                                   {.x = args.x,
                                    .x_stride = desc.width,
                                    .weight = args.fc1_weight,
                                    .bias = args.fc1_bias,
                                    .norm = &args.norm,
                                    .out = inner,
                                    .out_stride = desc.inner},
                                   stream));
  GemmDesc fc2{.rows = desc.rows, .in = desc.inner, .out = desc.width};
  fc2.accumulate = true;
  return RunGemm(fc2,
                 {.x = inner,
                  .x_stride = desc.inner,
                  .weight = args.fc2_weight,
                  .bias = args.fc2_bias,
                  .out = args.x,
                  .out_stride = desc.width},
                 stream);
}

}  // namespace

absl::Status MlpDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Mlp", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Mlp", "width", width, 1, 1 << 24));
  return CheckRange("Mlp", "inner", inner, 1, 1 << 24);
}

std::string MlpDesc::ToString() const {
  return absl::StrCat("Mlp(rows=", rows, " width=", width, " inner=", inner, " ", Name(activation),
                      ")");
}

int64_t MlpDesc::scratch_floats() const {
  const int64_t tile = TileRows(*this);
  return tile > 0 ? tile * (width + inner) : rows * width;
}

absl::Status RunMlp(const MlpDesc& desc, const MlpArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  const int64_t tile = TileRows(desc);
  if (tile == 0) return RunAsGemms(desc, args, stream);
  const int64_t d = desc.width, inner = desc.inner;
  stream.pool().ParallelFor((desc.rows + tile - 1) / tile, [&](int64_t i, int worker) {
    const int64_t rows = std::min(tile, desc.rows - i * tile);
    float* x = args.x + i * tile * d;
    float* normed = stream.Scratch(worker, desc.scratch_floats());
    float* hidden = normed + tile * d;
    LayerNormRows(args.norm, rows, d, x, d, normed, d);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(args.fc1_bias, inner, hidden + r * inner);
    Sgemm(false, true, rows, inner, d, normed, d, args.fc1_weight, d, true, hidden, inner);
    Activate(desc.activation, hidden, rows * inner);
    for (int64_t r = 0; r < rows; ++r) Add(args.fc2_bias, x + r * d, d);
    Sgemm(false, true, rows, d, inner, hidden, inner, args.fc2_weight, inner, true, x, d);
  });
  return absl::OkStatus();
}

}  // namespace longwave

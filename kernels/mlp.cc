#include "kernels/mlp.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/gemm_cuda.h"

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

GemmDesc First(const MlpDesc& desc, int64_t rows) {
  GemmDesc fc1{.rows = rows, .in = desc.width, .out = desc.inner};
  fc1.activation = desc.activation;
  fc1.dtype = fc1.out_dtype = desc.dtype;
  fc1.bias_dtype = desc.fc1_bias_dtype;
  return fc1;
}

// Queue::Scratch of a call on a GPU: a tile's inner array, then what its first Gemm needs.
struct GpuScratch {
  int64_t rows, inner_bytes, bytes;

  explicit GpuScratch(const MlpDesc& desc) {
    rows = std::min(desc.rows, MlpDesc::kGpuRows);
    inner_bytes = (rows * desc.inner * SizeOf(desc.dtype) + 255) / 256 * 256;
    bytes = inner_bytes + GemmScratch(First(desc, rows), /*with_norm=*/true).bytes;
  }
};

absl::Status RunOnGpu(const MlpDesc& desc, const MlpArgs& args, Stream& stream) {
  const GpuScratch sizes(desc);
  const absl::StatusOr<void*> scratch = stream.queue().Scratch(sizes.bytes);
  if (!scratch.ok()) return scratch.status();
  char* inner = static_cast<char*>(*scratch);
  for (int64_t row = 0; row < desc.rows; row += sizes.rows) {
    const int64_t rows = std::min(sizes.rows, desc.rows - row);
    float* x = args.x + row * desc.width;
    LONGWAVE_RETURN_IF_ERROR(RunGemmCuda(First(desc, rows),
                                         {.x = x,
                                          .x_stride = desc.width,
                                          .weight = args.fc1_weight,
                                          .bias = args.fc1_bias,
                                          .norm = &args.norm,
                                          .out = inner,
                                          .out_stride = desc.inner},
                                         inner + sizes.inner_bytes, stream));
    GemmDesc fc2{.rows = rows, .in = desc.inner, .out = desc.width};
    fc2.accumulate = true;
    fc2.dtype = fc2.in_dtype = desc.dtype;
    LONGWAVE_RETURN_IF_ERROR(RunGemmCuda(fc2,
                                         {.x = inner,
                                          .x_stride = desc.inner,
                                          .weight = args.fc2_weight,
                                          .bias = args.fc2_bias,
                                          .out = x,
                                          .out_stride = desc.width},
                                         nullptr, stream));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MlpDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Mlp", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Mlp", "width", width, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Mlp", "inner", inner, 1, 1 << 24));
  if (fc1_bias_dtype != dtype && fc1_bias_dtype != Dtype::kFloat32) {
    return absl::InvalidArgumentError(absl::StrCat("Mlp: fc1_bias is ", Name(fc1_bias_dtype),
                                                   " and the weights are ", Name(dtype)));
  }
  return absl::OkStatus();
}

std::string MlpDesc::ToString() const {
  return absl::StrCat("Mlp(rows=", rows, " width=", width, " inner=", inner, " ", Name(activation),
                      dtype == Dtype::kFloat32 ? "" : absl::StrCat(" ", Name(dtype)), ")");
}

int64_t MlpDesc::scratch_floats() const {
  const int64_t tile = TileRows(*this);
  return tile > 0 ? tile * (width + inner) : rows * width;
}

int64_t MlpDesc::gpu_scratch_bytes() const { return GpuScratch(*this).bytes; }

absl::Status RunMlp(const MlpDesc& desc, const MlpArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (stream.device().is_gpu()) return RunOnGpu(desc, args, stream);
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Mlp", "dtype", desc.dtype));
  const int64_t tile = TileRows(desc);
  if (tile == 0) return RunAsGemms(desc, args, stream);
  const int64_t d = desc.width, inner = desc.inner;
  const float* fc1_weight = static_cast<const float*>(args.fc1_weight);
  const float* fc1_bias = static_cast<const float*>(args.fc1_bias);
  const float* fc2_weight = static_cast<const float*>(args.fc2_weight);
  stream.pool().ParallelFor((desc.rows + tile - 1) / tile, [&](int64_t i, int worker) {
    const int64_t rows = std::min(tile, desc.rows - i * tile);
    float* x = args.x + i * tile * d;
    float* normed = stream.Scratch(worker, desc.scratch_floats());
    float* hidden = normed + tile * d;
    LayerNormRows(args.norm, rows, d, x, d, normed, d);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(fc1_bias, inner, hidden + r * inner);
    Sgemm(false, true, rows, inner, d, normed, d, fc1_weight, d, true, hidden, inner);
    Activate(desc.activation, hidden, rows * inner);
    for (int64_t r = 0; r < rows; ++r) Add(args.fc2_bias, x + r * d, d);
    Sgemm(false, true, rows, d, inner, hidden, inner, fc2_weight, inner, true, x, d);
  });
  return absl::OkStatus();
}

}  // namespace longwave

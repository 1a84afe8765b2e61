#include "kernels/gemm.h"

#include <cblas.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm_cuda.h"

namespace longwave {
namespace {

// OpenBLAS's own threads stay off: operators cut their work into tiles and run one product a
// thread.
void UseOneBlasThread() {
  [[maybe_unused]] static const bool once = [] {
    openblas_set_num_threads(1);
    return true;
  }();
}

// Tiles of an output (rows, out): sizes are a function of the descriptor alone, so that the result
// does not depend on the threads. 256 rows of a tile keep the product near its peak and the tile in
// cache; short inputs are cut along `out` too, so that all threads have work.
struct Tiling {
  int64_t rows, columns, row_tiles, column_tiles;
};

Tiling TileOf(const GemmDesc& desc) {
  Tiling t;
  t.rows = std::min<int64_t>(desc.rows, 256);
  t.columns = desc.rows >= 1024 ? desc.out : std::min<int64_t>(desc.out, 128);
  t.row_tiles = (desc.rows + t.rows - 1) / t.rows;
  t.column_tiles = (desc.out + t.columns - 1) / t.columns;
  return t;
}

// out[i] = bias[i * step], or += it.
void StartWith(bool accumulate, int64_t step, const float* bias, float* out, int64_t count) {
  if (accumulate && step == 1) {
    Add(bias, out, count);
  } else if (accumulate) {
    for (int64_t i = 0; i < count; ++i) out[i] += *bias;
  } else if (step == 1) {
    std::copy_n(bias, count, out);
  } else {
    std::fill_n(out, count, *bias);
  }
}

void RunTile(const GemmDesc& desc, const GemmArgs& args, int64_t row, int64_t rows, int64_t column,
             int64_t columns, float* scratch) {
  const bool x_channels = desc.in_layout == Layout::kChannelMajor;
  const bool out_channels = desc.out_layout == Layout::kChannelMajor;
  const float* x = static_cast<const float*>(args.x) + (x_channels ? row : row * args.x_stride);
  int64_t x_stride = args.x_stride;
  if (args.norm != nullptr) {
    LayerNormRows(*args.norm, rows, desc.in, x, x_stride, scratch, desc.in);
    x = scratch;
    x_stride = desc.in;
  }
  const float* weight = static_cast<const float*>(args.weight) + column * desc.in;
  const float* bias =
      args.bias == nullptr ? nullptr : static_cast<const float*>(args.bias) + column;
  // The bias is laid down first and the product added to it: one pass over the output less.
  if (out_channels) {
    float* out = static_cast<float*>(args.out) + column * args.out_stride + row;
    for (int64_t c = 0; bias != nullptr && c < columns; ++c) {
      StartWith(desc.accumulate, 0, bias + c, out + c * args.out_stride, rows);
    }
    Sgemm(false, !x_channels, columns, rows, desc.in, weight, desc.in, x, x_stride,
          desc.accumulate || bias != nullptr, out, args.out_stride);
    for (int64_t c = 0; desc.activation != Activation::kNone && c < columns; ++c) {
      Activate(desc.activation, out + c * args.out_stride, rows);
    }
  } else {
    float* out = static_cast<float*>(args.out) + row * args.out_stride + column;
    for (int64_t r = 0; bias != nullptr && r < rows; ++r) {
      StartWith(desc.accumulate, 1, bias, out + r * args.out_stride, columns);
    }
    Sgemm(x_channels, true, rows, columns, desc.in, x, x_stride, weight, desc.in,
          desc.accumulate || bias != nullptr, out, args.out_stride);
    for (int64_t r = 0; desc.activation != Activation::kNone && r < rows; ++r) {
      Activate(desc.activation, out + r * args.out_stride, columns);
    }
  }
}

}  // namespace

void Sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
           const float* b, int64_t ldb, bool accumulate, float* c, int64_t ldc) {
  UseOneBlasThread();
  const float beta = accumulate ? 1.0f : 0.0f;
  if (m == 1) {  // a row times a matrix: read B once
    cblas_sgemv(CblasRowMajor, trans_b ? CblasNoTrans : CblasTrans, trans_b ? n : k,
                trans_b ? k : n, 1.0f, b, ldb, a, trans_a ? lda : 1, beta, c, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
              trans_b ? CblasTrans : CblasNoTrans, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
}

absl::Status GemmDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Gemm", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Gemm", "in", in, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Gemm", "out", out, 1, 1 << 24));
  if (accumulate && activation != Activation::kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gemm: accumulate with activation ", Name(activation)));
  }
  if (in_dtype != dtype && in_dtype != Dtype::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gemm: x is ", Name(in_dtype), " and the weights are ", Name(dtype)));
  }
  if (out_dtype != dtype && out_dtype != Dtype::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gemm: out is ", Name(out_dtype), " and the weights are ", Name(dtype)));
  }
  if (bias_dtype != out_dtype && bias_dtype != Dtype::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gemm: bias is ", Name(bias_dtype), " and out is ", Name(out_dtype)));
  }
  return absl::OkStatus();
}

std::string GemmDesc::ToString() const {
  return absl::StrCat("Gemm(rows=", rows, " in=", in, " out=", out,
                      in_layout == Layout::kChannelMajor ? " x channel-major" : "",
                      out_layout == Layout::kChannelMajor ? " out channel-major" : "",
                      accumulate ? " accumulate " : " ", Name(activation),
                      dtype == Dtype::kFloat32
                          ? ""
                          : absl::StrCat(" ", Name(in_dtype), " x ", Name(dtype), " -> ",
                                         Name(out_dtype), " bias ", Name(bias_dtype)),
                      ")");
}

int64_t GemmDesc::gpu_scratch_bytes(bool with_norm) const {
  return GemmScratch(*this, with_norm).bytes;
}

absl::Status RunGemm(const GemmDesc& desc, const GemmArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (args.norm != nullptr && desc.in_layout == Layout::kChannelMajor) {
    return absl::InvalidArgumentError(absl::StrCat(desc.ToString(), ": norm needs token-major x"));
  }
  if (args.norm == nullptr && desc.in_dtype != desc.dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": float32 x of a 16-bit product needs a norm"));
  }
  if (stream.device().is_gpu()) {
    const absl::StatusOr<void*> scratch =
        stream.queue().Scratch(desc.gpu_scratch_bytes(args.norm != nullptr));
    return scratch.ok() ? RunGemmCuda(desc, args, *scratch, stream) : scratch.status();
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Gemm", "dtype", desc.dtype));
  UseOneBlasThread();
  const Tiling t = TileOf(desc);
  const int64_t scratch = args.norm == nullptr ? 0 : t.rows * desc.in;
  stream.pool().ParallelFor(t.row_tiles * t.column_tiles, [&](int64_t i, int worker) {
    const int64_t row = i / t.column_tiles * t.rows, column = i % t.column_tiles * t.columns;
    RunTile(desc, args, row, std::min(t.rows, desc.rows - row), column,
            std::min(t.columns, desc.out - column), stream.Scratch(worker, scratch));
  });
  return absl::OkStatus();
}

}  // namespace longwave

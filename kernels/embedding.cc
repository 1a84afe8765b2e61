#include "kernels/embedding.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/embedding_cuda.h"

namespace longwave {

absl::Status RunEmbedding(int64_t rows, int64_t width, int64_t vocab, Dtype dtype,
                          const void* table, const int32_t* tokens, float* x, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Embedding", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Embedding", "width", width, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Embedding", "vocab", vocab, 1, int64_t{1} << 31));
  if (stream.device().is_gpu()) {
    return RunEmbeddingCuda(rows, width, vocab, dtype, table, tokens, x, stream);
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("Embedding", "dtype", dtype));
  const float* from = static_cast<const float*>(table);
  for (int64_t r = 0; r < rows; ++r) {
    LONGWAVE_RETURN_IF_ERROR(CheckRange("Embedding", "token", tokens[r], 0, vocab - 1));
    std::memcpy(x + r * width, from + tokens[r] * width,
                sizeof(float) * static_cast<size_t>(width));
  }
  return absl::OkStatus();
}

absl::Status RunGatherRows(int64_t count, int64_t width, Dtype dtype, const void* x, int64_t first,
                           int64_t step, void* out, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("GatherRows", "count", count, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("GatherRows", "width", width, 1, 1 << 24));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("GatherRows", "first", first, 0));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("GatherRows", "step", step, 1));
  const int64_t row = width * SizeOf(dtype);
  const char* from = static_cast<const char*>(x) + first * row;
  if (stream.device().is_gpu()) {
    return stream.queue().CopyRowsOnDevice(out, row, from, step * row, row, count);
  }
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(static_cast<char*>(out) + i * row, from + i * step * row, static_cast<size_t>(row));
  }
  return absl::OkStatus();
}

absl::Status RunArgmax(int64_t rows, int64_t vocab, const ArgmaxArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Argmax", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Argmax", "vocab", vocab, 1, int64_t{1} << 31));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("Argmax", "stride", args.stride, vocab));
  if (stream.device().is_gpu()) return RunArgmaxCuda(rows, vocab, args, stream);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = args.logits + r * args.stride;
    int64_t best = 0;
    for (int64_t v = 1; v < vocab; ++v) {
      if (row[v] > row[best] || std::isnan(row[best])) best = v;
    }
    if (std::isnan(row[best])) best = 0;
    args.tokens[r] = static_cast<int32_t>(best);
    if (args.history != nullptr) {
      args.history[r * args.history_stride + *args.step] = args.tokens[r];
    }
  }
  return absl::OkStatus();
}

absl::Status RunAdvance(int64_t* counter, int64_t by, Stream& stream) {
  if (stream.device().is_gpu()) return RunAdvanceCuda(counter, by, stream);
  *counter += by;
  return absl::OkStatus();
}

}  // namespace longwave

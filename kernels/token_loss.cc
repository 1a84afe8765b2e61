#include "kernels/token_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/token_loss_cuda.h"

namespace longwave {
namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kVocab = 1024;  // a tile of logits is 512 KiB: within a second-level cache

}  // namespace

absl::Status TokenLossDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("TokenLoss", "rows", rows, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("TokenLoss", "width", width, 1, 1 << 24));
  return CheckRange("TokenLoss", "vocab", vocab, 1, int64_t{1} << 31);
}

std::string TokenLossDesc::ToString() const {
  return absl::StrCat("TokenLoss(rows=", rows, " width=", width, " vocab=", vocab,
                      dtype == Dtype::kFloat32 ? "" : absl::StrCat(" ", Name(dtype)), ")");
}

int64_t TokenLossDesc::scratch_floats() const { return kRows * std::min(vocab, kVocab); }

TokenLossCudaPlan PlanTokenLossCuda(const TokenLossDesc& desc) {
  // 4096 x 2048 logits: 256 tiles of the product's 128 x 256, two waves on an H100. Equal slices of
  // the vocabulary, so that none is left over that fills no wave; whole 32 bytes.
  constexpr int64_t kTileRows = 4096, kTileVocab = 2048;
  TokenLossCudaPlan plan;
  plan.rows = std::min(desc.rows, kTileRows);
  // Fewer rows leave room for more of the vocabulary.
  const int64_t most = kTileRows * kTileVocab / std::max<int64_t>(plan.rows, 64);
  const int64_t slices = (desc.vocab + most - 1) / most;
  plan.vocab = ((desc.vocab + slices - 1) / slices + 7) / 8 * 8;
  plan.logit_bytes = plan.rows * plan.vocab * 4;
  plan.scratch_bytes = plan.logit_bytes + plan.rows * 12;
  return plan;
}

int64_t TokenLossDesc::gpu_scratch_bytes() const { return PlanTokenLossCuda(*this).scratch_bytes; }

absl::Status RunTokenLoss(const TokenLossDesc& desc, const TokenLossArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (stream.device().is_gpu()) return RunTokenLossCuda(desc, args, stream);
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("TokenLoss", "dtype", desc.dtype));
  const int64_t d = desc.width;
  const float* hidden = static_cast<const float*>(args.hidden);
  const float* embedding = static_cast<const float*>(args.embedding);
  stream.pool().ParallelFor((desc.rows + kRows - 1) / kRows, [&](int64_t i, int worker) {
    const int64_t first = i * kRows, rows = std::min(kRows, desc.rows - first);
    float* logits = stream.Scratch(worker, desc.scratch_floats());
    float max[kRows], target[kRows];
    double sum[kRows];
    std::fill_n(max, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, rows, 0.0);
    for (int64_t v = 0; v < desc.vocab; v += kVocab) {
      const int64_t n = std::min(kVocab, desc.vocab - v);
      Sgemm(false, true, rows, n, d, hidden + first * d, d, embedding + v * d, d, false, logits, n);
      for (int64_t r = 0; r < rows; ++r) {
        float* row = logits + r * n;
        const int64_t wanted = args.targets[first + r] - v;
        if (wanted >= 0 && wanted < n) target[r] = row[wanted];
        const float best = std::max(max[r], MaxOf(row, n));
        sum[r] = sum[r] * std::exp(double{max[r]} - double{best}) + ExpSum(row, n, best, false);
        max[r] = best;
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      args.nll[first + r] =
          static_cast<float>(std::log(sum[r]) + double{max[r]} - double{target[r]});
    }
  });
  return absl::OkStatus();
}

}  // namespace longwave

#include "kernels/token_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

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
  return absl::StrCat("TokenLoss(rows=", rows, " width=", width, " vocab=", vocab, ")");
}

int64_t TokenLossDesc::scratch_floats() const { return kRows * std::min(vocab, kVocab); }

absl::Status RunTokenLoss(const TokenLossDesc& desc, const TokenLossArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  const int64_t d = desc.width;
  stream.pool().ParallelFor((desc.rows + kRows - 1) / kRows, [&](int64_t i, int worker) {
    const int64_t first = i * kRows, rows = std::min(kRows, desc.rows - first);
    float* logits = stream.Scratch(worker, desc.scratch_floats());
    float max[kRows], target[kRows];
    double sum[kRows];
    std::fill_n(max, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, rows, 0.0);
    for (int64_t v = 0; v < desc.vocab; v += kVocab) {
      const int64_t n = std::min(kVocab, desc.vocab - v);
      Sgemm(false, true, rows, n, d, args.hidden + first * d, d, args.embedding + v * d, d, false,
            logits, n);
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

// ShiftConv: H3's shift SSM as what it is, a short causal filter for each channel, with a halo.
//   y[t] = sum_{0 <= i < taps} h[i] u[t-i]
// The halo is the last taps-1 inputs before the chunk, oldest first: (batch, channels, taps-1).
//
// Thread safety: Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/stream.h"

namespace longwave {

struct ShiftConvDesc {
  int64_t batch = 1;
  int64_t channels = 0;
  int64_t length = 0;
  int64_t taps = 64;  // 1 to 1024

  absl::Status Validate() const;
  std::string ToString() const;
};

// Taps of the shift SSM: h[i] = sum_j B[j] C[i+j], plus skip * [i = 0]. B, C: one channel's `taps`
// values. Source: arXiv 2212.14052, section 3.
void ShiftSsmTaps(absl::Span<const float> B, absl::Span<const float> C, double skip,
                  absl::Span<float> taps);

struct ShiftConvArgs {
  const float* u = nullptr;  // (batch, channels, length), strides as in SsmConvArgs
  float* y = nullptr;        // may not overlap u
  int64_t batch_stride = 0;
  int64_t channel_stride = 0;
  const float* taps = nullptr;     // (channels, taps)
  const float* halo_in = nullptr;  // (batch, channels, taps-1); null: zeros
  float* halo_out = nullptr;       // null: not wanted; may be halo_in
};

absl::Status RunShiftConv(const ShiftConvDesc& desc, const ShiftConvArgs& args, Stream& stream);

}  // namespace longwave

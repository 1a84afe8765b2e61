// How SsmFilter lays out its constants, and access to one filter's. Internal to kernels/.
//
//   step_  (filters, 8 P + 16)           a re, im, low parts; b re, im; 2 Re c, -2 Im c; d
//   dual_  (filters, 4 P + 4 T P + T^2)  a^T re, im, low parts; V; W; K
//   fft_   (filters, 2 N)                the right-angle transform of taps [0, N), d in taps[0]
#pragma once

#include <optional>
#include <string>

#include "kernels/ssm_conv.h"
#include "kernels/ssm_tile.h"

namespace longwave {

struct SsmFilterAccess {
  static int64_t StepStride(int64_t padded) { return 8 * padded + 16; }
  static int64_t DualStride(int64_t padded) {
    return 4 * padded + 4 * kSsmBlock * padded + kSsmBlock * kSsmBlock;
  }

  static SsmTileFilter Tile(const SsmFilter& f, int64_t filter) {
    const int64_t P = f.padded_;
    const float* step = f.step_.get() + filter * StepStride(P);
    const float* dual = f.dual_.get() + filter * DualStride(P);
    const float* v = dual + 4 * P;
    const float* w = v + 2 * kSsmBlock * P;
    const auto factor = [P](const float* p) { return SsmFactor{p, p + P, p + 2 * P, p + 3 * P}; };
    return {.padded = P,
            .a = factor(step),
            .b_re = step + 4 * P,
            .b_im = step + 5 * P,
            .c_re = step + 6 * P,
            .c_im = step + 7 * P,
            .d = step[8 * P],
            .block = factor(dual),
            .v = v,
            .w = w,
            .k = w + 2 * kSsmBlock * P};
  }

  static const float* Transform(const SsmFilter& f, int64_t filter) {
    return f.fft_.get() + filter * 2 * f.fft_block_;
  }

  static const SsmDeviceFilter* device(const SsmFilter& f) { return f.device_.get(); }
  static const SsmFftDeviceFilter* device_fft(const SsmFilter& f) { return f.device_fft_.get(); }
  // InvalidArgument where f was not uploaded to `device`, for `dtype` where one is given.
  static absl::Status CheckDevice(const SsmFilter& f, Device device, std::optional<Dtype> dtype,
                                  const std::string& what);

  static const DiagonalSsm& ssm(const SsmFilter& f) { return *f.ssm_; }
  static int64_t padded(const SsmFilter& f) { return f.padded_; }
};

// A state (2, pairs) to and from its padded form (2, P). null in: zeros.
inline void PadState(const float* in, int64_t pairs, int64_t padded, float* out) {
  for (int64_t i = 0; i < 2 * padded; ++i) out[i] = 0;
  if (in == nullptr) return;
  for (int64_t n = 0; n < pairs; ++n) {
    out[n] = in[n];
    out[padded + n] = in[pairs + n];
  }
}

inline void UnpadState(const float* in, int64_t pairs, int64_t padded, float* out) {
  for (int64_t n = 0; n < pairs; ++n) {
    out[n] = in[n];
    out[pairs + n] = in[padded + n];
  }
}

}  // namespace longwave

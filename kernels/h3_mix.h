// H3Mix: the whole H3 mixer between its projections: shift, gate, diagonal SSM, gate.
//   k <- ShiftConv(k);  kv[d1, d2, h] = k[h, d1] v[h, d2];  kv <- SsmConv(kv);
//   y[d2, h] = sum_d1 q[h, d1] kv[d1, d2, h]
// The channels of q, k, v are ordered (h, d1); those of y (d2, h), as in the published code.
// Source: arXiv 2212.14052, figure 1 and algorithm 1.
//
// Thread safety: as SsmConv.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/shift_conv.h"
#include "kernels/ssm_conv.h"

namespace longwave {

struct H3MixDesc {
  int64_t batch = 1;
  int64_t heads = 0;
  int64_t head_dim = 1;
  int64_t length = 0;
  int64_t pairs = 0;
  int64_t shift_taps = 64;
  SsmEvaluation evaluation = SsmEvaluation::kAuto;  // kDualForm, kStep or kAuto
  Dtype dtype = Dtype::kFloat32;                    // of q, k, v and y; the CPU has float32 alone

  int64_t width() const { return heads * head_dim; }
  absl::Status Validate() const;
  std::string ToString() const;
};

struct H3MixPlan {
  H3MixDesc desc;
  SsmEvaluation evaluation;
  int64_t scratch_floats;  // for each thread of a CPU
  int64_t segments = 1;    // as SsmConvPlan's
  int64_t segment_length = 0;
  bool keeps_kv = false;  // H3MixArgs::kv may be given
};

absl::StatusOr<H3MixPlan> PlanH3Mix(const H3MixDesc& desc, Device device);

struct H3MixArgs {
  const void* q = nullptr;  // (batch, width, length) of desc.dtype, strides as in SsmConvArgs
  const void* k = nullptr;
  const void* v = nullptr;
  // (batch, width, length); may be q where head_dim is 1, else overlaps nothing. Null: the
  // state-only pass, which does not read q.
  void* y = nullptr;
  int64_t batch_stride = 0;
  int64_t channel_stride = 0;
  // What the SSM's input is, shift(k) v, (batch, width, length) of desc.dtype: written by the
  // state-only pass, and what a pass with y that is given it reads in place of k, v and halo_in.
  // May be v, overlaps nothing else. Null: none; needs plan.keeps_kv.
  void* kv = nullptr;
  const float* shift_taps = nullptr;  // (width, shift_taps), the skip included
  const float* halo_in = nullptr;     // (batch, width, shift_taps - 1) of k; null: zeros
  float* halo_out = nullptr;          // may be halo_in
  // (batch, heads, head_dim d1, head_dim d2, 2, pairs); null: zero
  const float* state_in = nullptr;
  float* state_out = nullptr;  // may be state_in
  // (3, width): added to q, k and v as they are read; null: none. GPU only, where a product whose
  // result is channel-major cannot add it; the halo then holds k with its bias.
  const float* bias = nullptr;
};

// REQUIRES: `filter` as RunSsmConv's, with desc.heads filters.
absl::Status RunH3Mix(const H3MixPlan& plan, const SsmFilter& filter, const H3MixArgs& args,
                      Stream& stream);

// The halo alone, which is known as soon as k is: halo_out, of the last shift_taps - 1 tokens of k,
// with its bias; a shorter chunk takes those before it from halo_in. Only k, the strides, halo_in,
// halo_out and bias are read of `args`.
absl::Status RunH3Halo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream);

}  // namespace longwave

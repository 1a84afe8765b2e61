// AdvanceState: what a diagonal SSM hands on after a chunk that was seen from a zero state:
//   state_out = a^length state_in + local
// pair by pair, complex. With it a chunk's own part needs no word of what came before, and what
// comes before is passed on at once (docs/operators.md, the chunk identity).
//
// a^length is made in float64 by repeated squaring, exact to rounding at any length. The result is
// a pure function of the filter, the length and the two states.
//
// Thread safety: Run may be called from several threads with a Stream each.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/ssm_conv.h"
#include "kernels/stream.h"

namespace longwave {

struct AdvanceStateDesc {
  int64_t batch = 1;
  int64_t channels = 0;             // states of a batch entry: H3's are heads x head_dim^2
  int64_t channels_per_filter = 1;  // channel c has filter c / channels_per_filter
  int64_t pairs = 0;
  int64_t length = 0;  // tokens of the chunk, 1 to 2^40

  absl::Status Validate() const;
  std::string ToString() const;
};

struct AdvanceStateArgs {
  const float* state_in = nullptr;  // (batch, channels, 2, pairs)
  const float* local = nullptr;     // the same: the chunk's state from a zero state
  float* state_out = nullptr;       // the same; may be state_in or local
};

// REQUIRES: `filter` has desc.pairs and channels / channels_per_filter filters, and was uploaded to
// the stream's device where that is a GPU; else InvalidArgument.
absl::Status RunAdvanceState(const AdvanceStateDesc& desc, const SsmFilter& filter,
                             const AdvanceStateArgs& args, Stream& stream);

}  // namespace longwave

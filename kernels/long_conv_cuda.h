// LongConv on a GPU. Internal to kernels/: long_conv.cc dispatches to it.
//
// Errors: ResourceExhausted (memory), Internal (a launch that failed), with the descriptor.
#pragma once

#include "absl/status/status.h"
#include "kernels/long_conv.h"
#include "kernels/stream.h"

namespace longwave {

// taps: (channels, desc.taps), host memory. Waits until the filter is made.
absl::Status CreateLongConvFilterCuda(const LongConvPlan& plan, const float* taps, Stream& stream,
                                      LongConvFilter::OnDevice* filter);

// Queues the work.
absl::Status RunLongConvCuda(const LongConvPlan& plan, const LongConvFilter::OnDevice& filter,
                             const LongConvArgs& args, Stream& stream);

}  // namespace longwave

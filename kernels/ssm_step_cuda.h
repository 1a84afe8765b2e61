// The recurrence on a GPU, token by token: SsmConv and H3Mix for generation, batched. Internal to
// kernels/.
#pragma once

#include "absl/status/status.h"
#include "kernels/ssm_conv_cuda.h"

namespace longwave {

// The arrays and strides of a call, under the names that the kernels' parameters share.
template <typename Params, typename Args>
void SetOutputs(const Args& args, int64_t pairs, Params& p) {
  p.y = args.y;
  p.batch_stride = args.batch_stride;
  p.channel_stride = args.channel_stride;
  p.pairs = static_cast<int>(pairs);
  p.state_in = args.state_in;
}
template <typename Params>
void SetArrays(const SsmConvDesc& desc, const SsmConvArgs& args, Params& p) {
  SetOutputs(args, desc.pairs, p);
  p.u = args.u;
  p.pre_gate = args.pre_gate;
  p.post_gate = args.post_gate;
  p.head_dim = 1;
}
// H3: the SSM's input is v, its gates are k, through the shift filter, and q.
template <typename Params>
void SetArrays(const H3MixDesc& desc, const H3MixArgs& args, Params& p) {
  SetOutputs(args, desc.pairs, p);
  p.u = args.v;
  p.pre_gate = args.k;
  p.post_gate = args.q;
  p.head_dim = static_cast<int>(desc.head_dim);
  p.taps = static_cast<int>(desc.shift_taps);
  p.shift_taps = args.shift_taps;
  p.bias = args.bias;
  p.halo_in = args.halo_in;
}

absl::Status RunSsmStep(const SsmConvDesc& desc, const SsmDeviceFilter& filter,
                        const SsmConvArgs& args, Stream& stream);
absl::Status RunH3Step(const H3MixDesc& desc, const SsmDeviceFilter& filter, const H3MixArgs& args,
                       Stream& stream);
// halo_out of a chunk, where it is wanted.
absl::Status WriteHalo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream);

}  // namespace longwave

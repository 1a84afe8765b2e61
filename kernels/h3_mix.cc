#include "kernels/h3_mix.h"

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/h3_mix_cpu.h"
#include "kernels/ssm_conv_cuda.h"
#include "kernels/ssm_conv_filter.h"
#include "kernels/ssm_step_cuda.h"
#include "kernels/ssm_tile.h"

namespace longwave {

absl::Status H3MixDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "heads", heads, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "head_dim", head_dim, 1, 4096));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "length", length, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "pairs", pairs, 1, 4096));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("H3Mix", "shift_taps", shift_taps, 1, 1024));
  if (evaluation == SsmEvaluation::kBlockFft) {
    return absl::InvalidArgumentError("H3Mix: evaluation = fft; it has dual, step and auto");
  }
  return absl::OkStatus();
}

std::string H3MixDesc::ToString() const {
  return absl::StrCat("H3Mix(batch=", batch, " heads=", heads, " head_dim=", head_dim,
                      " length=", length, " pairs=", pairs, " shift_taps=", shift_taps, " ",
                      Name(evaluation), " ", Name(dtype), ")");
}

absl::StatusOr<H3MixPlan> PlanH3Mix(const H3MixDesc& desc, Device device) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  H3MixPlan plan{desc, desc.evaluation, 0, 1, desc.length};
  if (device.is_gpu()) {
    SsmConvDesc ssm{desc.batch, desc.width(), desc.length, desc.pairs, desc.head_dim};
    ssm.evaluation = desc.evaluation;
    absl::StatusOr<SsmConvPlan> same = PlanSsmConv(ssm, device);
    if (!same.ok()) return same.status();
    plan.evaluation = same->evaluation;
    // Where the kernel with the shift on tensor cores runs, not the general one or steps.
    plan.keeps_kv = plan.evaluation == SsmEvaluation::kDualForm && desc.head_dim == 1 &&
                    desc.pairs <= 32 && desc.shift_taps <= 64;
    if (desc.head_dim == 1) {
      plan.segments = same->segments;
      plan.segment_length = same->segment_length;
    }
    return plan;
  }
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("H3Mix", "dtype", desc.dtype));
  if (plan.evaluation == SsmEvaluation::kAuto) {
    plan.evaluation = desc.length < kSsmBlock ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
  }
  plan.scratch_floats = H3MixScratchFloats(desc);
  plan.keeps_kv = desc.head_dim == 1;
  return plan;
}

namespace {

absl::Status WithBiases(const H3MixDesc& desc) {
  return absl::UnimplementedError(absl::StrCat(desc.ToString(), " with biases on cpu"));
}

}  // namespace

absl::Status RunH3Mix(const H3MixPlan& plan, const SsmFilter& filter, const H3MixArgs& args,
                      Stream& stream) {
  const H3MixDesc& desc = plan.desc;
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (filter.filters() != desc.heads || filter.pairs() != desc.pairs) {
    return absl::InvalidArgumentError(absl::StrCat(desc.ToString(), ": the filter has ",
                                                   filter.filters(), " filters of ", filter.pairs(),
                                                   " pairs"));
  }
  if (args.kv != nullptr && (!plan.keeps_kv || (args.y != nullptr && args.halo_out != nullptr))) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": kv ",
                     plan.keeps_kv ? "and y given, and halo_out, which is not known then"
                                   : "given to a plan that does not keep it"));
  }
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      if (args.bias != nullptr) return WithBiases(desc);
      return RunH3MixCpu(plan, filter, args, stream);
    case Device::Kind::kCuda:
      LONGWAVE_RETURN_IF_ERROR(
          SsmFilterAccess::CheckDevice(filter, stream.device(), desc.dtype, desc.ToString()));
      return RunH3MixCuda(plan, *SsmFilterAccess::device(filter), args, stream);
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

absl::Status RunH3Halo(const H3MixDesc& desc, const H3MixArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      LONGWAVE_RETURN_IF_ERROR(CheckFloat32("H3Mix", "dtype", desc.dtype));
      if (args.bias != nullptr) return WithBiases(desc);
      WriteHaloCpu(desc, args);
      return absl::OkStatus();
    case Device::Kind::kCuda:
      return WriteHalo(desc, args, stream);
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

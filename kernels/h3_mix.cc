#include "kernels/h3_mix.h"

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/h3_mix_cpu.h"
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
                      Name(evaluation), ")");
}

absl::StatusOr<H3MixPlan> PlanH3Mix(const H3MixDesc& desc, Device device) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  H3MixPlan plan{desc, desc.evaluation, 0};
  if (plan.evaluation == SsmEvaluation::kAuto) {
    plan.evaluation = desc.length < kSsmBlock ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
  }
  plan.scratch_floats = H3MixScratchFloats(desc);
  return plan;
}

absl::Status RunH3Mix(const H3MixPlan& plan, const SsmFilter& filter, const H3MixArgs& args,
                      Stream& stream) {
  const H3MixDesc& desc = plan.desc;
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (filter.filters() != desc.heads || filter.pairs() != desc.pairs) {
    return absl::InvalidArgumentError(absl::StrCat(desc.ToString(), ": the filter has ",
                                                   filter.filters(), " filters of ", filter.pairs(),
                                                   " pairs"));
  }
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      return RunH3MixCpu(plan, filter, args, stream);
    case Device::Kind::kCuda:
      break;
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

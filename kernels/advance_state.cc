#include "kernels/advance_state.h"

#include "absl/strings/str_cat.h"
#include "kernels/advance_state_cuda.h"
#include "kernels/checks.h"
#include "kernels/ssm_conv_filter.h"

namespace longwave {

absl::Status AdvanceStateDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("AdvanceState", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("AdvanceState", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(
      CheckRange("AdvanceState", "channels_per_filter", channels_per_filter, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("AdvanceState", "pairs", pairs, 1, 4096));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("AdvanceState", "length", length, 1, int64_t{1} << 40));
  if (channels % channels_per_filter != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("AdvanceState: channels = ", channels,
                     " is not a multiple of channels_per_filter = ", channels_per_filter));
  }
  return absl::OkStatus();
}

std::string AdvanceStateDesc::ToString() const {
  return absl::StrCat("AdvanceState(batch=", batch, " channels=", channels,
                      " channels_per_filter=", channels_per_filter, " pairs=", pairs,
                      " length=", length, ")");
}

namespace {

absl::Status RunAdvanceStateCpu(const AdvanceStateDesc& desc, const DiagonalSsm& ssm,
                                const AdvanceStateArgs& args, Stream& stream) {
  const int64_t P = desc.pairs;
  stream.pool().ParallelFor(ssm.filters, [&](int64_t filter, int) {
    for (int64_t n = 0; n < P; ++n) {
      const Complex power = Power(ssm.a[filter * P + n], desc.length);
      for (int64_t b = 0; b < desc.batch; ++b) {
        for (int64_t c = 0; c < desc.channels_per_filter; ++c) {
          const int64_t re =
              (b * desc.channels + filter * desc.channels_per_filter + c) * 2 * P + n;
          const int64_t im = re + P;
          const double x = args.state_in[re], y = args.state_in[im];
          const double out = power.real() * x - power.imag() * y + args.local[re];
          args.state_out[im] =
              static_cast<float>(power.real() * y + power.imag() * x + args.local[im]);
          args.state_out[re] = static_cast<float>(out);
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status RunAdvanceState(const AdvanceStateDesc& desc, const SsmFilter& filter,
                             const AdvanceStateArgs& args, Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (filter.pairs() != desc.pairs ||
      filter.filters() * desc.channels_per_filter != desc.channels) {
    return absl::InvalidArgumentError(absl::StrCat(
        desc.ToString(), ": the filter has ", filter.filters(), " filters of ", filter.pairs(),
        " pairs, not ", desc.channels / desc.channels_per_filter, " of ", desc.pairs));
  }
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      return RunAdvanceStateCpu(desc, SsmFilterAccess::ssm(filter), args, stream);
    case Device::Kind::kCuda:
      // What moves a state is the same for all types of data.
      LONGWAVE_RETURN_IF_ERROR(
          SsmFilterAccess::CheckDevice(filter, stream.device(), std::nullopt, desc.ToString()));
      return RunAdvanceStateCuda(desc, *SsmFilterAccess::device(filter), args, stream);
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

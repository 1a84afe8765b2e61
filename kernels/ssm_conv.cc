#include "kernels/ssm_conv.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/fft_conv.h"
#include "kernels/ssm_conv_cpu.h"
#include "kernels/ssm_conv_cuda.h"
#include "kernels/ssm_conv_filter.h"
#include "kernels/ssm_fft_cuda.h"

namespace longwave {

const char* Name(SsmEvaluation evaluation) {
  switch (evaluation) {
    case SsmEvaluation::kAuto:
      return "auto";
    case SsmEvaluation::kDualForm:
      return "dual";
    case SsmEvaluation::kBlockFft:
      return "fft";
    case SsmEvaluation::kStep:
      return "step";
  }
  return "?";
}

absl::Status SsmConvDesc::Validate() const {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("SsmConv", "batch", batch, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("SsmConv", "channels", channels, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("SsmConv", "length", length, 1));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("SsmConv", "pairs", pairs, 1, 4096));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("SsmConv", "channels_per_filter", channels_per_filter, 1));
  if (channels % channels_per_filter != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("SsmConv: channels = ", channels,
                     " is not a multiple of channels_per_filter = ", channels_per_filter));
  }
  return absl::OkStatus();
}

std::string SsmConvDesc::ToString() const {
  return absl::StrCat("SsmConv(batch=", batch, " channels=", channels, " length=", length,
                      " pairs=", pairs, " channels_per_filter=", channels_per_filter, " ",
                      Name(evaluation), " ", Name(dtype), ")");
}

namespace {

// Tokens of the dual form's block on a GPU (ssm_conv_kernel.cuh), and below which length the
// recurrence is as fast.
constexpr int64_t kGpuBlock = 64;
constexpr int64_t kGpuStepBelow = 16;

SsmConvPlan PlanOnGpu(SsmConvPlan plan, Device device) {
  const SsmConvDesc& desc = plan.desc;
  if (plan.evaluation == SsmEvaluation::kAuto) {
    plan.evaluation = desc.length < kGpuStepBelow ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
  }
  if (plan.evaluation == SsmEvaluation::kBlockFft) plan.block = SsmFftCudaBlock(desc.length);
  if (plan.evaluation != SsmEvaluation::kDualForm) return plan;
  plan.block = kGpuBlock;
  std::tie(plan.segments, plan.segment_length) =
      GpuSegments(desc.batch * desc.channels, desc.length, device.multiprocessors);
  return plan;
}

}  // namespace

std::pair<int64_t, int64_t> GpuSegments(int64_t sequences, int64_t length, int multiprocessors) {
  // One sequence keeps a multiprocessor busy to two thirds, two fill it. Segments cost a second
  // pass over the input, half as much again: they pay where less than half of the device works.
  constexpr int64_t kTile = 2048, kLeast = 8 * kTile;
  if (2 * sequences > multiprocessors || length < 2 * kLeast) return {1, length};
  const int64_t wanted =
      std::min((2 * multiprocessors + sequences - 1) / sequences, length / kLeast);
  const int64_t segment = ((length + wanted - 1) / wanted + kTile - 1) / kTile * kTile;
  const int64_t segments = (length + segment - 1) / segment;
  if (segments == 1) return {1, length};
  return {segments, segment};
}

absl::StatusOr<SsmConvPlan> PlanSsmConv(const SsmConvDesc& desc, Device device) {
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  SsmConvPlan plan{desc, desc.evaluation, 1, 0, 1, desc.length};
  if (device.is_gpu()) return PlanOnGpu(plan, device);
  LONGWAVE_RETURN_IF_ERROR(CheckFloat32("SsmConv", "dtype", desc.dtype));
  if (plan.evaluation == SsmEvaluation::kAuto) {
    // On a CPU the block FFT never wins: both pay for the state, 4P a token, and within a block of
    // 32 the direct product costs less than two transforms.
    plan.evaluation = desc.length < kSsmBlock ? SsmEvaluation::kStep : SsmEvaluation::kDualForm;
  }
  const int64_t padded =
      (desc.pairs + kSsmPairsMultiple - 1) / kSsmPairsMultiple * kSsmPairsMultiple;
  plan.scratch_floats = 2 * kSsmTile + kSsmTileBlocks * 2 * padded + 2 * padded;
  if (plan.evaluation == SsmEvaluation::kDualForm) plan.block = kSsmBlock;
  if (plan.evaluation == SsmEvaluation::kBlockFft) {
    plan.block = kFftConvSmallest;
    while (plan.block < 4096 && plan.block < desc.length) plan.block *= 2;
    plan.scratch_floats += 3 * plan.block + 2 * padded;
  }
  return plan;
}

namespace {

// A factor's four rows of P: see SsmFactor.
void FillFactor(Complex value, int64_t n, int64_t P, float* out) {
  const float re = static_cast<float>(value.real()), im = static_cast<float>(value.imag());
  out[n] = re;
  out[P + n] = im;
  out[2 * P + n] = static_cast<float>(value.real() - double{re});
  out[3 * P + n] = static_cast<float>(value.imag() - double{im});
}

// One filter's constants from the float64 recurrence, laid out as ssm_conv_filter.h says.
void FillStep(const DiagonalSsm& ssm, int64_t filter, int64_t P, float* out) {
  for (int64_t n = 0; n < ssm.pairs; ++n) {
    const int64_t i = filter * ssm.pairs + n;
    FillFactor(ssm.a[i], n, P, out);
    out[4 * P + n] = static_cast<float>(ssm.b[i].real());
    out[5 * P + n] = static_cast<float>(ssm.b[i].imag());
    out[6 * P + n] = static_cast<float>(2 * ssm.c[i].real());
    out[7 * P + n] = static_cast<float>(-2 * ssm.c[i].imag());
  }
  out[8 * P] = static_cast<float>(ssm.d[filter]);
}

void FillDual(const DiagonalSsm& ssm, int64_t filter, int64_t P, float* out) {
  constexpr int64_t T = kSsmBlock;
  float* v = out + 4 * P;
  float* w = v + 2 * T * P;
  float* k = w + 2 * T * P;
  for (int64_t n = 0; n < ssm.pairs; ++n) {
    const int64_t i = filter * ssm.pairs + n;
    Complex power = 1;  // a^j
    for (int64_t j = 0; j < T; ++j) {
      const Complex in = ssm.b[i] * power;
      v[(T - 1 - j) * 2 * P + n] = static_cast<float>(in.real());
      v[(T - 1 - j) * 2 * P + P + n] = static_cast<float>(in.imag());
      power *= ssm.a[i];
      const Complex gain = 2.0 * ssm.c[i] * power;
      w[n * T + j] = static_cast<float>(gain.real());
      w[(P + n) * T + j] = static_cast<float>(-gain.imag());
    }
    FillFactor(power, n, P, out);
  }
  double taps[T];
  ssm.Taps(filter, absl::MakeSpan(taps));
  taps[0] += ssm.d[filter];
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t j = t; j < T; ++j) k[t * T + j] = static_cast<float>(taps[j - t]);
  }
}

AlignedFloats Zeros(int64_t count) {
  auto data = AllocateFloats(count);
  std::fill_n(data.get(), count, 0.0f);
  return data;
}

}  // namespace

absl::StatusOr<SsmFilter> SsmFilter::Create(const DiagonalSsm& ssm, int64_t fft_block) {
  LONGWAVE_RETURN_IF_ERROR(ssm.Validate());
  if (fft_block != 0 && !IsFftConvBlock(fft_block)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "SsmFilter: fft_block = ", fft_block, " is not a power of two from ", kFftConvSmallest));
  }
  SsmFilter f;
  f.ssm_ = std::make_shared<DiagonalSsm>(ssm);
  f.filters_ = ssm.filters;
  f.pairs_ = ssm.pairs;
  f.padded_ = (ssm.pairs + kSsmPairsMultiple - 1) / kSsmPairsMultiple * kSsmPairsMultiple;
  f.fft_block_ = fft_block;
  const int64_t step = SsmFilterAccess::StepStride(f.padded_);
  const int64_t dual = SsmFilterAccess::DualStride(f.padded_);
  f.step_ = Zeros(f.filters_ * step);
  f.dual_ = Zeros(f.filters_ * dual);
  for (int64_t i = 0; i < f.filters_; ++i) {
    FillStep(ssm, i, f.padded_, f.step_.get() + i * step);
    FillDual(ssm, i, f.padded_, f.dual_.get() + i * dual);
  }
  if (fft_block > 0) {
    f.fft_ = Zeros(f.filters_ * 2 * fft_block);
    const FftConv fft(fft_block);
    std::vector<double> taps(fft_block);
    auto real = AllocateFloats(fft_block);
    for (int64_t i = 0; i < f.filters_; ++i) {
      ssm.Taps(i, absl::MakeSpan(taps));
      taps[0] += ssm.d[i];
      std::copy(taps.begin(), taps.end(), real.get());
      float* out = f.fft_.get() + i * 2 * fft_block;
      fft.Forward(real.get(), fft_block, out);
      fft.ScaleTaps(out);
    }
  }
  return f;
}

int64_t SsmFilter::bytes() const {
  return static_cast<int64_t>(sizeof(float)) * filters_ *
         (SsmFilterAccess::StepStride(padded_) + SsmFilterAccess::DualStride(padded_) +
          2 * fft_block_);
}

absl::Status SsmFilter::Upload(Stream& stream, Dtype dtype) {
  if (!stream.device().is_gpu()) return absl::OkStatus();
  absl::StatusOr<std::shared_ptr<const SsmDeviceFilter>> made =
      UploadSsmFilter(*ssm_, dtype, stream);
  if (!made.ok()) return made.status();
  device_ = *std::move(made);
  device_fft_ = nullptr;
  if (fft_block_ == 0 || !IsSsmFftCudaBlock(fft_block_)) return absl::OkStatus();
  absl::StatusOr<std::shared_ptr<const SsmFftDeviceFilter>> fft =
      UploadSsmFft(*ssm_, fft_block_, dtype, stream);
  if (!fft.ok()) return fft.status();
  device_fft_ = *std::move(fft);
  return absl::OkStatus();
}

absl::Status SsmFilterAccess::CheckDevice(const SsmFilter& f, Device device,
                                          std::optional<Dtype> dtype, const std::string& what) {
  if (f.device_ != nullptr && f.device_->device == device.index &&
      f.device_->dtype == dtype.value_or(f.device_->dtype)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": the filter was not uploaded to ", device.ToString(),
                   dtype.has_value() ? absl::StrCat(" for ", Name(*dtype)) : ""));
}

absl::Status RunSsmConv(const SsmConvPlan& plan, const SsmFilter& filter, const SsmConvArgs& args,
                        Stream& stream) {
  const SsmConvDesc& desc = plan.desc;
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (filter.pairs() != desc.pairs ||
      filter.filters() * desc.channels_per_filter != desc.channels) {
    return absl::InvalidArgumentError(absl::StrCat(
        desc.ToString(), ": the filter has ", filter.filters(), " filters of ", filter.pairs(),
        " pairs, not ", desc.channels / desc.channels_per_filter, " of ", desc.pairs));
  }
  if (plan.evaluation == SsmEvaluation::kBlockFft && filter.fft_block() != plan.block) {
    return absl::InvalidArgumentError(absl::StrCat(desc.ToString(), ": the plan's FFT block is ",
                                                   plan.block, " tokens, the filter's is ",
                                                   filter.fft_block()));
  }
  switch (stream.device().kind) {
    case Device::Kind::kCpu:
      return RunSsmConvCpu(plan, filter, args, stream);
    case Device::Kind::kCuda:
      LONGWAVE_RETURN_IF_ERROR(
          SsmFilterAccess::CheckDevice(filter, stream.device(), desc.dtype, desc.ToString()));
      if (plan.evaluation == SsmEvaluation::kBlockFft) {
        if (SsmFilterAccess::device_fft(filter) == nullptr) {
          return absl::InvalidArgumentError(
              absl::StrCat(desc.ToString(), ": the filter's FFT block of ", filter.fft_block(),
                           " tokens is none of a GPU's"));
        }
        return RunSsmConvFftCuda(plan, *SsmFilterAccess::device_fft(filter), args, stream);
      }
      return RunSsmConvCuda(plan, *SsmFilterAccess::device(filter), args, stream);
  }
  return absl::UnimplementedError(
      absl::StrCat(desc.ToString(), " on ", stream.device().ToString()));
}

}  // namespace longwave

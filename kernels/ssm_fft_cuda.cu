// SsmConv's block FFT on the GPU: constants, checks and launch. The kernel and its derivation are
// in ssm_fft_kernel.cuh.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gpu/launch.h"
#include "kernels/ssm_fft_cuda.h"
#include "kernels/ssm_fft_kernel.cuh"

namespace longwave {
namespace {

constexpr double kRho = 0.5;
constexpr double kPi = 3.14159265358979323846;

// e(x) = exp(2 pi i x) for x = numerator / denominator
Complex E(int64_t numerator, int64_t denominator) {
  const double angle =
      2 * kPi * static_cast<double>(numerator % denominator) / static_cast<double>(denominator);
  return {std::cos(angle), std::sin(angle)};
}

int64_t Root(int64_t block) { return block == 256 ? 16 : block == 1024 ? 32 : 64; }

SsmFftLayout LayoutOf(int64_t pairs, int64_t block) { return {Root(block), (pairs + 7) / 8}; }

void Put(Complex value, float* out) {
  out[0] = static_cast<float>(value.real());
  out[1] = static_cast<float>(value.imag());
}

// Operands of tensor-core products that are not split: to the nearest tf32.
float Operand(double value, bool split) {
  auto x = static_cast<float>(value);
  if (split) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x1000u) & 0xffffe000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

// One right operand's fragments for all lanes: value(row, column) of an 8 x 8 complex tile,
// row_of(q, i) the row of b0 and b1.
template <typename Value, typename Row>
void PutTile(bool split, Value value, Row row_of, float* out) {
  for (int lane = 0; lane < gpu::kWarp; ++lane) {
    for (int i = 0; i < 2; ++i) {
      const Complex x = value(row_of(lane % 4, i), lane / 4);
      out[4 * lane + i] = Operand(x.real(), split);
      out[4 * lane + 2 + i] = Operand(x.imag(), split);
    }
  }
}
int StandardRow(int q, int i) { return q + 4 * i; }
int NeighbourRow(int q, int i) { return 2 * q + i; }

void FillShared(const SsmFftLayout& layout, bool split, float* out) {
  const int64_t R = layout.R, N = R * R, tiles = R / 8;
  for (int64_t k = 0; k < tiles; ++k) {
    for (int64_t n = 0; n < tiles; ++n) {
      PutTile(
          split, [&](int64_t i, int64_t j) { return E(-(8 * k + i) * (8 * n + j), R); },
          StandardRow, out + layout.dft() + (k * tiles + n) * 4 * gpu::kWarp);
    }
  }
  for (int64_t i = 0; i < R; ++i) {
    for (int64_t j = 0; j < R; ++j) {
      const auto weight = [&](int64_t t2) {
        return std::pow(kRho, static_cast<double>(t2) / static_cast<double>(N));
      };
      Put(E(-i * j, N) * weight(i), out + layout.twiddle() + 2 * (i * R + j));
      Put(E(i * j, N) / weight(j), out + layout.untwiddle() + 2 * (i * R + j));
    }
    const double weight = std::pow(kRho, static_cast<double>(i) / static_cast<double>(R));
    out[layout.weights() + i] = static_cast<float>(weight);
    out[layout.weights() + R + i] = static_cast<float>(1 / weight);
  }
}

// The taps' transform at frequency f, times 1/N: two conjugate poles at once,
//   2 (Re(c b) - Re(c b conj(alpha)) z) / (1 - 2 Re(alpha) z + |alpha|^2 z^2),  z = e(-f/N)
// f <= N/2; the rest is conjugate.
void FillSpectrum(const DiagonalSsm& ssm, int64_t filter, const SsmFftLayout& layout, float* out) {
  const int64_t R = layout.R, N = R * R;
  const double scale = 1 / static_cast<double>(N);
  struct Poles {
    double numerator0, numerator1, denominator1, denominator2;
  };
  std::vector<Poles> poles(ssm.pairs);
  for (int64_t n = 0; n < ssm.pairs; ++n) {
    const int64_t i = filter * ssm.pairs + n;
    const Complex alpha = ssm.a[i] * std::pow(kRho, scale), cb = ssm.c[i] * ssm.b[i];
    poles[n] = {2 * cb.real(), -2 * (cb * std::conj(alpha)).real(), -2 * alpha.real(),
                std::norm(alpha)};
  }
  for (int64_t f = 0; f <= N / 2; ++f) {
    const Complex z = E(-f, N), z2 = E(-2 * f, N);
    double re = ssm.d[filter], im = 0;
    for (const Poles& p : poles) {
      const double a = p.numerator0 + p.numerator1 * z.real(), b = p.numerator1 * z.imag();
      const double c = 1 + p.denominator1 * z.real() + p.denominator2 * z2.real();
      const double d = p.denominator1 * z.imag() + p.denominator2 * z2.imag();
      const double norm = 1 / (c * c + d * d);
      re += (a * c + b * d) * norm;
      im += (b * c - a * d) * norm;
    }
    const Complex value = Complex(re, im) * scale;
    const int64_t mirror = (N - f) % N;
    Put(std::conj(value), out + 2 * (mirror % R * R + mirror / R));
    Put(value, out + 2 * (f % R * R + f / R));
  }
}

void FillFilter(const DiagonalSsm& ssm, int64_t filter, const SsmFftLayout& layout, bool split,
                float* out) {
  const int64_t R = layout.R, N = R * R, tiles = R / 8, modes = layout.modes();
  FillSpectrum(ssm, filter, layout, out + layout.spectrum());

  // Powers a^j and (a^R)^j, j < R, of every mode; modes that fill up a tile are zero.
  std::vector<Complex> near(modes * R), far(modes * R);
  auto* carry = reinterpret_cast<double*>(out + layout.carry());
  for (int64_t n = 0; n < ssm.pairs; ++n) {
    const Complex a = ssm.a[filter * ssm.pairs + n], over_row = Power(a, R);
    for (int64_t j = 0; j < R; ++j) {
      near[n * R + j] = j == 0 ? Complex(1) : near[n * R + j - 1] * a;
      far[n * R + j] = j == 0 ? Complex(1) : far[n * R + j - 1] * over_row;
    }
    const Complex over_block = Power(a, N), wrap = kRho / (1.0 - kRho * over_block);
    const Complex carried[] = {a, over_block, wrap};
    for (int64_t i = 0; i < 3; ++i) {
      carry[2 * (i * modes + n)] = carried[i].real();
      carry[2 * (i * modes + n) + 1] = carried[i].imag();
    }
    const Complex b = ssm.b[filter * ssm.pairs + n], c = ssm.c[filter * ssm.pairs + n];
    for (int64_t t2 = 0; t2 < R; ++t2) {
      Put(b * near[n * R + R - 1 - t2], out + layout.sum_rows() + 2 * (t2 * modes + n));
      Put(2.0 * c * a * near[n * R + t2], out + layout.state_rows() + 2 * (t2 * modes + n));
    }
  }
  // The planes of tokens carry weights rho^(t1/R): these operands carry what undoes them.
  const auto weight = [&](int64_t t1) {
    return std::pow(kRho, static_cast<double>(t1) / static_cast<double>(R));
  };
  for (int64_t m = 0; m < layout.mode_tiles; ++m) {
    for (int64_t k = 0; k < tiles; ++k) {
      const int64_t tile = (m * tiles + k) * 4 * gpu::kWarp;
      PutTile(
          split,
          [&](int64_t i, int64_t j) {
            const int64_t t1 = 8 * k + i;
            return far[(8 * m + j) * R + R - 1 - t1] / weight(t1);
          },
          StandardRow, out + layout.sum_columns() + tile);
      PutTile(
          split,
          [&](int64_t i, int64_t j) {
            const int64_t t1 = 8 * k + j;
            return std::conj(far[(8 * m + i) * R + t1]) * weight(t1);
          },
          NeighbourRow, out + layout.state_columns() + tile);
    }
  }
}

template <typename T, int R>
absl::Status LaunchSsmFft(const SsmConvDesc& desc, const SsmFftParams& params, Stream& stream) {
  return gpu::Launch(
      "SsmConv block FFT", desc.ToString(), SsmFftKernel<T, R, !std::is_same_v<T, __nv_bfloat16>>,
      dim3(static_cast<unsigned>(desc.batch * desc.channels)), SsmFftShape<R>::kThreads,
      params.layout.shared_bytes(), stream.queue().stream(), params);
}

template <typename T>
absl::Status LaunchSsmFft(const SsmConvDesc& desc, const SsmFftParams& params, Stream& stream) {
  switch (params.layout.R) {
    case 16:
      return LaunchSsmFft<T, 16>(desc, params, stream);
    case 32:
      return LaunchSsmFft<T, 32>(desc, params, stream);
    default:
      return LaunchSsmFft<T, 64>(desc, params, stream);
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SsmFftDeviceFilter>> UploadSsmFft(const DiagonalSsm& ssm,
                                                                       int64_t block, Dtype dtype,
                                                                       Stream& stream) {
  LONGWAVE_RETURN_IF_ERROR(ssm.Validate());
  if (!IsSsmFftCudaBlock(block)) {
    return absl::InvalidArgumentError(
        absl::StrCat("SsmFilter: fft_block = ", block, " is not 256, 1024 or 4096"));
  }
  const SsmFftLayout layout = LayoutOf(ssm.pairs, block);
  const bool split = dtype != Dtype::kBFloat16;
  std::vector<float> host(layout.size(ssm.filters));
  FillShared(layout, split, host.data());
  stream.pool().ParallelFor(ssm.filters, [&](int64_t i, int) {
    FillFilter(ssm, i, layout, split, host.data() + layout.filter() + i * layout.filter_stride());
  });

  gpu::Queue& queue = stream.queue();
  const int64_t bytes = static_cast<int64_t>(host.size() * sizeof(float));
  absl::StatusOr<gpu::DeviceArray> constants = gpu::DeviceArray::Allocate(queue.device(), bytes);
  if (!constants.ok()) return constants.status();
  LONGWAVE_RETURN_IF_ERROR(queue.CopyToDevice(constants->data(), host.data(), bytes));
  LONGWAVE_RETURN_IF_ERROR(queue.Synchronize());
  auto filter = std::make_shared<SsmFftDeviceFilter>();
  filter->filters = ssm.filters;
  filter->pairs = ssm.pairs;
  filter->block = block;
  filter->dtype = dtype;
  filter->constants = *std::move(constants);
  return filter;
}

absl::Status RunSsmConvFftCuda(const SsmConvPlan& plan, const SsmFftDeviceFilter& filter,
                               const SsmConvArgs& args, Stream& stream) {
  const SsmConvDesc& desc = plan.desc;
  LONGWAVE_RETURN_IF_ERROR(desc.Validate());
  if (filter.pairs != desc.pairs || filter.filters * desc.channels_per_filter != desc.channels ||
      filter.block != plan.block || filter.dtype != desc.dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": the plan's FFT block is ", plan.block,
                     " tokens; the filter has ", filter.filters, " filters of ", filter.pairs,
                     " pairs for blocks of ", filter.block, " tokens of ", Name(filter.dtype)));
  }
  constexpr int64_t kMost = (int64_t{1} << 31) - 1;
  if (desc.batch > kMost / desc.channels || desc.length / plan.block > kMost - 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": batch x channels, or the blocks, are 2^31 or more"));
  }
  SsmFftParams params;
  params.u = args.u;
  params.pre_gate = args.pre_gate;
  params.post_gate = args.post_gate;
  params.y = args.y;
  params.state_in = args.state_in;
  params.state_out = args.state_out;
  params.batch = static_cast<int>(desc.batch);
  params.channels = static_cast<int>(desc.channels);
  params.length = desc.length;
  params.batch_stride = args.batch_stride;
  params.channel_stride = args.channel_stride;
  params.channels_per_filter = static_cast<int>(desc.channels_per_filter);
  params.pairs = static_cast<int>(desc.pairs);
  params.layout = LayoutOf(desc.pairs, plan.block);
  params.constants = filter.constants.as<float>();
  const int64_t size = SizeOf(desc.dtype);
  params.aligned = args.batch_stride * size % 16 == 0 && args.channel_stride * size % 16 == 0;
  for (const void* p : {args.u, args.pre_gate, args.post_gate, static_cast<const void*>(args.y)}) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) params.aligned = false;
  }
  const int64_t room = stream.queue().properties().shared_bytes;
  if (params.layout.shared_bytes() > room) {
    return absl::UnimplementedError(absl::StrCat(
        desc.ToString(), ": the block FFT would need ", params.layout.shared_bytes(),
        " bytes of shared memory, the device has ", room, ": another evaluation has room"));
  }
  switch (desc.dtype) {
    case Dtype::kFloat32:
      return LaunchSsmFft<float>(desc, params, stream);
    case Dtype::kBFloat16:
      return LaunchSsmFft<__nv_bfloat16>(desc, params, stream);
    case Dtype::kFloat16:
      return LaunchSsmFft<__half>(desc, params, stream);
  }
  return absl::InvalidArgumentError(absl::StrCat(desc.ToString(), ": unknown dtype"));
}

}  // namespace longwave

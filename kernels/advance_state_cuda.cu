// AdvanceState on a GPU: one thread a pair of a state. It makes its own a^length, two complex
// products of float64 for each bit of the length: what is read and written is 24 bytes a pair, so
// this is all launch and latency.
#include "absl/strings/str_cat.h"
#include "kernels/advance_state_cuda.h"
#include "kernels/gpu/launch.h"
#include "kernels/ssm_power.cuh"

namespace longwave {
namespace {

constexpr int kThreads = 128;

struct AdvanceParams {
  const float *state_in, *local;
  float* state_out;
  const float* step;  // (filters, 8, pairs)
  int64_t batch, channels, channels_per_filter, pairs, length;
};

__global__ void __launch_bounds__(kThreads) Advance(const AdvanceParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.batch * p.channels * p.pairs) return;
  const int64_t state = i / p.pairs, n = i % p.pairs;
  const int64_t filter = state % p.channels / p.channels_per_filter;
  const double2 power =
      gpu::Power(gpu::StepFactor(p.step + filter * 8 * p.pairs + n, p.pairs), p.length);
  const int64_t re = state * 2 * p.pairs + n, im = re + p.pairs;
  const double x = p.state_in[re], y = p.state_in[im];
  const double out_re = power.x * x - power.y * y + p.local[re];
  const double out_im = power.x * y + power.y * x + p.local[im];
  p.state_out[re] = static_cast<float>(out_re);
  p.state_out[im] = static_cast<float>(out_im);
}

}  // namespace

absl::Status RunAdvanceStateCuda(const AdvanceStateDesc& desc, const SsmDeviceFilter& filter,
                                 const AdvanceStateArgs& args, Stream& stream) {
  const int64_t blocks = (desc.batch * desc.channels * desc.pairs + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat(desc.ToString(), ": ", blocks, " blocks of threads, more than a GPU takes"));
  }
  const AdvanceParams params{
      args.state_in, args.local,    args.state_out,           filter.step.as<float>(),
      desc.batch,    desc.channels, desc.channels_per_filter, desc.pairs,
      desc.length};
  return gpu::Launch("AdvanceState", desc.ToString(), Advance, dim3(static_cast<unsigned>(blocks)),
                     kThreads, 0, stream.queue().stream(), params);
}

}  // namespace longwave

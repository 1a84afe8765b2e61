#include "services/bench_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/attention.h"
#include "kernels/checks.h"
#include "kernels/gelu.h"
#include "kernels/gemm.h"
#include "kernels/h3_mix.h"
#include "kernels/layer_norm.h"
#include "kernels/long_conv.h"
#include "kernels/shift_conv.h"
#include "kernels/ssm_conv.h"
#include "kernels/token_loss.h"
#include "services/bench_reference.h"
#include "services/bench_timer.h"

namespace longwave {
namespace {

constexpr double kTolerance = 1e-5;
constexpr int64_t kChecked = 512;  // tokens of the first channel compared with float64

class Bench {
 public:
  Bench(const BenchOptions& options, absl::FunctionRef<void(const BenchRow&)> row)
      : options_(options), row_(row), pool_(options.threads), stream_(&pool_) {}

  absl::Status Run();

 private:
  bool Wanted(const char* op) const {
    return options_.only.empty() || absl::StrContains(op, options_.only);
  }
  Timing Time(absl::FunctionRef<void()> run) { return MeasureRuns(*options_.seconds, run); }
  double CopySeconds(double bytes) const { return bytes / copy_bytes_per_second_; }
  absl::Status Emit(const char* op, int64_t length, int64_t channels, const Timing& timing,
                    double bytes, double flops, const char* baseline, double baseline_seconds,
                    double error);

  void MeasureCeilings();
  absl::Status Convolutions(int64_t length);
  absl::Status Dense(int64_t length);

  const BenchOptions& options_;
  absl::FunctionRef<void(const BenchRow&)> row_;
  ThreadPool pool_;
  Stream stream_;
  double copy_bytes_per_second_ = 0;  // read and written
  double sgemm_flops_per_second_ = 0;
};

absl::Status Bench::Emit(const char* op, int64_t length, int64_t channels, const Timing& timing,
                         double bytes, double flops, const char* baseline, double baseline_seconds,
                         double error) {
  if (!(error <= kTolerance)) {
    return absl::InternalError(
        absl::StrCat("bench: ", op, " at ", length, " tokens is wrong: relative error ", error));
  }
  const double scale = 1e9 / (static_cast<double>(length) * static_cast<double>(channels));
  row_({op, length, channels, timing.median * scale, timing.fastest * scale, timing.slowest * scale,
        bytes / timing.median / 1e9, flops / timing.median / 1e9, baseline,
        baseline_seconds / timing.median, error});
  return absl::OkStatus();
}

// What this machine can do, with the threads of the run: a copy larger than its caches and a
// product.
void Bench::MeasureCeilings() {
  const int64_t count = 32 << 20, part = count / 64;
  const std::vector<float> from(count, 1.0f);
  std::vector<float> to(count);
  const Timing copy = Time([&] {
    pool_.ParallelFor(64, [&](int64_t i, int) {
      std::memcpy(to.data() + i * part, from.data() + i * part, part * sizeof(float));
    });
  });
  copy_bytes_per_second_ = 8.0 * static_cast<double>(count) / copy.median;
  const int64_t n = 1024 * pool_.threads(), k = 1024;
  const std::vector<float> a = RandomNormal(n * k, 1), b = RandomNormal(k * k, 2);
  std::vector<float> c(n * k);
  const Timing product = Time([&] {
    pool_.ParallelFor(pool_.threads(), [&](int64_t i, int) {
      Sgemm(false, true, k, k, k, a.data() + i * k * k, k, b.data(), k, false, c.data() + i * k * k,
            k);
    });
  });
  sgemm_flops_per_second_ = 2.0 * static_cast<double>(n) * k * k / product.median;
}

absl::Status Bench::Convolutions(int64_t length) {
  const int64_t H = *options_.channels, P = options_.pairs, count = H * length;
  const double tokens = static_cast<double>(count);
  const std::vector<float> u = RandomNormal(count, 3), gate = RandomNormal(count, 4);
  std::vector<float> y(count), state(H * 2 * P);
  const DiagonalSsm ssm = RandomSsm(H, P);
  const int64_t checked = std::min(kChecked, length);
  std::vector<double> prefix(checked);
  ssm.Taps(0, absl::MakeSpan(prefix));
  prefix[0] += ssm.d[0];

  // LongConv with all the taps of the same model: the baseline of SsmConv.
  std::vector<float> taps(count);
  std::vector<double> row(length);
  for (int64_t h = 0; h < H; ++h) {
    ssm.Taps(h, absl::MakeSpan(row));
    row[0] += ssm.d[h];
    std::copy(row.begin(), row.end(), taps.begin() + h * length);
  }
  absl::StatusOr<LongConvPlan> long_plan = PlanLongConv({1, H, length, length}, Device{});
  if (!long_plan.ok()) return long_plan.status();
  const absl::StatusOr<LongConvFilter> long_filter =
      LongConvFilter::Create(*long_plan, taps.data(), stream_);
  if (!long_filter.ok()) return long_filter.status();
  LongConvArgs long_args;
  long_args.u = u.data();
  long_args.y = y.data();
  long_args.channel_stride = length;
  const Timing long_conv =
      Time([&] { (void)RunLongConv(*long_plan, *long_filter, long_args, stream_); });
  if (Wanted("LongConv")) {
    const double n = static_cast<double>(long_plan->block);
    const double flops = static_cast<double>(H * long_plan->input_blocks) * n *
                         (8 * std::log2(n) + 8 * static_cast<double>(long_plan->tap_blocks));
    LONGWAVE_RETURN_IF_ERROR(Emit("LongConv", length, H, long_conv, 8 * tokens, flops, "copy",
                                  CopySeconds(8 * tokens),
                                  ConvError(prefix, u.data(), y.data(), checked)));
  }

  for (SsmEvaluation evaluation :
       {SsmEvaluation::kDualForm, SsmEvaluation::kBlockFft, SsmEvaluation::kStep}) {
    const std::string name = absl::StrCat("SsmConv ", Name(evaluation));
    if (!Wanted(name.c_str())) continue;
    absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(
        {.channels = H, .length = length, .pairs = P, .evaluation = evaluation}, Device{});
    if (!plan.ok()) return plan.status();
    const bool fft = evaluation == SsmEvaluation::kBlockFft;
    absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm, fft ? plan->block : 0);
    if (!filter.ok()) return filter.status();
    SsmConvArgs args;
    args.u = u.data();
    args.y = y.data();
    args.channel_stride = length;
    args.state_out = state.data();
    std::fill(y.begin(), y.end(), std::nanf(""));
    const Timing timing = Time([&] { (void)RunSsmConv(*plan, *filter, args, stream_); });
    const double p = static_cast<double>(P), block = static_cast<double>(plan->block);
    const double flops = tokens * (evaluation == SsmEvaluation::kStep ? 24 * p
                                   : fft ? 8 * p + 8 * std::log2(block) + 8
                                         : 8 * p + block * 1.5 + 16 * p / block);
    LONGWAVE_RETURN_IF_ERROR(Emit(name.c_str(), length, H, timing, 8 * tokens, flops, "LongConv",
                                  long_conv.median,
                                  ConvError(prefix, u.data(), y.data(), checked)));
  }

  constexpr int64_t kTaps = 64;
  const std::vector<float> short_taps = RandomNormal(H * kTaps, 5);
  if (Wanted("ShiftConv")) {
    ShiftConvArgs args;
    args.u = u.data();
    args.y = y.data();
    args.channel_stride = length;
    args.taps = short_taps.data();
    const Timing timing = Time([&] { (void)RunShiftConv({1, H, length, kTaps}, args, stream_); });
    LONGWAVE_RETURN_IF_ERROR(Emit(
        "ShiftConv", length, H, timing, 8 * tokens, 2 * kTaps * tokens, "copy",
        CopySeconds(8 * tokens),
        ConvError({short_taps.begin(), short_taps.begin() + kTaps}, u.data(), y.data(), checked)));
  }
  if (Wanted("H3Mix")) {
    // Ones as q and v, and one tap: then H3Mix is SsmConv, which the check knows.
    std::vector<float> ones(count, 1.0f), one_tap(H * kTaps, 0.0f);
    for (int64_t h = 0; h < H; ++h) one_tap[h * kTaps] = 1.0f;
    H3MixDesc desc;
    desc.heads = H;
    desc.length = length;
    desc.pairs = P;
    absl::StatusOr<H3MixPlan> plan = PlanH3Mix(desc, Device{});
    absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm);
    if (!plan.ok() || !filter.ok()) return plan.ok() ? filter.status() : plan.status();
    H3MixArgs args;
    args.q = args.v = ones.data();
    args.k = u.data();
    args.y = y.data();
    args.channel_stride = length;
    args.shift_taps = one_tap.data();
    args.state_out = state.data();
    const Timing timing = Time([&] { (void)RunH3Mix(*plan, *filter, args, stream_); });
    const double p = static_cast<double>(P);
    LONGWAVE_RETURN_IF_ERROR(
        Emit("H3Mix", length, H, timing, 16 * tokens, tokens * (8 * p + 48 + p / 2 + 2 * kTaps + 2),
             "copy", CopySeconds(16 * tokens), ConvError(prefix, u.data(), y.data(), checked)));
  }
  return absl::OkStatus();
}

// Operators of rows of a model's width; lengths beyond 64K would only repeat.
absl::Status Bench::Dense(int64_t length) {
  const int64_t d = 128, rows = std::min<int64_t>(length, 65536);
  const double tokens = static_cast<double>(rows);
  const std::vector<float> x = RandomNormal(rows * d, 6), weight = RandomNormal(4 * d * d, 7);
  const std::vector<float> ones(4 * d, 1.0f), zeros(4 * d, 0.0f);
  std::vector<float> out(rows * 4 * d);
  if (Wanted("Gemm")) {
    const Timing timing = Time([&] {
      (void)RunGemm({.rows = rows, .in = d, .out = 4 * d},
                    {.x = x.data(),
                     .x_stride = d,
                     .weight = weight.data(),
                     .out = out.data(),
                     .out_stride = 4 * d},
                    stream_);
    });
    double difference = 0, norm = 0;
    for (int64_t c = 0; c < 4 * d; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) sum += double{x[i]} * double{weight[c * d + i]};
      difference += (out[c] - sum) * (out[c] - sum);
      norm += sum * sum;
    }
    const double flops = 8.0 * tokens * d * d;
    LONGWAVE_RETURN_IF_ERROR(Emit("Gemm 128x512", rows, 4 * d, timing, 20.0 * tokens * d, flops,
                                  "sgemm", flops / sgemm_flops_per_second_,
                                  std::sqrt(difference / norm)));
  }
  if (Wanted("LayerNorm")) {
    const LayerNormWeights norm{ones.data(), zeros.data(), 1e-5f};
    const Timing timing =
        Time([&] { (void)RunLayerNorm(norm, rows, d, x.data(), out.data(), stream_); });
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < d; ++i) sum += out[i], squares += out[i] * out[i];
    const double error = std::abs(sum) / d + (std::abs(squares / d - 1) > 1e-3 ? 1 : 0);
    LONGWAVE_RETURN_IF_ERROR(Emit("LayerNorm 128", rows, d, timing, 8.0 * tokens * d,
                                  8.0 * tokens * d, "copy", CopySeconds(8.0 * tokens * d), error));
  }
  if (Wanted("Gelu")) {
    const Timing timing = Time([&] {
      pool_.ParallelFor((rows + 255) / 256, [&](int64_t i, int) {
        const int64_t n = std::min<int64_t>(256, rows - i * 256) * d;
        std::memcpy(out.data() + i * 256 * d, x.data() + i * 256 * d, n * sizeof(float));
        Activate(Activation::kGeluTanh, out.data() + i * 256 * d, n);
      });
    });
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < d; ++i) {
      const double v = x[i];
      const double g = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
      difference += (out[i] - g) * (out[i] - g);
      norm += g * g;
    }
    LONGWAVE_RETURN_IF_ERROR(Emit("Gelu tanh", rows, d, timing, 8.0 * tokens * d, 12.0 * tokens * d,
                                  "copy", CopySeconds(8.0 * tokens * d),
                                  std::sqrt(difference / norm)));
  }
  return absl::OkStatus();
}

absl::Status Bench::Run() {
  MeasureCeilings();
  for (int64_t length : options_.lengths) LONGWAVE_RETURN_IF_ERROR(Convolutions(length));
  LONGWAVE_RETURN_IF_ERROR(Dense(options_.lengths.back()));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBenchOptions(const BenchOptions& options, const std::vector<std::string>& ops) {
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "channels", *options.channels, 1, 1 << 16));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "pairs", options.pairs, 1, 4096));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "threads", options.threads, 0, 1024));
  LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "tokens", options.tokens, 1, int64_t{1} << 30));
  if (!(*options.seconds > 0 && *options.seconds <= 3600)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bench: seconds = ", *options.seconds, " is not above 0 and at most 3600"));
  }
  const bool known = std::any_of(ops.begin(), ops.end(), [&](const std::string& op) {
    return absl::StrContains(op, options.only);
  });
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat("bench: no operator's name contains \"",
                                                   options.only, "\": ", absl::StrJoin(ops, ", ")));
  }
  for (int64_t length : options.lengths) {
    LONGWAVE_RETURN_IF_ERROR(CheckRange("bench", "length", length, 1, int64_t{1} << 26));
  }
  return absl::OkStatus();
}

absl::Status BenchOps(const BenchOptions& options, absl::FunctionRef<void(const BenchRow&)> row) {
  BenchOptions full = options;
  if (!full.channels) full.channels = 32;
  if (!full.seconds) full.seconds = 0.5;
  if (full.lengths.empty()) full.lengths = {1024, 65536, 1048576};
  LONGWAVE_RETURN_IF_ERROR(CheckBenchOptions(
      full, {"LongConv", "SsmConv dual", "SsmConv fft", "SsmConv step", "ShiftConv", "H3Mix",
             "Gemm 128x512", "LayerNorm 128", "Gelu tanh"}));
  return Bench(full, row).Run();
}

}  // namespace longwave

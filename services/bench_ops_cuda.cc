#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/checks.h"
#include "kernels/gemm.h"
#include "kernels/h3_mix.h"
#include "kernels/long_conv.h"
#include "kernels/ssm_conv.h"
#include "services/bench_cuda.h"
#include "services/bench_ops.h"

namespace longwave {
namespace {

constexpr int64_t kTaps = 64;  // of H3Mix's shift
// Where the pattern begins in each input.
constexpr int64_t kPhaseU = 0, kPhasePre = 100'003, kPhasePost = 200'003, kPhaseTaps = 300'007,
                  kPhaseState = 400'009, kPhaseWeight = 500'009;

struct Shape {
  int64_t batch, channels, length;
  int64_t count() const { return batch * channels * length; }
};

// What a row does, for its rates.
struct Work {
  double bytes, flops;
};

class CudaBench {
 public:
  using OnRow = absl::FunctionRef<void(const BenchRow&)>;
  using OnFailure = absl::FunctionRef<void(const BenchFailure&)>;

  CudaBench(const BenchOptions& options, std::unique_ptr<gpu::Queue> queue, OnRow row,
            OnFailure failure)
      : options_(options),
        row_(row),
        failure_(failure),
        pool_(options.threads),
        stream_(&pool_, std::move(queue)) {}

  absl::Status Run();

 private:
  bool Wanted(absl::string_view op) const { return absl::StrContains(op, options_.only); }
  bool Wanted(Dtype dtype) const {
    return options_.dtypes.empty() || std::find(options_.dtypes.begin(), options_.dtypes.end(),
                                                dtype) != options_.dtypes.end();
  }
  // The shape of sequences of `length`: options.tokens in all, fewer channels where one is longer.
  Shape ShapeOf(int64_t length) const {
    const int64_t H = *options_.channels, tokens = options_.tokens;
    if (length <= tokens) return {tokens / length, H, length};
    return {1, std::max<int64_t>(1, H * tokens / length), length};
  }
  // The given lengths, or those named.
  std::vector<int64_t> Lengths(std::vector<int64_t> usual) const {
    return options_.lengths.empty() ? usual : options_.lengths;
  }

  // Runs one row; what goes wrong is told, counted and left behind.
  void Try(const std::string& op, const Shape& shape, Dtype dtype,
           absl::FunctionRef<absl::Status()> run) {
    if (!Wanted(op)) return;
    absl::Status status = run();
    const absl::Status drained = stream_.queue().Synchronize();
    if (status.ok()) status = drained;
    if (status.ok()) return;
    ++failures_;
    failure_({op, shape.length, shape.channels, dtype, std::string(status.message())});
  }
  // Times `run` and emits the row, where the error that was found before is small enough.
  // baseline_seconds 0: the row is its own baseline.
  absl::Status Finish(const std::string& op, const Shape& shape, Dtype dtype, const ErrorSum& error,
                      const Work& work, const char* baseline, double baseline_seconds,
                      absl::FunctionRef<absl::Status()> run);
  double CopySeconds(double bytes) const { return bytes / copy_bytes_per_second_; }

  absl::Status MeasureCopy();
  absl::Status Gemm(const std::string& op, int64_t rows, int64_t in, int64_t out);
  absl::Status Activations(Dtype dtype);
  enum class Variant { kPlain, kGates, kStateOnly };
  absl::Status Ssm(const std::string& op, const Shape& shape, SsmEvaluation evaluation,
                   Variant variant);
  absl::Status Step(const std::string& op, const Shape& shape);
  absl::Status H3(const std::string& op, const Shape& shape);
  absl::Status Long(const std::string& op, const Shape& shape);

  // One channel of an input on the host.
  std::vector<float> Channel(int64_t phase, int64_t n, int64_t c, const Shape& shape) const {
    std::vector<float> values(static_cast<size_t>(shape.length));
    pattern_->Copy(phase + (n * shape.channels + c) * shape.length, shape.length, 1, values.data());
    return values;
  }
  absl::StatusOr<std::vector<float>> Output(int64_t n, int64_t c, const Shape& shape) {
    return Fetch(dtype_, y_.data(), (n * shape.channels + c) * shape.length, shape.length, stream_);
  }
  absl::Status Poison(const Shape& shape) {
    return stream_.queue().Fill(y_.data(), 0xff, shape.count() * SizeOf(dtype_));
  }
  absl::StatusOr<gpu::DeviceArray> Floats(int64_t count) {
    auto array = gpu::DeviceArray::Allocate(stream_.queue().device(), count * 4);
    if (array.ok()) {
      LONGWAVE_RETURN_IF_ERROR(stream_.queue().Fill(array->data(), 0xff, count * 4));
    }
    return array;
  }

  const BenchOptions& options_;
  OnRow row_;
  OnFailure failure_;
  ThreadPool pool_;
  Stream stream_;
  std::optional<CudaTimer> timer_;
  int failures_ = 0;
  double seconds_ = 0;                // of the last row
  double copy_bytes_per_second_ = 0;  // read and written
  double matmul_flops_per_second_ = 0;

  // Of the present type of activations.
  Dtype dtype_ = Dtype::kBFloat16;
  std::optional<BenchPattern> pattern_, floats_;
  gpu::DeviceArray u_, pre_, post_, y_;
};

// Sequences whose outputs are compared, to their ends: the first, one in the middle, the last.
std::vector<std::pair<int64_t, int64_t>> Checked(const Shape& shape) {
  return {{0, 0}, {shape.batch / 2, shape.channels / 2}, {shape.batch - 1, shape.channels - 1}};
}

absl::Status CudaBench::Finish(const std::string& op, const Shape& shape, Dtype dtype,
                               const ErrorSum& error, const Work& work, const char* baseline,
                               double baseline_seconds, absl::FunctionRef<absl::Status()> run) {
  const double tolerance = BenchTolerance(dtype);
  if (!(error.relative() <= tolerance)) {
    return absl::InternalError(
        absl::StrCat("wrong: relative error ", error.relative(), ", at most ", tolerance));
  }
  const absl::StatusOr<Timing> t = timer_->Measure(run);
  if (!t.ok()) return t.status();
  seconds_ = t->median;
  const double scale = 1e9 / static_cast<double>(shape.count());
  row_({op, shape.length, shape.channels, t->median * scale, t->fastest * scale, t->slowest * scale,
        work.bytes / t->median / 1e9, work.flops / t->median / 1e9, baseline,
        baseline_seconds == 0 ? 1 : baseline_seconds / t->median, error.relative(), shape.batch,
        dtype, t->runs, tolerance});
  return absl::OkStatus();
}

absl::Status CudaBench::MeasureCopy() {
  gpu::Queue& queue = stream_.queue();
  const int64_t bytes = std::max<int64_t>(int64_t{2} * options_.tokens * *options_.channels, 4096);
  auto from = floats_->Repeat(bytes / 4, 0, stream_), to = Floats(bytes / 4);
  if (!from.ok() || !to.ok()) return from.ok() ? to.status() : from.status();
  const absl::StatusOr<Timing> t =
      timer_->Measure([&] { return queue.CopyOnDevice(to->data(), from->data(), bytes / 4 * 4); });
  if (!t.ok()) return t.status();
  copy_bytes_per_second_ = 2 * static_cast<double>(bytes) / t->median;
  const double scale = 1e9 / (static_cast<double>(bytes) / 2);
  row_({"copy", options_.tokens, *options_.channels, t->median * scale, t->fastest * scale,
        t->slowest * scale, copy_bytes_per_second_ / 1e9, 0, "copy", 1, 0, 1, Dtype::kBFloat16,
        t->runs, 0});
  return absl::OkStatus();
}

// x (rows, in) W (out, in)^T in bfloat16.
absl::Status CudaBench::Gemm(const std::string& op, int64_t rows, int64_t in, int64_t out) {
  constexpr int64_t kColumns = 32;  // compared, of the first and the last row
  constexpr Dtype kType = Dtype::kBFloat16;
  auto x = pattern_->Repeat(rows * in, kPhaseU, stream_);
  auto weight = pattern_->Repeat(out * in, kPhaseWeight, stream_);
  auto y = gpu::DeviceArray::Allocate(stream_.queue().device(), rows * out * 2);
  for (const auto* array : {&x, &weight, &y}) LONGWAVE_RETURN_IF_ERROR(array->status());
  GemmDesc desc{.rows = rows, .in = in, .out = out};
  desc.dtype = desc.in_dtype = desc.out_dtype = kType;
  GemmArgs args;
  args.x = x->data();
  args.x_stride = in;
  args.weight = weight->data();
  args.out = y->data();
  args.out_stride = out;
  const auto run = [&] { return RunGemm(desc, args, stream_); };
  LONGWAVE_RETURN_IF_ERROR(stream_.queue().Fill(y->data(), 0xff, y->bytes()));
  LONGWAVE_RETURN_IF_ERROR(run());
  ErrorSum error;
  for (int64_t r : {int64_t{0}, rows - 1}) {
    const auto got = Fetch(kType, y->data(), r * out, std::min(kColumns, out), stream_);
    if (!got.ok()) return got.status();
    for (size_t c = 0; c < got->size(); ++c) {
      double sum = 0;
      for (int64_t i = 0; i < in; ++i) {
        sum += double{pattern_->At(kPhaseU + r * in + i)} *
               double{pattern_->At(kPhaseWeight + static_cast<int64_t>(c) * in + i)};
      }
      error.Add((*got)[c], sum);
    }
  }
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(in * out);
  const double bytes = 2.0 * static_cast<double>(rows * (in + out) + in * out);
  const Shape shape{1, out, rows};
  if (matmul_flops_per_second_ > 0) {
    return Finish(op, shape, kType, error, {bytes, flops}, "matmul",
                  flops / matmul_flops_per_second_, run);
  }
  LONGWAVE_RETURN_IF_ERROR(Finish(op, shape, kType, error, {bytes, flops}, "matmul", 0, run));
  matmul_flops_per_second_ = flops / seconds_;
  return absl::OkStatus();
}

absl::Status CudaBench::Ssm(const std::string& op, const Shape& shape, SsmEvaluation evaluation,
                            Variant variant) {
  const int64_t P = options_.pairs;
  const bool fft = evaluation == SsmEvaluation::kBlockFft;
  const bool gates = variant == Variant::kGates, state_only = variant == Variant::kStateOnly;
  SsmConvDesc desc;
  desc.batch = shape.batch;
  desc.channels = shape.channels;
  desc.length = shape.length;
  desc.pairs = P;
  desc.evaluation = evaluation;
  desc.dtype = dtype_;
  const absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, stream_.device());
  if (!plan.ok()) return plan.status();
  const DiagonalSsm ssm = RandomSsm(shape.channels, P);
  absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm, fft ? plan->block : 0);
  if (!filter.ok()) return filter.status();
  LONGWAVE_RETURN_IF_ERROR(filter->Upload(stream_, dtype_));
  gpu::DeviceArray state;
  SsmConvArgs args;
  args.u = u_.data();
  if (gates) args.pre_gate = pre_.data(), args.post_gate = post_.data();
  args.channel_stride = shape.length;
  args.batch_stride = shape.length * shape.channels;
  if (state_only) {
    auto array = Floats(shape.batch * shape.channels * 2 * P);
    if (!array.ok()) return array.status();
    state = *std::move(array);
    args.state_out = state.as<float>();
  } else {
    args.y = y_.data();
    LONGWAVE_RETURN_IF_ERROR(Poison(shape));
  }
  const auto run = [&] { return RunSsmConv(*plan, *filter, args, stream_); };
  LONGWAVE_RETURN_IF_ERROR(run());

  const auto checked = Checked(shape);
  std::vector<std::vector<float>> got;
  for (const auto& [n, c] : checked) {
    auto values = state_only ? Fetch(Dtype::kFloat32, state.data(),
                                     (n * shape.channels + c) * 2 * P, 2 * P, stream_)
                             : Output(n, c, shape);
    if (!values.ok()) return values.status();
    got.push_back(*std::move(values));
  }
  std::vector<ErrorSum> errors(checked.size());
  pool_.ParallelFor(static_cast<int64_t>(checked.size()), [&](int64_t i, int) {
    const auto [n, c] = checked[i];
    const std::vector<float> u = Channel(kPhaseU, n, c, shape);
    std::vector<float> pre, post;
    if (gates) pre = Channel(kPhasePre, n, c, shape), post = Channel(kPhasePost, n, c, shape);
    std::vector<double> x(2 * P);
    SsmRecurrence(
        ssm, c, shape.length,
        [&](int64_t t) { return gates ? double{pre[t]} * u[t] : double{u[t]}; }, x,
        [&](int64_t t, double y) {
          if (!state_only) errors[i].Add(got[i][t], gates ? y * post[t] : y);
        });
    for (int64_t n = 0; state_only && n < 2 * P; ++n) errors[i].Add(got[i][n], x[n]);
  });
  const ErrorSum worst = *std::max_element(
      errors.begin(), errors.end(),
      [](const ErrorSum& a, const ErrorSum& b) { return a.relative() < b.relative(); });

  const double tokens = static_cast<double>(shape.count()),
               size = static_cast<double>(SizeOf(dtype_));
  const double p = static_cast<double>(P), block = static_cast<double>(plan->block);
  const double states = static_cast<double>(shape.batch * shape.channels) * 8 * p;
  const Work work{state_only ? size * tokens + states : (gates ? 4 : 2) * size * tokens,
                  tokens * (state_only ? 4 * p + 8 * p / block
                            : fft      ? 8 * p + 8 * std::log2(block) + 8
                                       : 8 * p + 1.5 * block + 16 * p / block)};
  return Finish(op, shape, dtype_, worst, work, "copy", CopySeconds(work.bytes), run);
}

absl::Status CudaBench::Step(const std::string& op, const Shape& shape) {
  const int64_t P = options_.pairs, states = shape.batch * shape.channels * 2 * P;
  SsmConvDesc desc;
  desc.batch = shape.batch;
  desc.channels = shape.channels;
  desc.length = shape.length;
  desc.pairs = P;
  desc.evaluation = SsmEvaluation::kStep;
  desc.dtype = dtype_;
  const absl::StatusOr<SsmConvPlan> plan = PlanSsmConv(desc, stream_.device());
  if (!plan.ok()) return plan.status();
  const DiagonalSsm ssm = RandomSsm(shape.channels, P);
  absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm);
  if (!filter.ok()) return filter.status();
  LONGWAVE_RETURN_IF_ERROR(filter->Upload(stream_, dtype_));
  auto state_in = floats_->Repeat(states, kPhaseState, stream_), state_out = Floats(states);
  if (!state_in.ok() || !state_out.ok()) {
    return state_in.ok() ? state_out.status() : state_in.status();
  }
  SsmConvArgs args;
  args.u = u_.data();
  args.y = y_.data();
  args.channel_stride = shape.length;
  args.batch_stride = shape.length * shape.channels;
  args.state_in = state_in->as<float>();
  args.state_out = state_out->as<float>();
  LONGWAVE_RETURN_IF_ERROR(Poison(shape));
  const auto run = [&] { return RunSsmConv(*plan, *filter, args, stream_); };
  LONGWAVE_RETURN_IF_ERROR(run());
  ErrorSum error, state_error;  // single tokens: over all channels of the first and last sequence
  for (int64_t n : {int64_t{0}, shape.batch - 1}) {
    for (int64_t c = 0; c < shape.channels; c += std::max<int64_t>(1, shape.channels / 64)) {
      const auto y = Output(n, c, shape);
      const auto x = Fetch(Dtype::kFloat32, state_out->data(), (n * shape.channels + c) * 2 * P,
                           2 * P, stream_);
      if (!y.ok() || !x.ok()) return y.ok() ? x.status() : y.status();
      std::vector<float> first(2 * P);
      floats_->Copy(kPhaseState + (n * shape.channels + c) * 2 * P, 2 * P, 1, first.data());
      std::vector<double> want(first.begin(), first.end());
      const std::vector<float> u = Channel(kPhaseU, n, c, shape);
      SsmRecurrence(
          ssm, c, shape.length, [&](int64_t t) { return double{u[t]}; }, want,
          [&](int64_t t, double value) { error.Add((*y)[t], value); });
      for (int64_t i = 0; i < 2 * P; ++i) state_error.Add((*x)[i], want[i]);
    }
  }
  const double tokens = static_cast<double>(shape.count());
  const Work work{
      8.0 * static_cast<double>(states) + 2.0 * static_cast<double>(SizeOf(dtype_)) * tokens,
      tokens * 12 * static_cast<double>(P)};
  return Finish(op, shape, dtype_, error.relative() < state_error.relative() ? state_error : error,
                work, "copy", CopySeconds(work.bytes), run);
}

absl::Status CudaBench::H3(const std::string& op, const Shape& shape) {
  const int64_t P = options_.pairs;
  H3MixDesc desc;
  desc.batch = shape.batch;
  desc.heads = shape.channels;
  desc.length = shape.length;
  desc.pairs = P;
  desc.shift_taps = kTaps;
  desc.dtype = dtype_;
  const absl::StatusOr<H3MixPlan> plan = PlanH3Mix(desc, stream_.device());
  if (!plan.ok()) return plan.status();
  const DiagonalSsm ssm = RandomSsm(shape.channels, P);
  absl::StatusOr<SsmFilter> filter = SsmFilter::Create(ssm);
  if (!filter.ok()) return filter.status();
  LONGWAVE_RETURN_IF_ERROR(filter->Upload(stream_, dtype_));
  auto taps = floats_->Repeat(shape.channels * kTaps, kPhaseTaps, stream_);
  if (!taps.ok()) return taps.status();
  H3MixArgs args;
  args.q = post_.data();
  args.k = u_.data();
  args.v = pre_.data();
  args.y = y_.data();
  args.channel_stride = shape.length;
  args.batch_stride = shape.length * shape.channels;
  args.shift_taps = taps->as<float>();
  LONGWAVE_RETURN_IF_ERROR(Poison(shape));
  const auto run = [&] { return RunH3Mix(*plan, *filter, args, stream_); };
  LONGWAVE_RETURN_IF_ERROR(run());

  const auto checked = Checked(shape);
  std::vector<std::vector<float>> got;
  for (const auto& [n, c] : checked) {
    auto values = Output(n, c, shape);
    if (!values.ok()) return values.status();
    got.push_back(*std::move(values));
  }
  std::vector<ErrorSum> errors(checked.size());
  pool_.ParallelFor(static_cast<int64_t>(checked.size()), [&](int64_t i, int) {
    const auto [n, c] = checked[i];
    const std::vector<float> q = Channel(kPhasePost, n, c, shape),
                             k = Channel(kPhaseU, n, c, shape), v = Channel(kPhasePre, n, c, shape);
    float h[kTaps];
    floats_->Copy(kPhaseTaps + c * kTaps, kTaps, 1, h);
    std::vector<double> x(2 * P);
    SsmRecurrence(
        ssm, c, shape.length,
        [&](int64_t t) {
          double sum = 0;
          for (int64_t j = 0; j < std::min(kTaps, t + 1); ++j) sum += double{h[j]} * k[t - j];
          return sum * v[t];
        },
        x, [&](int64_t t, double y) { errors[i].Add(got[i][t], q[t] * y); });
  });
  const ErrorSum worst = *std::max_element(
      errors.begin(), errors.end(),
      [](const ErrorSum& a, const ErrorSum& b) { return a.relative() < b.relative(); });
  const double tokens = static_cast<double>(shape.count()), p = static_cast<double>(P);
  const Work work{4 * static_cast<double>(SizeOf(dtype_)) * tokens,
                  tokens * (8 * p + 96 + p / 4 + 2 * kTaps + 2)};
  return Finish(op, shape, dtype_, worst, work, "copy", CopySeconds(work.bytes), run);
}

absl::Status CudaBench::Long(const std::string& op, const Shape& shape) {
  const int64_t L = shape.length;
  LongConvDesc desc;
  desc.batch = shape.batch;
  desc.channels = shape.channels;
  desc.length = desc.taps = L;
  desc.dtype = dtype_;
  const absl::StatusOr<LongConvPlan> plan = PlanLongConv(desc, stream_.device());
  if (!plan.ok()) return plan.status();
  std::vector<float> taps(static_cast<size_t>(shape.channels * L));
  const float scale = 1 / std::sqrt(static_cast<float>(L));
  pool_.ParallelFor(shape.channels, [&](int64_t c, int) {
    floats_->Copy(kPhaseTaps + c * L, L, scale, taps.data() + c * L);
  });
  const absl::StatusOr<LongConvFilter> filter = LongConvFilter::Create(*plan, taps.data(), stream_);
  if (!filter.ok()) return filter.status();
  LongConvArgs args;
  args.u = u_.data();
  args.y = y_.data();
  args.channel_stride = L;
  args.batch_stride = L * shape.channels;
  LONGWAVE_RETURN_IF_ERROR(Poison(shape));
  const auto run = [&] { return RunLongConv(*plan, *filter, args, stream_); };
  LONGWAVE_RETURN_IF_ERROR(run());

  // Sums of up to L products: at the first and the last tokens, and at some between.
  std::vector<int64_t> tokens;
  std::mt19937_64 generator(static_cast<uint64_t>(L));
  for (int64_t i = 0; i < std::min<int64_t>(L, 48); ++i) {
    tokens.push_back(i);
    tokens.push_back(L - 1 - i);
    tokens.push_back(static_cast<int64_t>(generator() % static_cast<uint64_t>(L)));
  }
  ErrorSum worst;
  for (const auto& [n, c] : Checked(shape)) {
    const auto got = Output(n, c, shape);
    if (!got.ok()) return got.status();
    const std::vector<float> u = Channel(kPhaseU, n, c, shape);
    const float* h = taps.data() + c * L;
    std::vector<double> want(tokens.size());
    pool_.ParallelFor(static_cast<int64_t>(tokens.size()), [&](int64_t i, int) {
      double sum = 0;
      for (int64_t j = 0; j <= tokens[i]; ++j) sum += double{h[j]} * double{u[tokens[i] - j]};
      want[i] = sum;
    });
    ErrorSum error;
    for (size_t i = 0; i < tokens.size(); ++i) error.Add((*got)[tokens[i]], want[i]);
    if (!(error.relative() <= worst.relative()) || (n == 0 && c == 0)) worst = error;
  }
  const double count = static_cast<double>(shape.count());
  // As two real transforms of 2L values and L products.
  const Work work{2 * static_cast<double>(SizeOf(dtype_)) * count,
                  count * (10 * std::log2(2 * static_cast<double>(L)) + 6)};
  return Finish(op, shape, dtype_, worst, work, "copy", CopySeconds(work.bytes), run);
}

const std::vector<int64_t> kSsmLengths = {256,      1 << 10,   4 << 10, 16 << 10,
                                          64 << 10, 256 << 10, 1 << 20, 4 << 20};
const std::vector<int64_t> kSomeLengths = {4 << 10, 64 << 10, 1 << 20};

std::vector<int64_t> LongConvLengths() {
  std::vector<int64_t> lengths;
  for (int64_t length = 256; length <= 4 << 20; length *= 2) lengths.push_back(length);
  for (int64_t length : {4097, 5000, 12289, 100003}) lengths.push_back(length);
  return lengths;
}

absl::Status CudaBench::Activations(Dtype dtype) {
  dtype_ = dtype;
  for (gpu::DeviceArray* array : {&u_, &pre_, &post_, &y_}) *array = gpu::DeviceArray();
  const int64_t period = std::min<int64_t>((1 << 24) - 3, 2 * options_.tokens + 1);
  auto pattern = BenchPattern::Create(dtype, period, stream_);
  if (!pattern.ok()) return pattern.status();
  pattern_ = *std::move(pattern);
  const int64_t H = *options_.channels;  // 768: the step's 2048, the single sequence's 128
  const Shape step = {64, std::max<int64_t>(1, H * 8 / 3), 1},
              one = {1, std::max<int64_t>(1, H / 6), options_.tokens};
  int64_t count = std::max(step.count(), one.count());
  for (int64_t length : Lengths(LongConvLengths())) {
    count = std::max(count, ShapeOf(length).count());
  }
  const std::pair<gpu::DeviceArray*, int64_t> inputs[] = {
      {&u_, kPhaseU}, {&pre_, kPhasePre}, {&post_, kPhasePost}, {&y_, 0}};
  for (const auto& [array, phase] : inputs) {
    auto filled = pattern_->Repeat(count, phase, stream_);
    if (!filled.ok()) return filled.status();
    *array = *std::move(filled);
  }

  const bool half = dtype != Dtype::kFloat32, brain = dtype == Dtype::kBFloat16;
  for (int64_t length : Lengths(kSsmLengths)) {
    const Shape shape = ShapeOf(length);
    Try("SsmConv dual", shape, dtype,
        [&] { return Ssm("SsmConv dual", shape, SsmEvaluation::kDualForm, Variant::kPlain); });
    if (!brain) continue;
    Try("SsmConv fft", shape, dtype,
        [&] { return Ssm("SsmConv fft", shape, SsmEvaluation::kBlockFft, Variant::kPlain); });
    Try("H3Mix", shape, dtype, [&] { return H3("H3Mix", shape); });
  }
  for (int64_t length : Lengths(kSomeLengths)) {
    const Shape shape = ShapeOf(length);
    if (!brain) break;
    Try("SsmConv gates", shape, dtype,
        [&] { return Ssm("SsmConv gates", shape, SsmEvaluation::kDualForm, Variant::kGates); });
    Try("SsmConv state only", shape, dtype, [&] {
      return Ssm("SsmConv state only", shape, SsmEvaluation::kDualForm, Variant::kStateOnly);
    });
  }
  if (brain) {
    Try("SsmConv one sequence", one, dtype, [&] {
      return Ssm("SsmConv one sequence", one, SsmEvaluation::kDualForm, Variant::kPlain);
    });
  }
  if (half) Try("SsmConv step", step, dtype, [&] { return Step("SsmConv step", step); });
  for (int64_t length : Lengths(LongConvLengths())) {
    const Shape shape = ShapeOf(length);
    if (half) Try("LongConv", shape, dtype, [&] { return Long("LongConv", shape); });
  }
  if (brain) {
    const int64_t rows = std::min<int64_t>(65536, options_.tokens);
    const int64_t widths[][2] = {{H, H}, {H, 4 * H}, {4 * H, H}};
    for (const auto& w : widths) {
      const std::string op = absl::StrCat("Gemm ", w[0], "x", w[1]);
      if (matmul_flops_per_second_ > 0) {
        Try(op, {1, w[1], rows}, dtype, [&] { return Gemm(op, rows, w[0], w[1]); });
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CudaBench::Run() {
  auto timer = CudaTimer::Create(*options_.seconds, stream_);
  if (!timer.ok()) return timer.status();
  timer_ = *std::move(timer);
  const int64_t period = std::min<int64_t>((1 << 24) - 3, 2 * options_.tokens + 1);
  auto floats = BenchPattern::Create(Dtype::kFloat32, period, stream_);
  auto pattern = BenchPattern::Create(Dtype::kBFloat16, period, stream_);
  if (!floats.ok() || !pattern.ok()) return floats.ok() ? pattern.status() : floats.status();
  floats_ = *std::move(floats);
  pattern_ = *std::move(pattern);
  LONGWAVE_RETURN_IF_ERROR(MeasureCopy());
  if (Wanted("Gemm")) {
    const int64_t n = options_.tokens >= 8192 ? 8192 : 128;
    const std::string op = absl::StrCat("Gemm ", n, "x", n);
    Try(op, {1, n, n}, Dtype::kBFloat16, [&] { return Gemm(op, n, n, n); });
  }
  for (Dtype dtype : {Dtype::kBFloat16, Dtype::kFloat16, Dtype::kFloat32}) {
    if (Wanted(dtype)) LONGWAVE_RETURN_IF_ERROR(Activations(dtype));
  }
  if (failures_ == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("bench: ", failures_, " rows failed"));
}

}  // namespace

absl::Status BenchOpsCuda(const BenchOptions& options, std::unique_ptr<gpu::Queue> queue,
                          absl::FunctionRef<void(const BenchRow&)> row,
                          absl::FunctionRef<void(const BenchFailure&)> failure) {
  BenchOptions full = options;
  if (!full.channels) full.channels = 768;
  if (!full.seconds) full.seconds = 0.03;
  LONGWAVE_RETURN_IF_ERROR(CheckBenchOptions(
      full, {"copy", "SsmConv dual", "SsmConv gates", "SsmConv fft", "SsmConv one sequence",
             "SsmConv state only", "SsmConv step", "H3Mix", "LongConv", "Gemm"}));
  return CudaBench(full, std::move(queue), row, failure).Run();
}

}  // namespace longwave

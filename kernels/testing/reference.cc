#include "kernels/testing/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>

namespace longwave::reference {
namespace {

constexpr uint32_t kSentinelBits = 0x7fa5a5a5;  // a signalling NaN: arithmetic changes it
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct ToleranceRow {
  Device::Kind device;
  Dtype dtype;
  double tolerance;
};
constexpr ToleranceRow kTolerances[] = {
    {Device::Kind::kCpu, Dtype::kFloat32, 2e-6},
    {Device::Kind::kCuda, Dtype::kFloat32, 2e-6},
    {Device::Kind::kCuda, Dtype::kBFloat16, 4e-3},
    {Device::Kind::kCuda, Dtype::kFloat16, 6e-4},
};

double At(const Floats& x, size_t i, double otherwise) { return x.empty() ? otherwise : x[i]; }

template <typename T>
double ErrorOf(const std::vector<T>& actual, const Doubles& expected) {
  if (actual.size() != expected.size()) return kInfinity;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double e = actual[i] - expected[i];
    difference += e * e;
    norm += expected[i] * expected[i];
  }
  if (!std::isfinite(difference) || !std::isfinite(norm)) return kInfinity;
  if (norm == 0) return difference == 0 ? 0 : kInfinity;
  return std::sqrt(difference / norm);
}

Complex StateAt(const Floats& state, int64_t row, int64_t pairs, int64_t n) {
  if (state.empty()) return 0;
  const float* x = state.data() + row * 2 * pairs;
  return {x[n], x[pairs + n]};
}

void SetState(Doubles& state, int64_t row, int64_t pairs, int64_t n, Complex x) {
  state[row * 2 * pairs + n] = x.real();
  state[row * 2 * pairs + pairs + n] = x.imag();
}

// One channel's recurrence: y[t] = 2 Re sum_n c_n x_n[t] + d w[t]. Reals by hand: std::complex's
// product looks for infinities, which makes long references slow.
void Recurrence(const DiagonalSsm& ssm, int64_t filter, const Doubles& w,
                std::vector<Complex>& state, Doubles& y) {
  const int64_t pairs = ssm.pairs;
  const Complex* a = ssm.a.data() + filter * pairs;
  const Complex* b = ssm.b.data() + filter * pairs;
  const Complex* c = ssm.c.data() + filter * pairs;
  for (size_t t = 0; t < w.size(); ++t) {
    double sum = 0;
    for (int64_t n = 0; n < pairs; ++n) {
      const double re = state[n].real(), im = state[n].imag();
      const double next_re = a[n].real() * re - a[n].imag() * im + b[n].real() * w[t];
      const double next_im = a[n].real() * im + a[n].imag() * re + b[n].imag() * w[t];
      state[n] = {next_re, next_im};
      sum += c[n].real() * next_re - c[n].imag() * next_im;
    }
    y[t] = 2 * sum + ssm.d[filter] * w[t];
  }
}

}  // namespace

double Tolerance(Device device, Dtype dtype) {
  for (const ToleranceRow& row : kTolerances) {
    if (row.device == device.kind && row.dtype == dtype) return row.tolerance;
  }
  ADD_FAILURE() << "no tolerance for " << device.ToString();
  return 0;
}

double CarryTolerance(Device device, const DiagonalSsm& ssm, int64_t length, int64_t carries) {
  double largest = 0;
  for (const Complex& a : ssm.a) largest = std::max(largest, std::abs(a));
  const double memory = std::min<double>(length, 1 / std::max(1 - largest, 1e-12));
  return Tolerance(device) + std::ldexp(1.0, -24) * std::sqrt(carries * memory / length);
}

int64_t Carries(int64_t length, int64_t block) {
  block = std::min<int64_t>(block, 32);
  return (length + block - 1) / block;
}

double RelativeError(const Floats& actual, const Doubles& expected) {
  return ErrorOf(actual, expected);
}
double RelativeError(const Doubles& actual, const Doubles& expected) {
  return ErrorOf(actual, expected);
}

::testing::AssertionResult Near(const Floats& actual, const Doubles& expected, double tolerance) {
  const double error = RelativeError(actual, expected);
  if (error <= tolerance) return ::testing::AssertionSuccess();
  auto failure = ::testing::AssertionFailure() << "relative error " << error << " > " << tolerance;
  if (actual.size() != expected.size()) {
    return failure << "; " << actual.size() << " elements, expected " << expected.size();
  }
  size_t worst = 0;
  double largest = -1;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double e = std::abs(actual[i] - expected[i]);
    if (!(e <= largest)) {
      worst = i;
      largest = e;
      if (std::isnan(e)) break;
    }
  }
  return failure << "; element " << worst << " of " << actual.size() << " is " << actual[worst]
                 << ", expected " << expected[worst];
}

::testing::AssertionResult BitwiseEqual(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " elements and " << b.size();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "element " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult Rejected(const absl::Status& status,
                                    const std::vector<std::string>& values) {
  if (!absl::IsInvalidArgument(status)) {
    return ::testing::AssertionFailure() << "status is " << status.ToString();
  }
  for (const std::string& value : values) {
    if (status.message().find(value) == std::string::npos) {
      return ::testing::AssertionFailure() << "no \"" << value << "\" in: " << status.ToString();
    }
  }
  return ::testing::AssertionSuccess();
}

Floats Normal(uint64_t seed, int64_t count, double scale, double mean) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(mean, scale);
  Floats x(count);
  for (float& value : x) value = static_cast<float>(normal(random));
  return x;
}

Doubles ToDoubles(const Floats& x) { return Doubles(x.begin(), x.end()); }

Floats Transpose(const Floats& x, int64_t rows, int64_t columns) {
  Floats y(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) y[c * rows + r] = x[r * columns + c];
  }
  return y;
}

Floats Columns(const Floats& x, int64_t rows, int64_t length, int64_t begin, int64_t count) {
  Floats y;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x.data() + r * length + begin;
    y.insert(y.end(), row, row + count);
  }
  return y;
}

std::vector<int64_t> RandomSplit(uint64_t seed, int64_t length) {
  static constexpr int64_t kBorders[] = {2, 3, 16, 32, 63, 64, 65, 128, 256, 512};
  std::mt19937_64 random(seed);
  std::vector<int64_t> chunks;
  while (length > 0) {
    int64_t chunk = 1;
    switch (random() % 4) {
      case 0:
        break;
      case 1:
        chunk = 1 + static_cast<int64_t>(random() % 40);
        break;
      case 2:
        chunk = kBorders[random() % std::size(kBorders)] + static_cast<int64_t>(random() % 3) - 1;
        break;
      case 3:
        chunk = 1 + static_cast<int64_t>(random() % length);
        break;
    }
    chunk = std::min(chunk, length);
    chunks.push_back(chunk);
    length -= chunk;
  }
  return chunks;
}

DiagonalSsm S4dLin(uint64_t seed, int64_t filters, int64_t pairs, double dt_min, double dt_max) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> log_dt(std::log(dt_min), std::log(dt_max));
  DiagonalSsm ssm;
  ssm.filters = filters;
  ssm.pairs = pairs;
  for (int64_t f = 0; f < filters; ++f) {
    const double dt = std::exp(log_dt(random));
    for (int64_t n = 0; n < pairs; ++n) {
      const Complex A(-0.5, std::numbers::pi * static_cast<double>(n));
      const Complex B(1 + 0.3 * normal(random), 0.3 * normal(random));
      const Complex denominator = 1.0 - dt * A / 2.0;
      ssm.a.push_back((1.0 + dt * A / 2.0) / denominator);
      ssm.b.push_back(dt * B / denominator);
      const double c_re = normal(random);
      ssm.c.emplace_back(c_re, normal(random));
    }
    ssm.d.push_back(0.1 * normal(random));
  }
  return ssm;
}

Guarded::Guarded(int64_t batch, int64_t channels, int64_t length, int64_t gap)
    : batch_(batch), channels_(channels), length_(length), gap_(gap) {
  const size_t size = 2 * kGuard + batch * batch_stride();
  storage_.resize(size);
  body_.resize(size);
  for (float& x : storage_) std::memcpy(&x, &kSentinelBits, sizeof(x));
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < length; ++t) {
        storage_[Index(n, c, t)] = std::numeric_limits<float>::quiet_NaN();
        body_[Index(n, c, t)] = true;
      }
    }
  }
}

Guarded::Guarded(const Floats& values, int64_t batch, int64_t channels, int64_t length, int64_t gap)
    : Guarded(batch, channels, length, gap) {
  Set(values);
}

void Guarded::Set(const Floats& packed) {
  ASSERT_EQ(static_cast<int64_t>(packed.size()), batch_ * channels_ * length_);
  const float* next = packed.data();
  for (int64_t n = 0; n < batch_; ++n) {
    for (int64_t c = 0; c < channels_; ++c, next += length_) {
      std::copy(next, next + length_, storage_.data() + Index(n, c, 0));
    }
  }
}

Floats Guarded::Packed() const {
  Floats packed;
  packed.reserve(batch_ * channels_ * length_);
  for (int64_t n = 0; n < batch_; ++n) {
    for (int64_t c = 0; c < channels_; ++c) {
      const float* row = storage_.data() + Index(n, c, 0);
      packed.insert(packed.end(), row, row + length_);
    }
  }
  return packed;
}

::testing::AssertionResult Guarded::Intact() const {
  for (size_t i = 0; i < storage_.size(); ++i) {
    if (!body_[i] && std::memcmp(&storage_[i], &kSentinelBits, sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "sentinel at " << static_cast<int64_t>(i) - kGuard << " of (" << batch_ << ", "
             << channels_ << ", " << length_ << ") with gap " << gap_ << " is now " << storage_[i];
    }
  }
  return ::testing::AssertionSuccess();
}

PoisonedStream::PoisonedStream(int threads, int64_t scratch_floats)
    : pool_(threads), stream_(&pool_) {
  for (int worker = 0; worker < pool_.threads(); ++worker) {
    scratch_.push_back(stream_.Scratch(worker, scratch_floats));
    std::fill_n(scratch_.back(), scratch_floats, std::numeric_limits<float>::quiet_NaN());
  }
}

::testing::AssertionResult PoisonedStream::ScratchKept() {
  for (int worker = 0; worker < pool_.threads(); ++worker) {
    if (stream_.Scratch(worker, 0) != scratch_[worker]) {
      return ::testing::AssertionFailure()
             << "worker " << worker << " took more than scratch_floats";
    }
  }
  return ::testing::AssertionSuccess();
}

WithState SsmConv(const DiagonalSsm& ssm, const SsmConvDesc& desc, const Floats& u,
                  const Floats& pre_gate, const Floats& post_gate, const Floats& state_in) {
  WithState out;
  out.y.resize(desc.batch * desc.channels * desc.length);
  out.state.resize(desc.batch * desc.channels * 2 * desc.pairs);
  Doubles w(desc.length), y(desc.length);
  std::vector<Complex> state(desc.pairs);
  for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
    const int64_t filter = row % desc.channels / desc.channels_per_filter;
    const int64_t at = row * desc.length;
    for (int64_t t = 0; t < desc.length; ++t) w[t] = At(pre_gate, at + t, 1) * u[at + t];
    for (int64_t n = 0; n < desc.pairs; ++n) state[n] = StateAt(state_in, row, desc.pairs, n);
    Recurrence(ssm, filter, w, state, y);
    for (int64_t t = 0; t < desc.length; ++t) out.y[at + t] = At(post_gate, at + t, 1) * y[t];
    for (int64_t n = 0; n < desc.pairs; ++n) SetState(out.state, row, desc.pairs, n, state[n]);
  }
  return out;
}

WithState SsmConvByTaps(const DiagonalSsm& ssm, const SsmConvDesc& desc, const Floats& u,
                        const Floats& pre_gate, const Floats& post_gate, const Floats& state_in) {
  const int64_t length = desc.length, pairs = desc.pairs;
  WithState out;
  out.y.resize(desc.batch * desc.channels * length);
  out.state.resize(desc.batch * desc.channels * 2 * pairs);
  for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
    const int64_t filter = row % desc.channels / desc.channels_per_filter;
    const int64_t at = row * length;
    Doubles w(length), taps(length), y(length);
    for (int64_t t = 0; t < length; ++t) w[t] = At(pre_gate, at + t, 1) * u[at + t];
    for (int64_t n = 0; n < pairs; ++n) {
      const Complex a = ssm.a[filter * pairs + n], b = ssm.b[filter * pairs + n];
      const Complex c = ssm.c[filter * pairs + n], x = StateAt(state_in, row, pairs, n);
      Complex state = std::pow(a, static_cast<double>(length)) * x;
      for (int64_t l = 0; l < length; ++l) {
        const Complex power = std::pow(a, static_cast<double>(l));
        taps[l] += 2 * (c * b * power).real();
        y[l] += 2 * (c * power * a * x).real();
        state += b * power * w[length - 1 - l];
      }
      SetState(out.state, row, pairs, n, state);
    }
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t l = 0; l <= t; ++l) y[t] += taps[l] * w[t - l];
      out.y[at + t] = At(post_gate, at + t, 1) * (y[t] + ssm.d[filter] * w[t]);
    }
  }
  return out;
}

WithState ShiftConv(const ShiftConvDesc& desc, const Floats& u, const Floats& taps,
                    const Floats& halo_in) {
  const int64_t halo = desc.taps - 1;
  WithState out;
  for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
    const float* h = taps.data() + row % desc.channels * desc.taps;
    Doubles history;  // the halo, then the chunk
    for (int64_t j = 0; j < halo; ++j) history.push_back(At(halo_in, row * halo + j, 0));
    for (int64_t t = 0; t < desc.length; ++t) history.push_back(u[row * desc.length + t]);
    for (int64_t t = 0; t < desc.length; ++t) {
      double sum = 0;
      for (int64_t i = 0; i < desc.taps; ++i) sum += h[i] * history[halo + t - i];
      out.y.push_back(sum);
    }
    out.halo.insert(out.halo.end(), history.end() - halo, history.end());
  }
  return out;
}

Doubles LongConv(const LongConvDesc& desc, const Floats& u, const Floats& taps,
                 const Floats& pre_gate, const Floats& post_gate) {
  Doubles out(desc.batch * desc.channels * desc.length);
  Doubles w(desc.length);
  for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
    const float* h = taps.data() + row % desc.channels * desc.taps;
    const int64_t at = row * desc.length;
    for (int64_t t = 0; t < desc.length; ++t) w[t] = At(pre_gate, at + t, 1) * u[at + t];
    for (int64_t t = 0; t < desc.length; ++t) {
      double sum = 0;
      for (int64_t i = 0; i <= std::min(t, desc.taps - 1); ++i) sum += h[i] * w[t - i];
      out[at + t] = At(post_gate, at + t, 1) * sum;
    }
  }
  return out;
}

WithState H3Mix(const DiagonalSsm& ssm, const H3MixDesc& desc, const Floats& q, const Floats& k,
                const Floats& v, const Floats& shift_taps, const Floats& halo_in,
                const Floats& state_in) {
  const int64_t heads = desc.heads, dim = desc.head_dim, length = desc.length, pairs = desc.pairs;
  const ShiftConvDesc shift{desc.batch, desc.width(), length, desc.shift_taps};
  WithState shifted = ShiftConv(shift, k, shift_taps, halo_in);
  WithState out;
  out.y.resize(desc.batch * desc.width() * length);
  out.state.resize(desc.batch * heads * dim * dim * 2 * pairs);
  out.halo = shifted.halo;
  Doubles kv(length), y(length);
  std::vector<Complex> state(pairs);
  for (int64_t n = 0; n < desc.batch; ++n) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t d1 = 0; d1 < dim; ++d1) {
        const int64_t k_at = (n * desc.width() + h * dim + d1) * length;
        for (int64_t d2 = 0; d2 < dim; ++d2) {
          const int64_t v_at = (n * desc.width() + h * dim + d2) * length;
          const int64_t y_at = (n * desc.width() + d2 * heads + h) * length;
          const int64_t row = ((n * heads + h) * dim + d1) * dim + d2;
          for (int64_t t = 0; t < length; ++t) kv[t] = shifted.y[k_at + t] * v[v_at + t];
          for (int64_t p = 0; p < pairs; ++p) state[p] = StateAt(state_in, row, pairs, p);
          Recurrence(ssm, h, kv, state, y);
          for (int64_t t = 0; t < length; ++t) out.y[y_at + t] += q[k_at + t] * y[t];
          for (int64_t p = 0; p < pairs; ++p) SetState(out.state, row, pairs, p, state[p]);
        }
      }
    }
  }
  return out;
}

Doubles AdvanceState(const DiagonalSsm& ssm, const AdvanceStateDesc& desc, const Floats& state_in,
                     const Floats& local) {
  using Long = std::complex<long double>;
  Doubles out(state_in.size());
  for (int64_t row = 0; row < desc.batch * desc.channels; ++row) {
    const int64_t filter = row % desc.channels / desc.channels_per_filter;
    for (int64_t n = 0; n < desc.pairs; ++n) {
      const Complex a = ssm.a[filter * desc.pairs + n];
      const Long power = std::exp(static_cast<long double>(desc.length) * std::log(Long(a)));
      const Complex x = StateAt(state_in, row, desc.pairs, n);
      const Complex sum = Complex(power * Long(x)) + StateAt(local, row, desc.pairs, n);
      SetState(out, row, desc.pairs, n, sum);
    }
  }
  return out;
}

Doubles LayerNorm(const Doubles& x, int64_t rows, int64_t width, const Floats& scale,
                  const Floats& shift, double eps) {
  Doubles y(rows * width);
  for (int64_t r = 0; r < rows; ++r) {
    const double* row = x.data() + r * width;
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += row[i] / width;
    for (int64_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / width;
    for (int64_t i = 0; i < width; ++i) {
      y[r * width + i] = (row[i] - mean) / std::sqrt(variance + eps) * scale[i] + shift[i];
    }
  }
  return y;
}

double Activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

double Glu(double a, double b) { return a / (1 + std::exp(-b)); }

Doubles Linear(const Doubles& x, int64_t rows, int64_t in, int64_t out, const Floats& weight,
               const Floats& bias) {
  Doubles y(rows * out);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = At(bias, o, 0);
      for (int64_t i = 0; i < in; ++i) sum += x[r * in + i] * weight[o * in + i];
      y[r * out + o] = sum;
    }
  }
  return y;
}

void Rotate(double* head, int64_t rotary_dim, int64_t position) {
  const int64_t half = rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = position * std::pow(10000.0, -2.0 * i / rotary_dim);
    const double first = head[i], second = head[half + i];
    head[i] = first * std::cos(angle) - second * std::sin(angle);
    head[half + i] = second * std::cos(angle) + first * std::sin(angle);
  }
}

Doubles Attention(int64_t heads, int64_t head_dim, int64_t rotary_dim, int64_t length,
                  const Floats& qkv) {
  const int64_t width = heads * head_dim;
  Doubles x = ToDoubles(qkv);
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t h = 0; h < 2 * heads; ++h) {  // q's heads, then k's
      Rotate(x.data() + t * 3 * width + h * head_dim, rotary_dim, t);
    }
  }
  Doubles out(length * width), p(length);
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const double* q = x.data() + t * 3 * width + h * head_dim;
      double largest = -kInfinity, sum = 0;
      for (int64_t s = 0; s <= t; ++s) {
        const double* k = x.data() + s * 3 * width + width + h * head_dim;
        p[s] = 0;
        for (int64_t i = 0; i < head_dim; ++i) p[s] += q[i] * k[i];
        p[s] /= std::sqrt(static_cast<double>(head_dim));
        largest = std::max(largest, p[s]);
      }
      for (int64_t s = 0; s <= t; ++s) sum += p[s] = std::exp(p[s] - largest);
      for (int64_t s = 0; s <= t; ++s) {
        const double* v = x.data() + s * 3 * width + 2 * width + h * head_dim;
        for (int64_t i = 0; i < head_dim; ++i)
          out[t * width + h * head_dim + i] += p[s] / sum * v[i];
      }
    }
  }
  return out;
}

Doubles Mlp(const Floats& x, int64_t rows, int64_t width, int64_t inner, Activation activation,
            const Floats& scale, const Floats& shift, double eps, const Floats& fc1_weight,
            const Floats& fc1_bias, const Floats& fc2_weight, const Floats& fc2_bias) {
  Doubles hidden = Linear(LayerNorm(ToDoubles(x), rows, width, scale, shift, eps), rows, width,
                          inner, fc1_weight, fc1_bias);
  for (double& value : hidden) value = Activate(activation, value);
  Doubles y = Linear(hidden, rows, inner, width, fc2_weight, fc2_bias);
  for (size_t i = 0; i < y.size(); ++i) y[i] += x[i];
  return y;
}

Doubles TokenLoss(int64_t rows, int64_t width, int64_t vocab, const Floats& hidden,
                  const Floats& embedding, const std::vector<int32_t>& targets) {
  const Doubles logits = Linear(ToDoubles(hidden), rows, width, vocab, embedding, {});
  Doubles nll(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const double* row = logits.data() + r * vocab;
    const double largest = *std::max_element(row, row + vocab);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - largest);
    nll[r] = std::log(sum) + largest - row[targets[r]];
  }
  return nll;
}

}  // namespace longwave::reference

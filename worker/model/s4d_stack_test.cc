// A stack of S4D layers against float64, by the recurrence.
#include <cmath>
#include <complex>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "worker/model/model_test_util.h"

namespace longwave {
namespace {

using Doubles = std::vector<double>;

void ReferenceNorm(const Floats& scale, const Floats& shift, Doubles* x) {
  const size_t d = scale.size();
  for (size_t row = 0; row < x->size(); row += d) {
    double mean = 0, variance = 0;
    for (size_t c = 0; c < d; ++c) mean += (*x)[row + c] / static_cast<double>(d);
    for (size_t c = 0; c < d; ++c) {
      variance += ((*x)[row + c] - mean) * ((*x)[row + c] - mean) / static_cast<double>(d);
    }
    for (size_t c = 0; c < d; ++c) {
      (*x)[row + c] =
          ((*x)[row + c] - mean) / std::sqrt(variance + kS4dEpsilon) * scale[c] + shift[c];
    }
  }
}

// gelu(conv(K, u) + D u), by the recurrence of the zero-order hold.
Doubles ReferenceConv(ModelFiles& files, const std::string& prefix, int64_t d, int64_t pairs,
                      const Doubles& u) {
  const auto get = [&](const char* name) -> const Floats& {
    return files.Find(prefix + name).values;
  };
  const Floats &log_dt = get("kernel.log_dt"), &real = get("kernel.log_A_real"),
               &imag = get("kernel.A_imag"), &C = get("kernel.C"), &skip = get("D");
  Doubles y(u.size());
  for (int64_t h = 0; h < d; ++h) {
    std::vector<std::complex<double>> state(pairs), a(pairs), b(pairs);
    for (int64_t n = 0; n < pairs; ++n) {
      const std::complex<double> A(-std::exp(double{real[h * pairs + n]}), imag[h * pairs + n]);
      a[n] = std::exp(A * std::exp(double{log_dt[h]}));
      b[n] = (a[n] - 1.0) / A;
    }
    for (size_t t = h; t < u.size(); t += d) {
      y[t] = skip[h] * u[t];
      for (int64_t n = 0; n < pairs; ++n) {
        state[n] = a[n] * state[n] + b[n] * u[t];
        const std::complex<double> c(C[2 * (h * pairs + n)], C[2 * (h * pairs + n) + 1]);
        y[t] += 2 * (c * state[n]).real();
      }
      y[t] *= 0.5 * std::erfc(-y[t] / std::sqrt(2.0));
    }
  }
  return y;
}

Doubles ReferenceStack(ModelFiles& files, const S4dShape& s, const Floats& input) {
  Doubles x(input.begin(), input.end());
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = absl::StrCat("layers.", i, ".");
    const auto norm = [&](Doubles* values) {
      ReferenceNorm(files.Find(prefix + "norm.weight").values,
                    files.Find(prefix + "norm.bias").values, values);
    };
    Doubles u = x;
    if (s.norm == "pre") norm(&u);
    const Doubles y = ReferenceConv(files, prefix, s.d, s.d_state / 2, u);
    const Floats& W = files.Find(prefix + "output_linear.0.weight").values;
    const Floats& bias = files.Find(prefix + "output_linear.0.bias").values;
    for (size_t row = 0; row < x.size(); row += s.d) {
      for (int64_t c = 0; c < s.d; ++c) {
        double value = bias[c], gate = bias[s.d + c];
        for (int64_t k = 0; k < s.d; ++k) {
          value += double{W[c * s.d + k]} * y[row + k];
          gate += double{W[(s.d + c) * s.d + k]} * y[row + k];
        }
        x[row + c] = value / (1 + std::exp(-gate)) + (s.residual ? x[row + c] : 0);
      }
    }
    if (s.norm == "post") norm(&x);
  }
  return x;
}

TEST(S4dStack, AgreesWithFloat64) {
  constexpr int64_t kLength = 600;
  ThreadPool pool(2);
  for (const char* norm : {"none", "pre", "post"}) {
    for (const bool residual : {true, false}) {
      const S4dShape shape{.d = 10, .layers = 3, .d_state = 18, .residual = residual, .norm = norm};
      ModelFiles files = RandomS4d(shape, 8);
      const std::shared_ptr<const Model> model = Loaded(files);
      const Input input(*model, kLength);
      const Doubles want = ReferenceStack(files, shape, input.x);
      EXPECT_LE(RelativeError(RunWhole(model, input, kLength, 2), want), 1e-5) << norm << residual;
      const auto runner = Runner(model, 350, pool);
      EXPECT_LE(RelativeError(RunPieces(*runner, input, {1, 349, 29, 221}), want), 1e-5)
          << norm << residual;
    }
  }
}

}  // namespace
}  // namespace longwave

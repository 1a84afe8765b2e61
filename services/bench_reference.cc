#include "services/bench_reference.h"

#include <cmath>
#include <random>

namespace longwave {

std::vector<float> RandomNormal(int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(generator);
  return values;
}

DiagonalSsm RandomSsm(int64_t filters, int64_t pairs) {
  DiagonalSsm ssm{filters, pairs, {}, {}, {}, std::vector<double>(filters, 1.0)};
  const std::vector<float> c = RandomNormal(2 * filters * pairs, 7);
  for (int64_t h = 0; h < filters; ++h) {
    const double dt = 1e-3 * std::pow(100.0, static_cast<double>(h) / static_cast<double>(filters));
    for (int64_t n = 0; n < pairs; ++n) {
      Complex a, b;
      DiscretizeBilinear({-0.5, M_PI * static_cast<double>(n)}, 1.0, dt, &a, &b);
      ssm.a.push_back(a);
      ssm.b.push_back(b);
      ssm.c.emplace_back(c[2 * (h * pairs + n)], c[2 * (h * pairs + n) + 1]);
    }
  }
  return ssm;
}

double ConvError(const std::vector<double>& taps, const float* u, const float* y, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t t = 0; t < count; ++t) {
    double sum = 0;
    for (int64_t i = 0; i <= t && i < static_cast<int64_t>(taps.size()); ++i) {
      sum += taps[i] * double{u[t - i]};
    }
    difference += (y[t] - sum) * (y[t] - sum);
    norm += sum * sum;
  }
  return std::sqrt(difference / norm);
}

void SsmRecurrence(const DiagonalSsm& ssm, int64_t filter, int64_t length,
                   absl::FunctionRef<double(int64_t)> u, std::vector<double>& state,
                   absl::FunctionRef<void(int64_t, double)> out) {
  const int64_t P = ssm.pairs;
  // Rows of P: the compiler makes vectors of plain products, not of std::complex.
  std::vector<double> row(6 * P);
  double *ar = row.data(), *ai = ar + P, *br = ai + P, *bi = br + P, *cr = bi + P, *ci = cr + P;
  for (int64_t n = 0; n < P; ++n) {
    const int64_t i = filter * P + n;
    ar[n] = ssm.a[i].real(), ai[n] = ssm.a[i].imag();
    br[n] = ssm.b[i].real(), bi[n] = ssm.b[i].imag();
    cr[n] = 2 * ssm.c[i].real(), ci[n] = -2 * ssm.c[i].imag();
  }
  double *xr = state.data(), *xi = xr + P;
  for (int64_t t = 0; t < length; ++t) {
    const double in = u(t);
    double y = ssm.d[filter] * in;
    for (int64_t n = 0; n < P; ++n) {
      const double re = ar[n] * xr[n] - ai[n] * xi[n] + br[n] * in;
      xi[n] = ar[n] * xi[n] + ai[n] * xr[n] + bi[n] * in;
      xr[n] = re;
    }
    for (int64_t n = 0; n < P; ++n) y += cr[n] * xr[n] + ci[n] * xi[n];
    out(t, y);
  }
}

}  // namespace longwave

#include "kernels/diagonal_ssm.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace longwave {

absl::Status DiagonalSsm::Validate() const {
  const size_t count = static_cast<size_t>(filters * pairs);
  if (filters <= 0 || pairs <= 0 || a.size() != count || b.size() != count || c.size() != count ||
      d.size() != static_cast<size_t>(filters)) {
    return absl::InvalidArgumentError(absl::StrCat("diagonal SSM of ", filters, " filters x ",
                                                   pairs, " pairs has ", a.size(), " a, ", b.size(),
                                                   " b, ", c.size(), " c and ", d.size(), " d"));
  }
  for (size_t i = 0; i < count; ++i) {
    const bool finite = std::isfinite(a[i].real()) && std::isfinite(a[i].imag()) &&
                        std::isfinite(b[i].real()) && std::isfinite(b[i].imag()) &&
                        std::isfinite(c[i].real()) && std::isfinite(c[i].imag());
    if (!finite || std::abs(a[i]) > 1.0 + 1e-12) {
      return absl::InvalidArgumentError(
          absl::StrCat("diagonal SSM: filter ", i / pairs, ", pair ", i % pairs,
                       finite ? " is unstable: |a| = " : " is not finite: |a| = ", std::abs(a[i])));
    }
  }
  for (size_t i = 0; i < d.size(); ++i) {
    if (!std::isfinite(d[i])) {
      return absl::InvalidArgumentError(absl::StrCat("diagonal SSM: d[", i, "] = ", d[i]));
    }
  }
  return absl::OkStatus();
}

void DiagonalSsm::Taps(int64_t filter, absl::Span<double> out) const {
  for (double& tap : out) tap = 0;
  for (int64_t n = filter * pairs; n < (filter + 1) * pairs; ++n) {
    // Powers by running products, restarted from an exact one so that rounding never accumulates.
    Complex power = 1;
    for (size_t l = 0; l < out.size(); ++l) {
      if (l % 1024 == 0) power = c[n] * b[n] * Power(a[n], static_cast<int64_t>(l));
      out[l] += 2 * power.real();
      power *= a[n];
    }
  }
}

Complex Power(Complex a, int64_t l) {
  Complex result = 1;
  for (; l > 0; l >>= 1) {
    if (l & 1) result *= a;
    a *= a;
  }
  return result;
}

void DiscretizeBilinear(Complex A, Complex B, double dt, Complex* a, Complex* b) {
  const Complex half = 0.5 * dt * A;
  *a = (1.0 + half) / (1.0 - half);
  *b = dt * B / (1.0 - half);
}

void DiscretizeZeroOrderHold(Complex A, double dt, Complex* a, Complex* b) {
  const Complex z = dt * A;
  *a = std::exp(z);
  // exp(z) - 1 without cancellation at small z.
  const double half = std::sin(z.imag() / 2);
  *b = Complex(std::expm1(z.real()) * std::cos(z.imag()) - 2 * half * half, a->imag()) / A;
}

}  // namespace longwave

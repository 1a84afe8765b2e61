// The discretised diagonal state-space model that SsmConv evaluates, in float64:
//   x[t] = a x[t-1] + b u[t],   y[t] = 2 Re sum_n c_n x_n[t] + d u[t]
// with `pairs` stored representatives of conjugate pairs for each filter. The factor 2 stands in
// the output only, never in the state. Sources: Gu et al., "On the Parameterization and
// Initialization of Diagonal State Space Models" (arXiv 2206.11893); Fu et al., "Hungry Hungry
// Hippos" (arXiv 2212.14052).
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace longwave {

using Complex = std::complex<double>;

struct DiagonalSsm {
  int64_t filters = 0;
  int64_t pairs = 0;
  std::vector<Complex> a, b, c;  // (filters, pairs)
  std::vector<double> d;         // (filters)

  // Sizes agree, every number is finite and |a| <= 1.
  absl::Status Validate() const;
  // K[l] = 2 Re sum_n c_n b_n a_n^l for l in [0, out.size()), without d.
  void Taps(int64_t filter, absl::Span<double> out) const;
};

// a^l by repeated squaring: exact to rounding at any l, where exp(l log a) is not.
Complex Power(Complex a, int64_t l);

// One filter's continuous parameters (A, B, C, dt) made discrete.
// Bilinear: a = (1 + dt A/2) / (1 - dt A/2), b = dt B / (1 - dt A/2).
void DiscretizeBilinear(Complex A, Complex B, double dt, Complex* a, Complex* b);
// Zero-order hold with B = 1: a = exp(dt A), b = (exp(dt A) - 1) / A.
void DiscretizeZeroOrderHold(Complex A, double dt, Complex* a, Complex* b);

}  // namespace longwave

// Pieces of float32 FFTs inside kernels: transforms of 2 to 32 points in one thread's registers,
// and the twiddle factors between them.
//
// Every root of unity is exact to float32: those inside a small transform are constants computed in
// float64 at compile time, the others come from tables made in float64 on the host (RootTable),
// which hold the powers 1, 2, 4, ... of each root, so that a thread makes its 16 factors with a few
// loads and products at most four deep.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/gpu/device_code.h"

namespace longwave::fft {

using Complex = float2;

LONGWAVE_DEVICE Complex Add(Complex a, Complex b) { return {a.x + b.x, a.y + b.y}; }
LONGWAVE_DEVICE Complex Sub(Complex a, Complex b) { return {a.x - b.x, a.y - b.y}; }
LONGWAVE_DEVICE Complex Mul(Complex a, Complex b) {
  return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}
LONGWAVE_DEVICE Complex MulConj(Complex a, Complex b) {  // a conj(b)
  return {a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y};
}

// f(0), ..., f(N-1), each argument a compile-time constant.
template <typename F, int... I>
LONGWAVE_DEVICE void StaticForEach(F&& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, typename F>
LONGWAVE_DEVICE void StaticFor(F&& f) {
  StaticForEach(f, std::make_integer_sequence<int, N>{});
}

// exp(2 pi i k / n) in float64 at compile time.
struct ConstantRoot {
  double re, im;
};
constexpr ConstantRoot RootAt(int k, int n) {
  k = (k % n + n) % n;
  const int quadrant = 4 * k / n, rest = 4 * k - quadrant * n;  // rest / 4n of a turn, below 1/4
  const bool swap = 2 * rest > n;                               // above 1/8: from the other side
  const double x = 1.57079632679489661923 * (swap ? n - rest : rest) / n;
  double sine = 0, cosine = 0, term = 1;
  for (int i = 0; i < 24; ++i) {  // x <= pi/4: the terms end below 1e-25
    const double sign = i % 4 < 2 ? 1 : -1;
    (i % 2 == 0 ? cosine : sine) += sign * term;
    term *= x / (i + 1);
  }
  const double re = swap ? sine : cosine, im = swap ? cosine : sine;
  switch (quadrant) {
    case 0:
      return {re, im};
    case 1:
      return {-im, re};
    case 2:
      return {-re, -im};
    default:
      return {im, -re};
  }
}

// v exp(2 pi i K / N)
template <int K, int N>
LONGWAVE_DEVICE Complex Turn(Complex v) {
  constexpr int k = (K % N + N) % N;
  if constexpr (k == 0) {
    return v;
  } else if constexpr (4 * k == N) {
    return {-v.y, v.x};
  } else if constexpr (2 * k == N) {
    return {-v.x, -v.y};
  } else if constexpr (4 * k == 3 * N) {
    return {v.y, -v.x};
  } else {
    constexpr float re = static_cast<float>(RootAt(k, N).re);
    constexpr float im = static_cast<float>(RootAt(k, N).im);
    return {v.x * re - v.y * im, v.x * im + v.y * re};
  }
}

// v[k] = sum_j v[j] exp(2 pi i S j k / R), in natural order; S is 1 or -1. R of factors 4, 2, 3
// and an odd number.
template <int R, int S>
LONGWAVE_DEVICE void Dft(Complex (&v)[R]) {
  constexpr int A = R > 4 && R % 4 == 0 ? 4 : R > 2 && R % 2 == 0 ? 2 : R > 3 && R % 3 == 0 ? 3 : R;
  if constexpr (R == 1) {
  } else if constexpr (R == 2) {
    const Complex a = v[0];
    v[0] = Add(a, v[1]);
    v[1] = Sub(a, v[1]);
  } else if constexpr (R == 4) {
    const Complex a = Add(v[0], v[2]), b = Sub(v[0], v[2]), c = Add(v[1], v[3]);
    const Complex d = Turn<S, 4>(Sub(v[1], v[3]));
    v[0] = Add(a, c);
    v[1] = Add(b, d);
    v[2] = Sub(a, c);
    v[3] = Sub(b, d);
  } else if constexpr (A == R) {  // odd: j and R - j together
    constexpr int H = R / 2;
    Complex sum[H], difference[H];
    Complex total = v[0];
    StaticFor<H>([&](auto j) {
      sum[j] = Add(v[j + 1], v[R - 1 - j]);
      difference[j] = Sub(v[j + 1], v[R - 1 - j]);
      total = Add(total, sum[j]);
    });
    StaticFor<H>([&](auto kk) {
      constexpr int k = decltype(kk)::value + 1;
      Complex even = v[0], odd = {0, 0};
      StaticFor<H>([&](auto jj) {
        constexpr int j = decltype(jj)::value + 1;
        constexpr float re = static_cast<float>(RootAt(j * k, R).re);
        constexpr float im = static_cast<float>(S * RootAt(j * k, R).im);
        even.x += re * sum[j - 1].x;
        even.y += re * sum[j - 1].y;
        odd.x += im * difference[j - 1].x;
        odd.y += im * difference[j - 1].y;
      });
      v[k] = {even.x - odd.y, even.y + odd.x};
      v[R - k] = {even.x + odd.y, even.y - odd.x};
    });
    v[0] = total;
  } else {  // j = a B + b, k = k1 + A k2
    constexpr int B = R / A;
    StaticFor<B>([&](auto bb) {
      constexpr int b = decltype(bb)::value;
      Complex t[A];
      StaticFor<A>([&](auto a) { t[a] = v[a * B + b]; });
      Dft<A, S>(t);
      StaticFor<A>([&](auto kk) {
        constexpr int k1 = decltype(kk)::value;
        v[k1 * B + b] = Turn<S * b * k1, R>(t[k1]);
      });
    });
    Complex out[R];
    StaticFor<A>([&](auto k1) {
      Complex t[B];
      StaticFor<B>([&](auto b) { t[b] = v[k1 * B + b]; });
      Dft<B, S>(t);
      StaticFor<B>([&](auto k2) { out[k1 + A * k2] = t[k2]; });
    });
    StaticFor<R>([&](auto k) { v[k] = out[k]; });
  }
}

// The right-angle twist of a transform's first pass: v[j] *= exp(2 pi i S j / (4 R)).
template <int R, int S>
LONGWAVE_DEVICE void RightAngle(Complex (&v)[R]) {
  StaticFor<R>([&](auto jj) {
    constexpr int j = decltype(jj)::value;
    v[j] = Turn<S * j, 4 * R>(v[j]);
  });
}

// A table of roots is (rows, width): row 0 the factor of k = 0, row 1 + i that of one step to the
// 2^i. In a column, thread's own, v[k] *= factor * step^k, or by the conjugates where S is -1.
template <int R, int S, bool kFirst>
LONGWAVE_DEVICE void Twiddle(Complex (&v)[R], Complex first, const Complex* steps, int width) {
  Complex w[R];
  if constexpr (kFirst) {
    w[0] = first;
    v[0] = S > 0 ? Mul(v[0], w[0]) : MulConj(v[0], w[0]);
  }
  StaticFor<R - 1>([&](auto kk) {
    constexpr int k = decltype(kk)::value + 1;
    constexpr int bit = k >= 16 ? 4 : k >= 8 ? 3 : k >= 4 ? 2 : k >= 2 ? 1 : 0;
    const Complex step = __ldg(steps + bit * width);
    if constexpr (!kFirst && k == (1 << bit)) {
      w[k] = step;
    } else {
      w[k] = Mul(w[k - (1 << bit)], step);
    }
    v[k] = S > 0 ? Mul(v[k], w[k]) : MulConj(v[k], w[k]);
  });
}

}  // namespace longwave::fft

#include "kernels/diagonal_ssm.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/testing/reference.h"

namespace longwave {
namespace {

using reference::Doubles;
using LongComplex = std::complex<long double>;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

double RelativeDistance(Complex actual, LongComplex expected) {
  const LongComplex exact(actual.real(), actual.imag());
  return static_cast<double>(std::abs(exact - expected) / std::abs(expected));
}

// By repeated squaring of the same a in long double, 11 bits more than double has.
LongComplex LongPower(Complex a, int64_t l) {
  LongComplex power = 1, square(a.real(), a.imag());
  for (; l > 0; l /= 2, square *= square) {
    if (l % 2 == 1) power *= square;
  }
  return power;
}

TEST(PowerTest, AgreesWithLongDouble) {
  const Complex bases[] = {
      {0.9999, 0.001}, {0.99999995, 1e-5},          {-0.99999, 0.0003},
      {0.5, -0.7},     std::polar(1.0 - 1e-7, 2.5), std::polar(1.0 - 1e-9, 0.1)};
  for (const Complex& a : bases) {
    for (const int64_t l : {1, 2, 3, 7, 64, 65, 1000, 1023, 100000, 999999, 1000000}) {
      if (std::abs(LongPower(a, l)) < 1e-300L) continue;
      SCOPED_TRACE(::testing::Message() << a << "^" << l);
      // Each rounding of a and of its squares counts l times in the power, so l roundings.
      EXPECT_LE(RelativeDistance(Power(a, l), LongPower(a, l)), 4 * kEpsilon * l);
    }
  }
}

TEST(PowerTest, EdgeCases) {
  EXPECT_EQ(Power({0.3, -0.4}, 0), Complex(1, 0));
  EXPECT_EQ(Power({0.3, -0.4}, 1), Complex(0.3, -0.4));
  EXPECT_EQ(Power({0, 0}, 0), Complex(1, 0));
  EXPECT_EQ(Power({0, 0}, 5), Complex(0, 0));
  EXPECT_EQ(Power({0, 1}, 2), Complex(-1, 0));
  EXPECT_EQ(Power({-1, 0}, 1000001), Complex(-1, 0));
  EXPECT_EQ(std::abs(Power({0.5, 0}, int64_t{1} << 40)), 0);  // underflows, and ends
}

TEST(DiscretizeTest, Bilinear) {
  for (const double dt : {1e-6, 1e-3, 0.01, 0.1, 1.0}) {
    for (const double frequency : {0.0, 1.0, 31.4, 200.0}) {
      const Complex A(-0.5, frequency), B(0.7, -0.2);
      SCOPED_TRACE(::testing::Message() << "dt " << dt << " A " << A);
      Complex a, b;
      DiscretizeBilinear(A, B, dt, &a, &b);
      const LongComplex half =
          LongComplex(A.real(), A.imag()) * static_cast<long double>(dt) / 2.0L;
      EXPECT_LE(RelativeDistance(a, (1.0L + half) / (1.0L - half)), 8 * kEpsilon);
      EXPECT_LE(RelativeDistance(
                    b, LongComplex(0.7, -0.2) * static_cast<long double>(dt) / (1.0L - half)),
                8 * kEpsilon);
      EXPECT_LT(std::abs(a), 1);
    }
  }
}

TEST(DiscretizeTest, ZeroOrderHold) {
  for (const double dt : {1e-3, 0.01, 0.1, 1.0}) {
    for (const double frequency : {0.0, 1.0, 31.4, 200.0}) {
      const Complex A(-0.5, frequency);
      SCOPED_TRACE(::testing::Message() << "dt " << dt << " A " << A);
      Complex a, b;
      DiscretizeZeroOrderHold(A, dt, &a, &b);
      const LongComplex z = LongComplex(A.real(), A.imag()) * static_cast<long double>(dt);
      // exp(z) - 1 loses |z| of its digits.
      const double bound =
          8 * kEpsilon *
          (1 + static_cast<double>(std::abs(z)) + 1 / static_cast<double>(std::abs(z)));
      EXPECT_LE(RelativeDistance(a, std::exp(z)), bound);
      EXPECT_LE(RelativeDistance(b, (std::exp(z) - 1.0L) / LongComplex(A.real(), A.imag())), bound);
    }
  }
}

// Both follow the continuous system, the bilinear to |z|^3 / 12.
TEST(DiscretizeTest, FollowTheContinuousSystem) {
  const Complex A(-0.5, 3.0);
  for (const double dt : {1e-3, 1e-2, 5e-2}) {
    Complex bilinear, zero_order_hold, b;
    const double z = std::abs(dt * A);
    DiscretizeBilinear(A, 1, dt, &bilinear, &b);
    EXPECT_NEAR(b.real(), dt, dt * z);
    DiscretizeZeroOrderHold(A, dt, &zero_order_hold, &b);
    EXPECT_NEAR(b.real(), dt, dt * z);
    EXPECT_LE(std::abs(bilinear - zero_order_hold), z * z * z / 10);
    EXPECT_GE(std::abs(bilinear - zero_order_hold), z * z * z / 20);
  }
}

TEST(TapsTest, AgreeWithPowers) {
  const DiagonalSsm ssm = reference::S4dLin(1, 3, 16);
  for (int64_t f = 0; f < 3; ++f) {
    for (const int64_t length : {1, 2, 63, 1000, 100000}) {
      Doubles taps(length), expected(length);
      ssm.Taps(f, absl::MakeSpan(taps));
      for (int64_t n = 0; n < 16; ++n) {
        const Complex a = ssm.a[f * 16 + n], cb = ssm.c[f * 16 + n] * ssm.b[f * 16 + n];
        LongComplex power(cb.real(), cb.imag());
        const LongComplex step(a.real(), a.imag());
        for (int64_t l = 0; l < length; ++l, power *= step) {
          expected[l] += static_cast<double>(2 * power.real());
          // Denormal powers take hundreds of cycles each and say nothing.
          if (std::abs(power.real()) + std::abs(power.imag()) < 1e-300L) break;
        }
      }
      EXPECT_LE(reference::RelativeError(taps, expected), 1e-11) << "length " << length;
    }
  }
}

// Over a memory of a million tokens the phase is right to the end.
TEST(TapsTest, KeepTheirPhaseOverAMillionTokens) {
  const int64_t length = 1000001;
  DiagonalSsm ssm;
  ssm.filters = ssm.pairs = 1;
  ssm.a = {std::polar(1 - 1e-6, 0.37)};
  ssm.b = {{1, 0}};
  ssm.c = {{1, 0}};
  ssm.d = {0};
  Doubles taps(length);
  ssm.Taps(0, absl::MakeSpan(taps));
  for (const int64_t l : {0, 1, 1000, 65536, 500000, 999999, 1000000}) {
    EXPECT_NEAR(taps[l], static_cast<double>(2 * LongPower(ssm.a[0], l).real()), 1e-9) << l;
  }
}

TEST(TapsTest, DoNotContainTheSkip) {
  DiagonalSsm ssm = reference::S4dLin(2, 1, 2);
  Doubles before(8), after(8);
  ssm.Taps(0, absl::MakeSpan(before));
  ssm.d[0] += 100;
  ssm.Taps(0, absl::MakeSpan(after));
  EXPECT_EQ(before, after);
}

TEST(DiagonalSsmTest, ValidateAcceptsAStableModel) {
  EXPECT_TRUE(reference::S4dLin(1, 3, 4).Validate().ok());
  DiagonalSsm edge = reference::S4dLin(1, 1, 2);
  edge.a = {{1, 0}, {0, -1}};  // |a| = 1 is allowed
  EXPECT_TRUE(edge.Validate().ok()) << edge.Validate();
}

TEST(DiagonalSsmTest, ValidateRejects) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  auto expect_rejected = [](const char* what, auto change) {
    DiagonalSsm ssm = reference::S4dLin(1, 3, 4);
    change(ssm);
    EXPECT_TRUE(reference::Rejected(ssm.Validate(), {})) << what;
  };
  expect_rejected("no filters", [](DiagonalSsm& s) { s = DiagonalSsm(); });
  expect_rejected("negative filters", [](DiagonalSsm& s) { s.filters = -3; });
  expect_rejected("negative pairs", [](DiagonalSsm& s) { s.pairs = -4; });
  expect_rejected("both negative", [](DiagonalSsm& s) { s.filters = -3, s.pairs = -4; });
  expect_rejected("short a", [](DiagonalSsm& s) { s.a.pop_back(); });
  expect_rejected("long b", [](DiagonalSsm& s) { s.b.emplace_back(); });
  expect_rejected("short c", [](DiagonalSsm& s) { s.c.pop_back(); });
  expect_rejected("short d", [](DiagonalSsm& s) { s.d.pop_back(); });
  expect_rejected("long d", [](DiagonalSsm& s) { s.d.push_back(0); });
  expect_rejected("nan a", [&](DiagonalSsm& s) { s.a[7] = {0, nan}; });
  expect_rejected("nan b", [&](DiagonalSsm& s) { s.b[7] = {nan, 0}; });
  expect_rejected("infinite c", [&](DiagonalSsm& s) { s.c[11] = {0, infinity}; });
  expect_rejected("infinite d", [&](DiagonalSsm& s) { s.d[2] = -infinity; });
  expect_rejected("|a| > 1", [](DiagonalSsm& s) { s.a[3] = {0.8, 0.8}; });
}

// The references' recurrence, which the operator tests compare with, is the sum over taps.
TEST(ReferenceTest, RecurrenceIsTheSumOverTaps) {
  for (const int64_t length : {1, 2, 5, 64, 300}) {
    const SsmConvDesc desc{2, 6, length, 5, 3, SsmEvaluation::kAuto};
    const DiagonalSsm ssm = reference::S4dLin(length, 2, 5);
    const int64_t count = 12 * length;
    const auto u = reference::Normal(1, count), pre = reference::Normal(2, count);
    const auto post = reference::Normal(3, count), state = reference::Normal(4, 12 * 2 * 5);
    for (const bool all : {false, true}) {
      const reference::Floats none;
      const auto recurrence =
          reference::SsmConv(ssm, desc, u, all ? pre : none, all ? post : none, all ? state : none);
      const auto by_taps = reference::SsmConvByTaps(ssm, desc, u, all ? pre : none,
                                                    all ? post : none, all ? state : none);
      EXPECT_LE(reference::RelativeError(recurrence.y, by_taps.y), 1e-12);
      EXPECT_LE(reference::RelativeError(recurrence.state, by_taps.state), 1e-12);
    }
  }
}

TEST(ReferenceTest, GuardedSeesWhatItShould) {
  reference::Guarded buffer(2, 3, 5, 2);
  EXPECT_TRUE(buffer.Intact());
  EXPECT_EQ(reference::RelativeError(buffer.Packed(), Doubles(30, 1.0)),
            std::numeric_limits<double>::infinity());
  buffer.Set(reference::Floats(30, 1.0f));
  EXPECT_TRUE(buffer.Intact());
  EXPECT_EQ(reference::RelativeError(buffer.Packed(), Doubles(30, 1.0)), 0);
  for (const int64_t outside : {int64_t{-1}, int64_t{5}, int64_t{6}, 3 * buffer.channel_stride(),
                                2 * buffer.batch_stride()}) {
    reference::Guarded copy = buffer;
    copy.data()[outside] += 1;  // even arithmetic on what is there
    EXPECT_FALSE(copy.Intact()) << outside;
  }
}

}  // namespace
}  // namespace longwave

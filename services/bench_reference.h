// What the operators' benchmarks compute with and compare with: a model, and its outputs in float64
// by sums and recurrences.
//
// Thread safety: free functions without state.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/diagonal_ssm.h"

namespace longwave {

// S4D-Lin: A = -1/2 + i pi n, dt from 1e-3 to 1e-1 over the filters, d = 1, C normal.
DiagonalSsm RandomSsm(int64_t filters, int64_t pairs);
std::vector<float> RandomNormal(int64_t count, uint64_t seed);

// || y - conv(taps, u) || / || conv(taps, u) || over the first `count` tokens, in float64.
double ConvError(const std::vector<double>& taps, const float* u, const float* y, int64_t count);

// One filter's recurrence over `length` tokens from `state`, which becomes the last one:
// (2, pairs), real parts then imaginary parts. Calls out(t, y) for every token, d u[t] included.
void SsmRecurrence(const DiagonalSsm& ssm, int64_t filter, int64_t length,
                   absl::FunctionRef<double(int64_t)> u, std::vector<double>& state,
                   absl::FunctionRef<void(int64_t, double)> out);

}  // namespace longwave

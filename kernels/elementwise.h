// Products and sums of arrays, one thread each. Internal to kernels/.
#pragma once

#include <cstdint>

namespace longwave {

// out[i] = a[i] b[i]; out may be a or b.
void Multiply(const float* a, const float* b, float* out, int64_t count);
// out[i] += a[i] b[i]
void MultiplyAdd(const float* a, const float* b, float* out, int64_t count);
// x[i] += bias[i]
void Add(const float* bias, float* x, int64_t count);
// sum_i exp(x[i] - max), and where `write`, x[i] = exp(x[i] - max).
float ExpSum(float* x, int64_t count, float max, bool write);
float MaxOf(const float* x, int64_t count);
// x[i] *= factor
void Scale(float factor, float* x, int64_t count);

}  // namespace longwave

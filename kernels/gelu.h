// Activations: GELU by tanh (0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))) and by erf
// (x Phi(x)) (Hendrycks and Gimpel, arXiv 1606.08415), and GLU (a sigmoid(b), Dauphin et al.,
// 2017).
//
// Thread safety: free functions without state; one thread each.
#pragma once

#include <cstdint>

namespace longwave {

enum class Activation { kNone, kGeluTanh, kGeluErf };
const char* Name(Activation activation);

// In place. NaN stays NaN.
void Activate(Activation activation, float* x, int64_t count);

// out[i] = a[i] * sigmoid(b[i]); out may be a. NaN in either stays NaN.
void Glu(const float* a, const float* b, float* out, int64_t count);

}  // namespace longwave

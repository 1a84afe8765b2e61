// Powers of a filter's a on a GPU, in float64.
#pragma once

#include "kernels/gpu/device_code.h"

namespace longwave::gpu {

// a of a pair from the step's constants (filters, 8, pairs): re, im and their low parts.
LONGWAVE_DEVICE double2 StepFactor(const float* pair, int64_t pairs) {
  return {static_cast<double>(pair[0]) + pair[2 * pairs],
          static_cast<double>(pair[pairs]) + pair[3 * pairs]};
}

// a^l by repeated squaring.
LONGWAVE_DEVICE double2 Power(double2 a, int64_t l) {
  double2 power{1, 0};
  for (; l > 0; l /= 2) {
    if (l % 2 == 1) {
      power = {power.x * a.x - power.y * a.y, power.x * a.y + power.y * a.x};
    }
    a = {a.x * a.x - a.y * a.y, 2 * a.x * a.y};
  }
  return power;
}

}  // namespace longwave::gpu

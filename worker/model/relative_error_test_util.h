// How far a model's outputs are from those wanted, for tests.
#pragma once

#include <cmath>
#include <vector>

namespace longwave {

// || got - want || / || want ||; infinite where there is nothing to compare, or anything is NaN.
template <typename T>
double RelativeError(const std::vector<float>& got, const std::vector<T>& want) {
  if (got.size() != want.size() || got.empty()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? INFINITY : error;
}

}  // namespace longwave

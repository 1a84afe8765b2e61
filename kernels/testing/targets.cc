// LONGWAVE_TEST_TARGET=avx2 or sse4 makes this test program run as on a machine with no more than
// that.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hwy/highway.h"

namespace {

const bool kLimited = [] {
  const char* wanted = std::getenv("LONGWAVE_TEST_TARGET");
  if (wanted == nullptr) return false;
  // A better target has a lower bit.
  const int64_t best = std::strcmp(wanted, "avx2") == 0 ? HWY_AVX2 : HWY_SSE4;
  hwy::DisableTargets(best - 1);
  std::printf("vector target: %s\n",
              hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()));
  return true;
}();

}  // namespace

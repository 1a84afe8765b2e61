// Any text as the sampling of a job: what is read and written again is read as the same, to the
// bit.
#include <cmath>
#include <string>

#include "scheduler/job.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;  // NOLINT: the harness's one function
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  JobSpec job;
  const absl::Status status = ParseSampling(text, job);
  if (!status.ok()) {
    FUZZ_CHECK(status.message().size() < 4000);
    return 0;
  }
  FUZZ_CHECK(job.max_new_tokens >= 1 && job.top_k >= 0);
  FUZZ_CHECK(std::isfinite(job.temperature) && job.temperature >= 0);
  FUZZ_CHECK(job.top_p > 0 && job.top_p <= 1);
  const std::string formatted = FormatSampling(job);
  JobSpec again;
  FUZZ_CHECK(ParseSampling(formatted, again).ok());
  FUZZ_CHECK(again.max_new_tokens == job.max_new_tokens && again.temperature == job.temperature);
  FUZZ_CHECK(again.top_k == job.top_k && again.top_p == job.top_p && again.seed == job.seed);
  FUZZ_CHECK(FormatSampling(again) == formatted);
  return 0;
}

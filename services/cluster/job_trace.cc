#include "services/cluster/job_trace.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "observability/trace.h"
#include "scheduler/protocol/messages.h"

namespace longwave {
namespace {

constexpr int64_t kMostTrace = int64_t{4} << 20;  // bytes of one chunk's

}  // namespace

absl::StatusOr<std::string> JobTrace(const std::string& id, absl::Span<const CommittedChunk> chunks,
                                     ObjectStore& objects, int64_t most_spans) {
  std::vector<ChunkTrace> traces;
  int64_t missing = 0, spans = 0;
  for (const CommittedChunk& chunk : chunks) {
    const absl::StatusOr<std::string> bytes =
        spans < most_spans ? objects.ReadAll(TraceName(id, chunk.epoch, chunk.chunk), kMostTrace)
                           : absl::ResourceExhaustedError("spans");
    absl::StatusOr<ChunkTrace> trace = bytes.ok() ? ParseTrace(*bytes) : bytes.status();
    const bool its = trace.ok() && trace->job == id && trace->chunk == chunk.chunk;
    if (absl::IsUnavailable(bytes.status())) return bytes.status();
    if (!its) {
      ++missing;
      continue;
    }
    spans += static_cast<int64_t>(trace->spans.size());
    traces.push_back(*std::move(trace));
  }
  if (traces.empty()) {
    return absl::NotFoundError(absl::StrCat("job ", id, ": none of its ", missing,
                                            " committed chunks has a trace (submit --trace)"));
  }
  return ChromeTrace(id, traces, missing);
}

}  // namespace longwave

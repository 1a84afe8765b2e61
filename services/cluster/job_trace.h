// The timeline of a job, made of what its workers recorded: GET /v1/jobs/ID/trace.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"

namespace longwave {

// Chrome's trace format: of job `id`, whether or not it is over, its committed chunks, at most
// `most_spans` of their spans. Chunks without a trace, or with one that is damaged, are counted in
// it and left out. NotFound where none of them has a trace.
absl::StatusOr<std::string> JobTrace(const std::string& id, absl::Span<const CommittedChunk> chunks,
                                     ObjectStore& objects, int64_t most_spans = int64_t{1} << 20);

}  // namespace longwave

// The end of a job: its manifest, and what of it may go.
//
// Thread safety: safe, but for two callers at one job.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"

namespace longwave {

// (rows), or (rows, columns).
std::vector<int64_t> OutputShape(const Job& job);
// Writes the manifest of a job whose chunks are all committed, marks it succeeded and removes what
// no committed chunk names.
absl::Status FinishJob(const Job& job, JobStore& store, ObjectStore& objects, int64_t now_ms);
// Removes all of a job that is over from the object store, but for the committed outputs and the
// manifest if `keep_outputs`.
absl::Status RemoveObjects(const Job& job, bool keep_outputs, JobStore& store,
                           ObjectStore& objects);

}  // namespace longwave

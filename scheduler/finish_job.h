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

// A job's output is one file, or one for each of its sequences where these are records.
inline int64_t OutputFilesOf(const Job& job) { return job.batch > 0 ? 1 : job.sequences; }
// Of the file with the output of `sequence`; of a batch, of all of it.
std::vector<int64_t> OutputShape(const Job& job, const SequenceRow& sequence);
// "float32", "int32": each has four bytes.
const char* OutputType(const Job& job);
inline constexpr int64_t kOutputBytes = 4;
// Writes the manifest of a job whose chunks are all committed, marks it succeeded and removes what
// no committed chunk names.
absl::Status FinishJob(const Job& job, JobStore& store, ObjectStore& objects, int64_t now_ms);
// Removes all of a job that is over from the object store, but for the committed outputs and the
// manifest if `keep_outputs`.
absl::Status RemoveObjects(const Job& job, bool keep_outputs, JobStore& store,
                           ObjectStore& objects);

}  // namespace longwave

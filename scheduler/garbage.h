// What is in an object store and of no use: found and removed.
//
// Thread safety: safe, beside everything else that uses the stores.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"

namespace longwave {

struct SweepOptions {
  // Writes that have not moved for so long are those of dead processes.
  int64_t partial_age_ms = int64_t{24} * 3600 * 1000;
  // What no row names is removed when it is so old: an upload's row comes after its object.
  int64_t orphan_age_ms = int64_t{24} * 3600 * 1000;
};

struct SweepReport {
  int64_t partial = 0;  // unfinished writes that were removed
  int64_t objects = 0;  // and objects, and their bytes
  int64_t bytes = 0;
};

// Removes below "jobs" and "files" of `objects`: unfinished writes; objects of jobs that are not in
// `store`; uploads that are not in `store`. Nothing newer than `options` say, by `now_ms` and the
// object store's clock. An object store must belong to one job store alone. `stop` is asked between
// the steps; where it says so the report is of what was done. Errors: the stores', the first.
absl::StatusOr<SweepReport> Sweep(ObjectStore& objects, JobStore& store, int64_t now_ms,
                                  const SweepOptions& options, const std::function<bool()>& stop);

}  // namespace longwave

// Makes new jobs ready to run: reads a job's input once, front to back, and writes its tokens as
// plain numbers, one sequence after another, so that any chunk of them can be read anywhere. An
// input that cannot be is the end of its job, with the reason.
//
// Thread safety: safe; several callers plan several jobs at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/byte_source.h"
#include "scheduler/job_store.h"
#include "scheduler/object_store.h"
#include "services/cluster/model_catalog.h"

namespace longwave {

class Planner {
 public:
  Planner(JobStore& store, ObjectStore& objects, ModelCatalog& models)
      : store_(store), objects_(objects), models_(models) {}
  // Plans the oldest job that no other caller is at; false where none waits. `stop` is asked now
  // and then. Errors: the stores'.
  absl::StatusOr<bool> PlanOne(const std::function<bool()>& stop, int64_t now_ms);

 private:
  absl::StatusOr<std::optional<Job>> Take();
  absl::Status PlanJob(const Job& job, const std::function<bool()>& stop, int64_t now_ms);
  absl::Status RemoveTokens(const std::string& job);
  absl::StatusOr<Plan> WriteInput(const Job& job, const std::function<bool()>& stop);
  // Into `writer`; `name`: of the upload.
  absl::StatusOr<Plan> WriteTokens(const Job& job, const ModelConfig& config,
                                   const std::string& name, std::unique_ptr<ByteSource> source,
                                   ObjectWriter& writer, const std::function<bool()>& stop);
  absl::StatusOr<Plan> WriteRows(const Job& job, const ModelConfig& config, const std::string& name,
                                 std::unique_ptr<ByteSource> source, ObjectWriter& writer,
                                 const std::function<bool()>& stop);
  JobStore& store_;
  ObjectStore& objects_;
  ModelCatalog& models_;

  std::mutex mutex_;
  std::set<std::string> busy_;  // jobs that callers are at
};

}  // namespace longwave

// The end of a job: its manifest, and what of it stays in the object store.
#include "scheduler/finish_job.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "scheduler/protocol/messages.h"

namespace longwave {

std::vector<int64_t> OutputShape(const Job& job) {
  int64_t rows = job.length;
  if (job.spec.task == Task::kEmbed) {
    rows = job.length / job.spec.window + (job.length % job.spec.window != 0);
  }
  // Score: only a sequence's first token has an entry without a token before it.
  if (job.spec.task == Task::kScore && job.start_position > 0) --rows;
  if (job.columns == 0) return {rows};
  return {rows, job.columns};
}

absl::Status FinishJob(const Job& job, JobStore& store, ObjectStore& objects, int64_t now_ms) {
  const absl::StatusOr<std::vector<CommittedChunk>> chunks = store.Committed(job.id);
  if (!chunks.ok()) return chunks.status();
  int64_t values = 1;
  boost::json::array shape, outputs;
  for (int64_t size : OutputShape(job)) {
    values *= size;
    shape.push_back(size);
  }
  for (const CommittedChunk& chunk : *chunks) {
    outputs.push_back({{"chunk", chunk.chunk},
                       {"epoch", chunk.epoch},
                       {"object", OutputName(job.id, chunk.epoch, chunk.chunk)},
                       {"bytes", chunk.output_bytes},
                       {"sha256", chunk.output_sha256}});
  }
  if (job.output_bytes != values * static_cast<int64_t>(sizeof(float))) {
    return store.FailJob(
        job.id,
        absl::StrCat("its chunks gave ", job.output_bytes, " bytes, not ", values * sizeof(float)),
        now_ms);
  }
  const boost::json::object manifest = {{"job", job.id},
                                        {"model", job.spec.model},
                                        {"model_sha256", job.model_hash},
                                        {"task", Name(job.spec.task)},
                                        {"chunk", job.spec.chunk},
                                        {"tokens", job.length},
                                        {"dtype", "float32"},
                                        {"shape", shape},
                                        {"outputs", outputs}};
  absl::Status status =
      objects.Write(ManifestName(job.id), boost::json::serialize(manifest)).status();
  if (status.ok()) status = store.Succeed(job.id, now_ms);
  if (absl::IsAborted(status)) return absl::OkStatus();  // cancelled in the meantime
  if (!status.ok()) return status;
  return RemoveObjects(job, true, store, objects);
}

absl::Status RemoveObjects(const Job& job, bool keep_outputs, JobStore& store,
                           ObjectStore& objects) {
  std::set<std::string> keep;
  if (keep_outputs) {
    const absl::StatusOr<std::vector<CommittedChunk>> chunks = store.Committed(job.id);
    if (!chunks.ok()) return chunks.status();
    keep.insert(ManifestName(job.id));
    for (const CommittedChunk& chunk : *chunks) {
      keep.insert(OutputName(job.id, chunk.epoch, chunk.chunk));
      keep.insert(TraceName(job.id, chunk.epoch, chunk.chunk));
      // A session's next state.
      if (!job.start_boundary.empty()) {
        keep.insert(BoundaryName(job.id, chunk.epoch, chunk.chunk));
      }
    }
  }
  const absl::StatusOr<std::vector<std::string>> names = objects.List(JobFolder(job.id));
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (keep.contains(name)) continue;
    absl::Status gone = objects.Delete(name);
    if (!gone.ok()) return gone;
  }
  const absl::StatusOr<std::vector<PartialObject>> unfinished =
      objects.ListPartial(JobFolder(job.id));
  if (!unfinished.ok()) return unfinished.status();
  for (const PartialObject& partial : *unfinished) {
    absl::Status gone = objects.DeletePartial(partial);
    if (!gone.ok()) return gone;
  }
  return absl::OkStatus();
}

}  // namespace longwave

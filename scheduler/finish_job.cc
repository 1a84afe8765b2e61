// The end of a job: its manifest, and what of it stays in the object store.
#include "scheduler/finish_job.h"

#include <limits>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "scheduler/protocol/messages.h"

namespace longwave {

namespace {

boost::json::array JsonOf(const std::vector<int64_t>& shape) {
  return boost::json::array(shape.begin(), shape.end());
}

}  // namespace

std::vector<int64_t> OutputShape(const Job& job, const SequenceRow& sequence) {
  std::vector<int64_t> shape;
  if (job.batch > 0) shape.push_back(job.batch);
  int64_t rows = sequence.length;
  if (job.spec.task == Task::kGenerate) rows = job.spec.max_new_tokens;
  if (job.spec.task == Task::kEmbed) {
    rows = rows / job.spec.window + (rows % job.spec.window != 0);
  }
  // Score: only a sequence's first token has an entry without a token before it.
  if (job.spec.task == Task::kScore && job.start_position > 0) --rows;
  shape.push_back(rows);
  if (job.columns > 0) shape.push_back(job.columns);
  return shape;
}

const char* OutputType(const Job& job) {
  return job.spec.task == Task::kGenerate ? "int32" : "float32";
}

absl::Status FinishJob(const Job& job, JobStore& store, ObjectStore& objects, int64_t now_ms) {
  const absl::StatusOr<std::vector<CommittedChunk>> chunks = store.Committed(job.id);
  if (!chunks.ok()) return chunks.status();
  const auto sequences = store.Sequences(job, 0, std::numeric_limits<int64_t>::max());
  if (!sequences.ok()) return sequences.status();
  int64_t bytes = 0;
  boost::json::array files, outputs;
  for (const SequenceRow& sequence : *sequences) {
    const std::vector<int64_t> shape = OutputShape(job, sequence);
    int64_t values = 1;
    for (const int64_t size : shape) values *= size;
    bytes += values * kOutputBytes;
    files.push_back({{"name", sequence.name},
                     {"shape", JsonOf(shape)},
                     {"chunks", sequence.repeats * sequence.chunks(job.spec.chunk)}});
    if (job.batch > 0) break;  // they are one file
  }
  for (const CommittedChunk& chunk : *chunks) {
    outputs.push_back({{"chunk", chunk.chunk},
                       {"epoch", chunk.epoch},
                       {"object", OutputName(job.id, chunk.epoch, chunk.chunk)},
                       {"bytes", chunk.output_bytes},
                       {"sha256", chunk.output_sha256}});
  }
  if (job.output_bytes != bytes) {
    return store.FailJob(
        job.id, absl::StrCat("its chunks gave ", job.output_bytes, " bytes, not ", bytes), now_ms);
  }
  boost::json::object manifest = {{"job", job.id},
                                  {"model", job.spec.model},
                                  {"model_sha256", job.model_hash},
                                  {"task", Name(job.spec.task)},
                                  {"chunk", job.spec.chunk},
                                  {"tokens", job.length},
                                  {"dtype", OutputType(job)},
                                  {"outputs", outputs}};
  if (OutputFilesOf(job) > 1) {
    manifest["files"] = std::move(files);
  } else {
    manifest["shape"] = files[0].at("shape");
  }
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

// Outputs of jobs: the .npy file that `longwave run` would have written, whole or in part.
//
// A job's length is known once it is planned, and with it the file's size and header. So what is
// committed of a job that still runs can be read by range, at the place where it will stand.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "formats/npy.h"
#include "formats/sha256.h"
#include "scheduler/finish_job.h"
#include "scheduler/protocol/messages.h"
#include "services/cluster/api.h"
#include "services/cluster/job_trace.h"

namespace longwave {
namespace {

// Bytes [first, first + count) of `header` and, after it, the chunks' outputs.
void AddBody(const Job& job, const std::vector<CommittedChunk>& chunks, const std::string& header,
             int64_t first, int64_t count, ApiResponse& response) {
  const int64_t end = first + count, size = static_cast<int64_t>(header.size());
  if (first < size) response.body = header.substr(first, std::min(end, size) - first);
  int64_t start = size;
  for (const CommittedChunk& chunk : chunks) {
    const int64_t from = std::max(first, start), to = std::min(end, start + chunk.output_bytes);
    if (from < to) {
      const bool all = to - from == chunk.output_bytes;
      response.parts.push_back({OutputName(job.id, chunk.epoch, chunk.chunk), from - start,
                                to - from, all ? chunk.output_sha256 : ""});
    }
    start += chunk.output_bytes;
  }
}

// Of the header's bytes and the hashes of the outputs behind it.
std::string EntityTag(const std::string& header, const std::vector<CommittedChunk>& chunks) {
  Sha256 hash;
  hash.Add(header);
  for (const CommittedChunk& chunk : chunks) hash.Add(chunk.output_sha256);
  return absl::StrCat("\"", hash.HexDigest(), "\"");
}

absl::Status NoOutput(const Job& job, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("job ", job.id, " is ", Name(job.state), ": ",
                                                    why, job.error.empty() ? "" : " (", job.error,
                                                    job.error.empty() ? "" : ")"));
}

}  // namespace

// The sequences whose output is the file that is asked for.
absl::StatusOr<SequenceRow> Api::FindOutput(const Job& job, const Call& call) {
  const int64_t files = OutputFilesOf(job);
  const absl::StatusOr<int64_t> number = QueryNumber(call.query, "sequence", 0, files - 1, -1);
  if (!number.ok()) return number.status();
  if (*number < 0 && files > 1) {
    return Bad("sequence", "(none)",
               absl::StrCat("given: job ", job.id, " has outputs 0 to ", files - 1));
  }
  const absl::StatusOr<std::vector<SequenceRow>> rows =
      jobs_.Sequences(job, std::max<int64_t>(*number, 0), 1);
  if (!rows.ok()) return rows.status();
  if (rows->empty()) return NoOutput(job, "it has no such sequence");
  return rows->front();
}

Api::Answer Api::GetOutput(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  if (!job.ok()) return job.status();
  const bool whole = job->state == JobState::kSucceeded;
  if (!whole && job->state != JobState::kRunning) return NoOutput(*job, "it has no output");
  std::string range = IsOfOtherUnit(call.request.range) ? "" : call.request.range;
  if (!whole && range.empty()) {
    return NoOutput(*job, "ask for a Range of what is there by now");
  }
  const absl::StatusOr<SequenceRow> file = FindOutput(*job, call);
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::vector<CommittedChunk>> chunks =
      jobs_.Committed(job->id, file->first_chunk, file->repeats * file->chunks(job->spec.chunk));
  if (!chunks.ok()) return chunks.status();
  const std::vector<int64_t> shape = OutputShape(*job, *file);
  const NpyType type = job->spec.task == Task::kGenerate ? NpyType::kInt32 : NpyType::kFloat32;
  const absl::StatusOr<std::string> header = FormatNpyHeader(type, shape, kWrittenNpyHeader);
  if (!header.ok()) return header.status();
  int64_t size = kOutputBytes, there = static_cast<int64_t>(header->size());
  for (int64_t n : shape) size *= n;
  size += static_cast<int64_t>(header->size());
  for (const CommittedChunk& chunk : *chunks) there += chunk.output_bytes;

  ApiResponse response;
  response.content_type = "application/octet-stream";
  response.headers.emplace_back("Accept-Ranges", "bytes");
  if (whole) {
    const std::string tag = EntityTag(*header, *chunks);
    response.headers.emplace_back("ETag", tag);
    if (call.request.if_none_match == tag || call.request.if_none_match == "*") {
      response.status = 304;
      return response;
    }
    if (!call.request.if_range.empty() && call.request.if_range != tag) range.clear();
  }
  const auto asked = ParseRange(range, size);
  if (absl::IsOutOfRange(asked.status()) ||
      (asked.ok() && asked->has_value() && (*asked)->first >= there)) {
    response = absl::IsOutOfRange(asked.status())
                   ? Problem(asked.status())
                   : Problem(416, absl::StrCat("Range ", Quoted(range), ": of ", size, " bytes ",
                                               there, " are there by now"));
    response.headers.emplace_back("Content-Range", absl::StrCat("bytes */", size));
    return response;
  }
  if (!asked.ok()) return asked.status();
  auto [first, count] = asked->value_or(std::pair<int64_t, int64_t>(0, size));
  count = std::min(count, there - first);
  if (asked->has_value()) {
    response.status = 206;
    response.headers.emplace_back("Content-Range",
                                  absl::StrCat("bytes ", first, "-", first + count - 1, "/", size));
  }
  AddBody(*job, *chunks, *header, first, count, response);
  return response;
}

Api::Answer Api::GetTrace(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  if (!job.ok()) return job.status();
  const absl::StatusOr<std::vector<CommittedChunk>> chunks = jobs_.Committed(job->id);
  if (!chunks.ok()) return chunks.status();
  absl::StatusOr<std::string> trace = JobTrace(job->id, *chunks, objects_);
  if (absl::IsUnavailable(trace.status())) return OfObjects(trace.status());
  if (!trace.ok()) return trace.status();
  ApiResponse response;
  response.body = *std::move(trace);
  return response;
}

}  // namespace longwave

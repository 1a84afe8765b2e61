// How an interrupted `longwave run` goes on: every few seconds, at a chunk's border, where it
// stands is written to OUT.resume beside OUT.partial, the output in the making. The next run of the
// same job takes both up; whatever does not match exactly is not used.
//
// A point counts once it is on the disk, and after the output that it speaks of. Writing happens
// beside the computation. What cannot be written costs a line on standard error and the points.
//
// Thread safety: one caller.
#pragma once

#include <chrono>
#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/resume_point.h"
#include "scheduler/job.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/tasks.h"
#include "worker/model/model.h"

namespace longwave {

// All that decides a run's bytes but its model and its tokens, a line for each.
std::string RunIdentity(const JobSpec& job, int64_t chunk, const Model& model);
// Which content a file has, as far as its folder tells.
struct FileStamp {
  int64_t device = 0, inode = 0, bytes = -1, mtime_ns = 0;  // -1: there is none
  bool operator==(const FileStamp&) const = default;
};
FileStamp StampOf(const std::string& path);
// The state and the task's carry where `runner` stands; model_hash is left empty.
absl::StatusOr<Boundary> ExportBoundary(SequenceRunner& runner, ChunkTask& task);
// FailedPrecondition unless it is of this model and task.
absl::Status ImportBoundary(const Boundary& boundary, SequenceRunner& runner, ChunkTask& task);

class RunResume {
 public:
  using Clock = std::chrono::steady_clock;

  // `model` is the folder, and `stamps` of before it was read. `seconds` between points.
  RunResume(std::string out, std::string model, std::vector<FileStamp> stamps, double seconds);
  ~RunResume();

  // What an earlier run left; none: nothing. `partial`: the output in the making. An error says why
  // it is of no use here: another identity or model, or outputs that are not what they were. Where
  // only the output in the making is gone, the point is the start of its sequence.
  absl::StatusOr<std::optional<ResumePoint>> Load(const std::string& identity,
                                                  const std::string& partial);

  bool Due();
  // REQUIRES: `partial` holds point.elements elements. Model hash and output digest are filled in.
  // `began`: when the computation paused for it; points never take more than a small share of the
  // time.
  void Put(ResumePoint point, const std::string& partial, Clock::time_point began);
  // Until what was put is written. False: there is no point on the disk.
  bool Wait();
  // The output in the making is another from now on. True: a point speaks of the one before.
  bool NextFile();
  void Remove();  // OUT.resume

  const std::string& path() const { return path_; }

 private:
  // The digest of an output's first elements: a chain over blocks, that goes on where it was.
  struct Chain {
    std::string digest;  // of full blocks
    int64_t bytes = 0;   // of these
  };
  absl::Status Write(ResumePoint point, const std::string& partial);
  absl::Status HashModel();
  // Of the first `elements` elements in the file `fd`.
  static absl::StatusOr<std::string> OutputDigest(int fd, int64_t elements, Chain& chain);

  const std::string path_, model_;
  const std::vector<FileStamp> stamps_;
  const double seconds_;
  Clock::time_point next_;
  bool off_ = false, there_ = false;
  bool of_this_file_ = false;  // a point was put
  std::future<absl::Status> writing_;
  // Of whoever writes, or of the caller where nobody does.
  std::string model_hash_;
  Chain chain_;
};

std::vector<FileStamp> StampsOfModel(const std::string& folder);

}  // namespace longwave

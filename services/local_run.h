// `longwave run`: a job from its first token to its last output file in this process.
//
// In order: the output is begun (so that what cannot be written fails first), the model loaded and
// compared with the task, the input opened, limits checked as far as lengths are known; then one
// sequence after another is run, written, committed and reported.
//
// Thread safety: one caller.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "formats/token_input.h"
#include "kernels/thread_pool.h"
#include "services/output_files.h"
#include "services/progress.h"
#include "services/report.h"
#include "services/run_options.h"
#include "services/run_resume.h"
#include "services/watched_input.h"
#include "worker/executor/sequence_runner.h"
#include "worker/executor/tasks.h"

namespace longwave {

class LocalRun {
 public:
  // Called with each sequence when its output is whole.
  using SequenceDone = absl::FunctionRef<absl::Status(const SequenceReport&)>;

  // REQUIRES: `options` has been through FinishRunOptions() and outlives the run.
  explicit LocalRun(const RunOptions& options) : options_(options) {}
  absl::StatusOr<RunReport> Run(SequenceDone done);

 private:
  using Shape = std::vector<int64_t>;
  absl::Status Open();
  // For sequences of `length` tokens, -1 where unknown: checks limits, makes the runner. `cached`:
  // the tokens that attention's caches will hold, where that is known.
  absl::Status Prepare(int64_t length, int64_t cached);
  // Makes chunk_ one that fits into a GPU's memory, and says so.
  absl::Status ShortenChunk(int64_t cached);

  absl::Status OpenInput();
  absl::Status RunTokens(SequenceDone done);
  absl::Status PrepareTokens();  // from the first sequence
  // The present sequence of input_; returns the shape of its output.
  absl::StatusOr<Shape> RunOne(SequenceReport& sequence);
  // Goes on from where an earlier run stood, if there is such a point; input_ then stands in the
  // sequence at work, the first one otherwise. Sequences that are whole go to `rows`.
  absl::Status TakeUp(std::vector<SequenceReport>& rows);
  // Moves input_, runner_ and task_ to `point`. An error: this input does not lead there.
  absl::Status MoveTo(const ResumePoint& point);
  absl::Status KeepPoint();  // where the run stands now, at a chunk's border
  void PutPoint(Boundary boundary, int64_t elements, RunResume::Clock::time_point began);
  // What is said of a run that a signal stopped.
  absl::Status Stopped(const absl::Status& status);
  absl::Status Emit(int32_t token);  // generate's next, of *sequence_

  absl::Status RunTransforms(SequenceDone done);

  absl::Status Tick(int64_t tokens, double fraction);  // after each chunk of a sequence
  // The one file of several sequences is whole.
  absl::Status CommitRows(const Shape& shape, std::vector<SequenceReport> rows, SequenceDone done);
  absl::Status Done(SequenceReport sequence, SequenceDone done);

  const RunOptions& options_;
  const JobSpec& job_ = options_.job;
  RunReport report_;
  OutputFiles output_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TokenInput> input_;
  int64_t chunk_ = 0;  // job_.chunk, or all of a sequence known to be shorter
  std::unique_ptr<SequenceRunner> runner_;
  std::unique_ptr<ChunkTask> task_;     // none for transform
  SequenceReport* sequence_ = nullptr;  // at work

  // Of a run that may be interrupted and go on; see run_resume.h.
  std::string cannot_resume_;  // why not; empty: it can
  std::vector<FileStamp> model_stamps_;
  WatchedInput* watched_ = nullptr;    // input_, where it can
  std::unique_ptr<RunResume> resume_;  // the same
  std::string partial_;                // where the output in the making stands
  std::vector<ResumeSequence> whole_;  // sequences that are
  std::string whole_digest_;           // of their tokens
  bool standing_ = false;              // runner_ and task_ are in the sequence, not at its start

  std::unique_ptr<Progress> progress_;
};

}  // namespace longwave

// The files a run writes: one for all of the input, or one for each of several sequences, each
// standing under its final name only once whole.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/atomic_file.h"
#include "formats/npy.h"

namespace longwave {

// A record's name as part of a file's: what is not in [A-Za-z0-9._-] becomes '_'.
std::string SafeName(const std::string& record);
// "scores.npy", "chr1" -> "scores.chr1.npy". `extension`: ".npy", or "" to keep the path's own.
std::string RecordPath(const std::string& path, const std::string& record,
                       const std::string& extension);

class OutputFiles {
 public:
  enum class Kind { kFloats, kIds, kBytes };  // .npy of float32, .npy of int32, plain bytes

  // An empty path: nothing is written and everything succeeds. Otherwise the first file is begun at
  // once under its temporary name, so that a path that cannot be written fails before any work.
  // No output may take the place of a file in `inputs`.
  // `kept`: the file in the making is a kept one (AtomicFile), if that can be: see kept().
  static absl::StatusOr<OutputFiles> Open(const std::string& path, Kind kind,
                                          std::vector<std::string> inputs = {}, bool kept = false);

  // Whether the file in the making may be left for a later run. The first one is then untouched
  // until TakeUp(), which comes before Begin().
  bool kept() const { return kept_; }
  const std::string& temporary() const;  // where it stands; REQUIRES: kept(), before TakeUp()
  // Of an earlier run: the files that are whole, and how many elements of the one in the making
  // count.
  absl::Status TakeUp(const std::vector<std::string>& committed, int64_t elements);
  // All that was appended is in the file: returns how many elements. REQUIRES: kept().
  absl::StatusOr<int64_t> Flush();
  void Keep();  // the file in the making is left as it is

  // Before a sequence's values: fails where the file of `record` would overwrite one of this run.
  absl::Status Begin(const std::string& record);
  absl::Status Append(absl::Span<const float> values);  // REQUIRES: kFloats
  absl::Status Append(int32_t token);                   // REQUIRES: kIds or kBytes
  // The sequence is whole: its file gets its name. `several`: the input has, or has had, another
  // sequence. Returns the path; empty where nothing is written.
  absl::StatusOr<std::string> Commit(const std::vector<int64_t>& shape, bool several);

  const std::vector<std::string>& committed() const { return committed_; }

 private:
  absl::Status Create();
  NpyType Type() const;
  absl::Status CheckNotAnInput(const std::string& path) const;
  std::string FinalPath(bool several) const;

  std::string path_;
  bool kept_ = false;
  Kind kind_ = Kind::kFloats;
  std::vector<std::string> inputs_;
  std::string record_;
  std::unique_ptr<AtomicFile> untouched_;  // a kept one before TakeUp()
  std::unique_ptr<NpyWriter> array_;       // the file in the making:
  std::unique_ptr<AtomicFile> bytes_;      // one of the two
  std::vector<std::string> committed_;
  std::set<std::string> names_;  // committed_, to search
};

}  // namespace longwave

// How far a run is, on standard error: on a terminal a bar that is drawn again in place, elsewhere
// plain lines, at most one every two seconds.
//
// Thread safety: one caller at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"

namespace longwave {

struct ProgressState {
  int64_t tokens = 0;
  double seconds = 0;
  double fraction = -1;  // of the work done, 0 to 1; negative: unknown
  int64_t before = 0;    // of the tokens: by an earlier run, in no time of this one
};

// "[#####.....]  50 %  1,024 tokens  512 tokens/s  2.0 s left", at most `columns` wide: first the
// bar gets shorter, then the line is cut. Without a known fraction: no bar, percentage or time
// left.
std::string ProgressBar(const ProgressState& state, int columns);
// "1,024 tokens (50 %), 512 tokens/s, 2.0 s left"
std::string ProgressLine(const ProgressState& state);

// Files are read a block at a time, so that the fraction read goes up in steps: this fills them in.
class SteadyFraction {
 public:
  // Unknown before the second block: how many tokens a block gives is not known until then.
  double Update(int64_t tokens, double fraction);

 private:
  double read_ = 0;     // the largest fraction seen
  double reached_ = 0;  // what had been read when the tokens of a block ran out,
  int64_t tokens_ = 0;  // and how many tokens that had given
};

class Progress {
 public:
  enum class Style { kNone, kLines, kBar };
  // kBar where standard error is a terminal.
  static Style StyleOfStderr(bool quiet);

  explicit Progress(Style style, std::FILE* out = stderr);
  ~Progress() { Clear(); }

  // Of the tokens told from now on, so many were there before: the speed is that of the others.
  void GoOnFrom(int64_t tokens) { before_ = tokens; }
  void Update(int64_t tokens, double fraction);
  // Takes the bar away, so that something else may be printed.
  void Clear();
  double seconds() const;  // since the start

 private:
  using Clock = std::chrono::steady_clock;
  Style style_;
  std::FILE* out_;
  Clock::time_point start_;
  Clock::time_point next_;  // nothing is printed before
  SteadyFraction steady_;
  int64_t before_ = 0;
  bool drawn_ = false;
};

}  // namespace longwave

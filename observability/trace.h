// What a worker did with a chunk and when: spans recorded while it is computed, one small object a
// chunk, and the timeline of a whole job made of these.
//
// A span is a stretch of time with a name ("wait", "compute", "send", "upload", ...), perhaps of a
// layer. Spans of one lane of one worker nest or follow one another. Times are of the worker's wall
// clock, taken once and counted on by its steady clock: between workers they agree as well as the
// clocks of their hosts.
//
// Layout of the object (numbers little endian, strings as in docs/formats.md):
//
//   trace = "LWTRACE1" job chunk epoch tokens worker device dropped names spans
//   names = count (uint32), then a string each
//   spans = count (uint32), then of each: name (uint32, of names), layer (int32, -1: none),
//           lane (uint8), start (int64, microseconds since 1970), duration (int64, microseconds)
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace longwave {

enum class TraceLane : uint8_t { kCompute, kObjects };  // the layers' work; reads and writes

struct TraceSpan {
  std::string name;
  int32_t layer = -1;
  TraceLane lane = TraceLane::kCompute;
  int64_t start_us = 0, duration_us = 0;

  bool operator==(const TraceSpan&) const = default;
};

struct ChunkTrace {
  std::string job;
  int64_t chunk = 0, epoch = 0, tokens = 0;
  std::string worker, device;
  int64_t dropped = 0;  // spans beyond what a recorder keeps
  std::vector<TraceSpan> spans;

  bool operator==(const ChunkTrace&) const = default;
};

// Records the spans of one chunk. Memory is bounded: what comes later is counted only.
//
// Thread safety: safe.
class TraceRecorder {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kMostSpans = 1 << 14;

  explicit TraceRecorder(int64_t most = kMostSpans);
  void Add(absl::string_view name, int32_t layer, TraceLane lane, Clock::time_point start,
           Clock::time_point end);
  // All spans so far, with `trace` for the rest; the recorder is then empty.
  ChunkTrace Take(ChunkTrace trace);

 private:
  const int64_t most_;
  const Clock::time_point steady_;
  const int64_t wall_us_;  // at steady_
  std::mutex mutex_;
  int64_t dropped_ = 0;
  std::vector<TraceSpan> spans_;
};

// The span from its making to its end. A null recorder records nothing, at no cost.
class ScopedSpan {
 public:
  ScopedSpan(TraceRecorder* recorder, const char* name, int32_t layer = -1,
             TraceLane lane = TraceLane::kCompute)
      : recorder_(recorder), name_(name), layer_(layer), lane_(lane) {
    if (recorder_ != nullptr) start_ = TraceRecorder::Clock::now();
  }
  ~ScopedSpan() {
    if (recorder_ != nullptr) {
      recorder_->Add(name_, layer_, lane_, start_, TraceRecorder::Clock::now());
    }
  }
  ScopedSpan(const ScopedSpan&) = delete;
  ScopedSpan& operator=(const ScopedSpan&) = delete;

 private:
  TraceRecorder* recorder_;
  const char* name_;
  int32_t layer_;
  TraceLane lane_;
  TraceRecorder::Clock::time_point start_;
};

std::string FormatTrace(const ChunkTrace& trace);
// InvalidArgument for bytes that are none.
absl::StatusOr<ChunkTrace> ParseTrace(absl::string_view bytes);

// Chrome's trace format, one JSON object: a process for each worker with a lane for its layers and
// one for its reads and writes, and an event for each span. `missing`: chunks without a trace.
std::string ChromeTrace(const std::string& job, absl::Span<const ChunkTrace> traces,
                        int64_t missing);

}  // namespace longwave

#include "observability/trace.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "formats/byte_codec.h"
#include "formats/utf8.h"

namespace longwave {
namespace {

namespace json = boost::json;
using std::chrono::duration_cast, std::chrono::microseconds;

constexpr absl::string_view kMagic = "LWTRACE1";
constexpr uint64_t kSpanBytes = 4 + 4 + 1 + 8 + 8;
constexpr const char* kLanes[] = {"layers", "objects"};

absl::Status Damaged(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("a trace: ", what));
}

}  // namespace

TraceRecorder::TraceRecorder(int64_t most)
    : most_(most),
      steady_(Clock::now()),
      wall_us_(duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}

void TraceRecorder::Add(absl::string_view name, int32_t layer, TraceLane lane,
                        Clock::time_point start, Clock::time_point end) {
  const int64_t start_us = wall_us_ + duration_cast<microseconds>(start - steady_).count();
  const int64_t duration_us =
      std::max<int64_t>(0, duration_cast<microseconds>(end - start).count());
  const std::lock_guard<std::mutex> lock(mutex_);
  if (static_cast<int64_t>(spans_.size()) >= most_) {
    ++dropped_;
  } else {
    spans_.push_back({std::string(name), layer, lane, start_us, duration_us});
  }
}

ChunkTrace TraceRecorder::Take(ChunkTrace trace) {
  const std::lock_guard<std::mutex> lock(mutex_);
  trace.spans = std::exchange(spans_, {});
  trace.dropped = std::exchange(dropped_, 0);
  return trace;
}

std::string FormatTrace(const ChunkTrace& trace) {
  std::map<std::string, uint32_t> numbers;
  std::vector<absl::string_view> names;
  for (const TraceSpan& span : trace.spans) {
    const auto [found, added] = numbers.emplace(span.name, static_cast<uint32_t>(names.size()));
    if (added) names.push_back(found->first);
  }
  ByteWriter bytes;
  bytes.PutRaw(kMagic);
  bytes.PutString(trace.job);
  for (int64_t number : {trace.chunk, trace.epoch, trace.tokens}) bytes.Put(number);
  bytes.PutString(trace.worker);
  bytes.PutString(trace.device);
  bytes.Put(trace.dropped);
  bytes.Put(static_cast<uint32_t>(names.size()));
  for (absl::string_view name : names) bytes.PutString(name);
  bytes.Put(static_cast<uint32_t>(trace.spans.size()));
  for (const TraceSpan& span : trace.spans) {
    bytes.Put(numbers[span.name]);
    bytes.Put(span.layer);
    bytes.Put(static_cast<uint8_t>(span.lane));
    bytes.Put(span.start_us);
    bytes.Put(span.duration_us);
  }
  return bytes.Take();
}

absl::StatusOr<ChunkTrace> ParseTrace(absl::string_view bytes) {
  ByteReader reader(bytes);
  if (reader.GetRaw(kMagic.size()) != kMagic) return Damaged("it does not start as one");
  ChunkTrace trace;
  trace.job = reader.GetString();
  for (int64_t* number : {&trace.chunk, &trace.epoch, &trace.tokens}) {
    *number = reader.Get<int64_t>();
  }
  trace.worker = reader.GetString();
  trace.device = reader.GetString();
  trace.dropped = reader.Get<int64_t>();
  const uint32_t count = reader.Get<uint32_t>();
  if (count > reader.left() / sizeof(uint32_t)) return Damaged("more names than bytes");
  std::vector<std::string> names(count);
  for (std::string& name : names) name = reader.GetString();
  const uint32_t spans = reader.Get<uint32_t>();
  if (spans > reader.left() / kSpanBytes) return Damaged("more spans than bytes");
  for (uint32_t i = 0; i < spans; ++i) {
    TraceSpan& span = trace.spans.emplace_back();
    const uint32_t name = reader.Get<uint32_t>();
    span.layer = reader.Get<int32_t>();
    const uint8_t lane = reader.Get<uint8_t>();
    span.start_us = reader.Get<int64_t>();
    span.duration_us = reader.Get<int64_t>();
    if (name >= names.size()) return Damaged(absl::StrCat("name ", name, " of ", names.size()));
    if (lane >= std::size(kLanes)) return Damaged(absl::StrCat("lane ", lane));
    if (span.duration_us < 0) return Damaged("a span that ends before it starts");
    span.name = names[name];
    span.lane = static_cast<TraceLane>(lane);
  }
  absl::Status end = reader.Finish();
  if (!end.ok()) return Damaged(end.message());
  return trace;
}

std::string ChromeTrace(const std::string& job, absl::Span<const ChunkTrace> traces,
                        int64_t missing) {
  std::map<std::string, int64_t> workers;  // their number as a process
  json::array events;
  int64_t dropped = 0;
  for (const ChunkTrace& trace : traces) {
    const auto [worker, added] = workers.emplace(trace.worker, workers.size() + 1);
    const int64_t process = worker->second;
    if (added) {
      events.push_back(
          {{"name", "process_name"},
           {"ph", "M"},
           {"pid", process},
           {"args", {{"name", ToUtf8(absl::StrCat(trace.worker, " (", trace.device, ")"))}}}});
      for (size_t lane = 0; lane < std::size(kLanes); ++lane) {
        events.push_back({{"name", "thread_name"},
                          {"ph", "M"},
                          {"pid", process},
                          {"tid", lane},
                          {"args", {{"name", kLanes[lane]}}}});
      }
    }
    dropped += trace.dropped;
    for (const TraceSpan& span : trace.spans) {
      json::object about = {{"chunk", trace.chunk}, {"epoch", trace.epoch}};
      std::string name = ToUtf8(span.name);
      if (span.layer >= 0) {
        about["layer"] = span.layer;
        name = absl::StrCat("layer ", span.layer, " ", name);
      } else if (span.name == "chunk") {
        absl::StrAppend(&name, " ", trace.chunk);
        about["tokens"] = trace.tokens;
      }
      events.push_back({{"name", name},
                        {"cat", ToUtf8(span.name)},
                        {"ph", "X"},
                        {"ts", span.start_us},
                        {"dur", span.duration_us},
                        {"pid", process},
                        {"tid", static_cast<int>(span.lane)},
                        {"args", std::move(about)}});
    }
  }
  const json::object all = {{"traceEvents", std::move(events)},
                            {"displayTimeUnit", "ms"},
                            {"otherData",
                             {{"job", ToUtf8(job)},
                              {"chunks", traces.size()},
                              {"chunks_without_trace", missing},
                              {"spans_dropped", dropped}}}};
  return json::serialize(all) + "\n";
}

}  // namespace longwave

#include "observability/trace.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "boost/json/parse.hpp"

namespace longwave {
namespace {

ChunkTrace Example() {
  ChunkTrace trace{"4f1c", 3, 7, 8192, "w1", "cuda:0", 2, {}};
  trace.spans = {{"chunk", -1, TraceLane::kCompute, 1000, 500},
                 {"wait", 0, TraceLane::kCompute, 1001, 20},
                 {"wait", 1, TraceLane::kCompute, 1050, 0},
                 {"upload", -1, TraceLane::kObjects, 1400, 90}};
  return trace;
}

TEST(Trace, RoundTrip) {
  const auto parsed = ParseTrace(FormatTrace(Example()));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Example());
  EXPECT_EQ(*ParseTrace(FormatTrace({})), ChunkTrace());
}

TEST(Trace, NothingThatIsCutOrChangedCrashes) {
  const std::string bytes = FormatTrace(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseTrace(bytes.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(ParseTrace(bytes + "x").ok());
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::string changed = bytes;
    changed[random() % changed.size()] = static_cast<char>(random());
    const auto parsed = ParseTrace(changed);
    if (!parsed.ok()) continue;
    EXPECT_EQ(ParseTrace(FormatTrace(*parsed)).value(), *parsed);
  }
}

TEST(Trace, ARecorderKeepsSoManySpansAndCountsTheRest) {
  TraceRecorder recorder(100);
  const auto before = std::chrono::system_clock::now();
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) ScopedSpan(&recorder, "send", i);
  });
  for (int i = 0; i < 100; ++i) ScopedSpan(&recorder, "compute", i);
  other.join();
  const ChunkTrace trace = recorder.Take(Example());
  EXPECT_EQ(trace.spans.size(), 100u);
  EXPECT_EQ(trace.dropped, 100);
  EXPECT_EQ(trace.worker, "w1");
  const int64_t start =
      std::chrono::duration_cast<std::chrono::microseconds>(before.time_since_epoch()).count();
  for (const TraceSpan& span : trace.spans) {
    EXPECT_NEAR(static_cast<double>(span.start_us), static_cast<double>(start), 60e6);
  }
  EXPECT_TRUE(recorder.Take({}).spans.empty());
  ScopedSpan nothing(nullptr, "compute");
}

TEST(Trace, ChromesFormat) {
  ChunkTrace second = Example();
  second.worker = "w\xff";
  second.chunk = 4;
  const boost::json::value all =
      boost::json::parse(ChromeTrace("4f1c", {Example(), second, Example()}, 5));
  const boost::json::array& events = all.at("traceEvents").as_array();
  ASSERT_EQ(events.size(), 2 * 3 + 3 * 4u);
  int chunks = 0;
  for (const boost::json::value& event : events) {
    if (event.at("ph") == "M") continue;
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_EQ(event.at("pid"), event.at("args").at("chunk") == 3 ? 1 : 2);
    if (event.at("cat") == "chunk") {
      ++chunks;
      EXPECT_EQ(event.at("args").at("tokens"), 8192);
    }
    EXPECT_EQ(event.at("tid"), event.at("cat") == "upload" ? 1 : 0);
    if (event.at("cat") == "wait" && event.at("dur") == 20) {
      EXPECT_EQ(event.at("name"), "layer 0 wait");
      EXPECT_EQ(event.at("ts"), 1001);
    }
  }
  EXPECT_EQ(chunks, 3);
  EXPECT_EQ(all.at("otherData").at("chunks_without_trace"), 5);
  EXPECT_EQ(all.at("otherData").at("spans_dropped"), 6);
}

}  // namespace
}  // namespace longwave

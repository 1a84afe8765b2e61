#include "services/cluster/job_trace.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "boost/json/parse.hpp"
#include "observability/trace.h"
#include "scheduler/protocol/messages.h"

namespace longwave {
namespace {

class JobTraceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/job-trace-", getpid());
    auto objects = ObjectStore::Open("file://" + folder_);
    ASSERT_TRUE(objects.ok()) << objects.status();
    objects_ = *std::move(objects);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(int64_t epoch, int64_t chunk, const std::string& job = "a") {
    ChunkTrace trace;
    trace.job = job;
    trace.chunk = chunk;
    trace.epoch = epoch;
    trace.worker = absl::StrCat("w", chunk);
    trace.spans = {{"chunk", -1, TraceLane::kCompute, 10 * chunk, 5},
                   {"compute", 0, TraceLane::kCompute, 10 * chunk, 2}};
    ASSERT_TRUE(objects_->Write(TraceName("a", epoch, chunk), FormatTrace(trace)).ok());
  }
  static CommittedChunk Chunk(int64_t chunk, int64_t epoch) {
    CommittedChunk committed;
    committed.chunk = chunk;
    committed.epoch = epoch;
    return committed;
  }

  std::string folder_;
  std::unique_ptr<ObjectStore> objects_;
};

TEST_F(JobTraceTest, ChunksUnderTheEpochsThatWereCommitted) {
  Write(1, 0);
  Write(2, 1);  // lost, computed again under epoch 3
  Write(3, 1);
  Write(4, 2, "another");
  ASSERT_TRUE(objects_->Write(TraceName("a", 5, 3), "damaged").ok());
  const auto trace =
      JobTrace("a", {Chunk(0, 1), Chunk(1, 3), Chunk(2, 4), Chunk(3, 5), Chunk(4, 6)}, *objects_);
  ASSERT_TRUE(trace.ok()) << trace.status();
  const boost::json::value all = boost::json::parse(*trace);
  int spans = 0;
  for (const boost::json::value& event : all.at("traceEvents").as_array()) {
    if (event.at("ph") != "X") continue;
    ++spans;
    EXPECT_EQ(event.at("args").at("epoch"), event.at("args").at("chunk") == 0 ? 1 : 3);
  }
  EXPECT_EQ(spans, 4);
  EXPECT_EQ(all.at("otherData").at("chunks"), 2);
  EXPECT_EQ(all.at("otherData").at("chunks_without_trace"), 3);
}

TEST_F(JobTraceTest, StopsAtSoManySpans) {
  for (int64_t chunk = 0; chunk < 5; ++chunk) Write(1, chunk);
  std::vector<CommittedChunk> chunks;
  for (int64_t chunk = 0; chunk < 5; ++chunk) chunks.push_back(Chunk(chunk, 1));
  const auto trace = JobTrace("a", chunks, *objects_, 3);
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(boost::json::parse(*trace).at("otherData").at("chunks"), 2);
}

TEST_F(JobTraceTest, NoTraceAtAll) {
  const auto trace = JobTrace("a", {Chunk(0, 1)}, *objects_);
  EXPECT_TRUE(absl::IsNotFound(trace.status()));
  EXPECT_EQ(trace.status().message(),
            "job a: none of its 1 committed chunks has a trace (submit --trace)");
}

}  // namespace
}  // namespace longwave

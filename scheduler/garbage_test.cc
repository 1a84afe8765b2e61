#include "scheduler/garbage.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/protocol/messages.h"
#include "scheduler/s3/store.h"
#include "scheduler/testing/s3_server.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kHour = 3600 * 1000;

class GarbageTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    auto objects = GetParam() == "file"
                       ? ObjectStore::Open("file://" + folder_ + "/objects")
                       : OpenS3Store(TestS3Config(absl::StrCat("garbage/", count_)));
    ASSERT_TRUE(objects.ok()) << objects.status();
    objects_ = *std::move(objects);
    auto database = OpenSqlite(folder_ + "/jobs.sqlite");
    ASSERT_TRUE(database.ok()) << database.status();
    store_ = *JobStore::Open(*std::move(database));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void AddJob(const std::string& id) {
    NewJob job;
    job.id = id;
    job.spec.model = "m";
    job.spec.input = "i";
    ASSERT_TRUE(store_->Create(job, 1).ok());
  }
  void Write(const std::string& name) { ASSERT_TRUE(objects_->Write(name, "abc").ok()) << name; }
  // `ms` from now.
  SweepReport SweepAt(int64_t ms, SweepOptions options) {
    const auto report = Sweep(*objects_, *store_, int64_t{time(nullptr)} * 1000 + ms, options,
                              [] { return false; });
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(SweepReport());
  }

  static int counter_;
  const int count_ = ++counter_;
  const std::string folder_ =
      absl::StrCat(::testing::TempDir(), "/garbage-", getpid(), "-", count_);
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<JobStore> store_;
};
int GarbageTest::counter_ = 0;

TEST_P(GarbageTest, RemovesWhatNoRowNamesOnceItIsOld) {
  AddJob("kept");
  Write(TokensName("kept"));
  Write(OutputName("kept", 3, 4));
  Write(TokensName("gone"));
  Write(OutputName("gone", 1, 2));
  Write(BoundaryName("gone", 1, 2));
  ASSERT_TRUE(store_->AddFile({"named", "a.txt", "", 3, 1}).ok());
  Write("files/named");
  Write("files/unnamed");
  const SweepOptions options = {kHour, kHour};
  const SweepReport early = SweepAt(kHour / 2, options);
  EXPECT_EQ(early.objects, 0);
  EXPECT_EQ(objects_->List("jobs")->size(), 5u);
  EXPECT_EQ(objects_->List("files")->size(), 2u);
  const SweepReport late = SweepAt(2 * kHour, options);
  EXPECT_EQ(late.objects, 4);
  EXPECT_EQ(late.bytes, 12);
  EXPECT_EQ(late.partial, 0);
  EXPECT_THAT(*objects_->List("jobs"), ElementsAre("jobs/kept/3/4.output", "jobs/kept/tokens"));
  EXPECT_THAT(*objects_->List("files"), ElementsAre("files/named"));
  EXPECT_THAT(*objects_->ListFolders("jobs"), ElementsAre("kept"));
  EXPECT_EQ(SweepAt(2 * kHour, options).objects, 0);
}

TEST_P(GarbageTest, RemovesUnfinishedWritesOnceTheyAreOld) {
  AddJob("kept");
  std::vector<std::unique_ptr<ObjectWriter>> writers;
  for (const std::string& name :
       {OutputName("kept", 1, 0), OutputName("gone", 1, 0), std::string("files/new")}) {
    writers.push_back(*objects_->Create(name));
    ASSERT_TRUE(writers.back()->Append(std::string(6 << 20, 'x')).ok());
  }
  EXPECT_EQ(SweepAt(kHour / 2, {kHour, kHour}).partial, 0);
  EXPECT_EQ(objects_->ListPartial("jobs")->size(), 2u);
  EXPECT_EQ(SweepAt(2 * kHour, {kHour, kHour}).partial, 3);
  EXPECT_THAT(*objects_->ListPartial("jobs"), IsEmpty());
  EXPECT_THAT(*objects_->ListPartial("files"), IsEmpty());
  for (auto& writer : writers) EXPECT_FALSE(writer->Commit().ok());
}

TEST_P(GarbageTest, StopsWhenTold) {
  Write(TokensName("gone"));
  Write("files/unnamed");
  const auto report = Sweep(*objects_, *store_, int64_t{1} << 50, {}, [] { return true; });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->objects, 0);
  EXPECT_EQ(objects_->List("jobs")->size() + objects_->List("files")->size(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Stores, GarbageTest, ::testing::Values("file", "s3"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace longwave

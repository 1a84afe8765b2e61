#include "scheduler/object_store.h"

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/s3/store.h"
#include "scheduler/testing/s3_server.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  uint32_t x = 1;
  for (char& byte : bytes) byte = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return bytes;
}

std::string ReadSource(ByteSource& source, size_t size, absl::Status& status) {
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {  // in odd pieces
    const auto got = source.Read(absl::MakeSpan(reinterpret_cast<uint8_t*>(&bytes[done]),
                                                std::min<size_t>(size - done, 300001)));
    if (!got.ok()) status = got.status();
    if (!got.ok() || *got == 0) break;
    done += *got;
  }
  bytes.resize(done);
  return bytes;
}

// Of every kind of store, each test with an empty one.
class ObjectStoreTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<ObjectStore>> store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<std::unique_ptr<ObjectStore>> Open() {
    if (GetParam() == "file") return ObjectStore::Open("file://" + folder_);
    S3Config config = TestS3Config(absl::StrCat("run/", count_));
    config.list_page = 2;
    return OpenS3Store(config);
  }

  static std::atomic<int> counter_;
  const int count_ = ++counter_;
  const std::string folder_ =
      absl::StrCat(::testing::TempDir(), "/objects-", getpid(), "-", count_);
  std::unique_ptr<ObjectStore> store_;
};
std::atomic<int> ObjectStoreTest::counter_ = 0;

TEST_P(ObjectStoreTest, WritesReadsListsAndDeletes) {
  const auto info = store_->Write("jobs/a/1/0.output", "0123456789");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->bytes, 10);
  EXPECT_EQ(info->sha256, HexSha256("0123456789"));
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 3, 4), "3456");
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 3, 0), "");
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 8, 100), "89");
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 10, 1), "");
  EXPECT_TRUE(absl::IsOutOfRange(store_->Read("jobs/a/1/0.output", 11, 1).status()));
  EXPECT_TRUE(absl::IsOutOfRange(store_->Read("jobs/a/1/0.output", 11, 0).status()));
  EXPECT_TRUE(absl::IsOutOfRange(store_->Read("jobs/a/1/0.output", -1, 1).status()));
  EXPECT_EQ(*store_->Size("jobs/a/1/0.output"), 10);
  ASSERT_TRUE(store_->Write("jobs/a/tokens", "x").ok());
  ASSERT_TRUE(store_->Write("jobs/b/tokens", "y").ok());
  EXPECT_THAT(*store_->List("jobs/a"), ElementsAre("jobs/a/1/0.output", "jobs/a/tokens"));
  ASSERT_TRUE(store_->Delete("jobs/a/1/0.output").ok());
  EXPECT_TRUE(store_->Delete("jobs/a/1/0.output").ok());
  EXPECT_THAT(*store_->List("jobs/a"), ElementsAre("jobs/a/tokens"));
  EXPECT_THAT(*store_->List("jobs/c"), IsEmpty());
  EXPECT_EQ(*store_->ReadAll("jobs/b/tokens", 1), "y");
  EXPECT_TRUE(absl::IsDataLoss(store_->ReadAll("jobs/b/tokens", 0).status()));
}

TEST_P(ObjectStoreTest, WhatIsNotThereIsNotFound) {
  ASSERT_TRUE(store_->Write("a/b", "x").ok());
  for (const char* name : {"a/c", "a", "a/b/c"}) {
    const absl::Status size = store_->Size(name).status();
    EXPECT_TRUE(absl::IsNotFound(size) || name == std::string("a/b/c")) << size;
    EXPECT_FALSE(size.ok());
    EXPECT_THAT(size.message(), HasSubstr(name));
    EXPECT_FALSE(store_->Read(name, 0, 1).ok());
    EXPECT_FALSE(store_->OpenSource(name).ok());
  }
}

TEST_P(ObjectStoreTest, WritesAgainInPlace) {
  ASSERT_TRUE(store_->Write("a/b", "before").ok());
  ASSERT_TRUE(store_->Write("a/b", "after").ok());
  EXPECT_EQ(*store_->ReadAll("a/b", 100), "after");
  ASSERT_TRUE(store_->Write("a/b", "").ok());
  EXPECT_EQ(*store_->ReadAll("a/b", 100), "");
  EXPECT_EQ(*store_->Size("a/b"), 0);
}

TEST_P(ObjectStoreTest, TellsSizesAndTimes) {
  ASSERT_TRUE(store_->Write("jobs/a/tokens", "abc").ok());
  const auto objects = store_->ListObjects("jobs");
  ASSERT_TRUE(objects.ok()) << objects.status();
  ASSERT_EQ(objects->size(), 1u);
  EXPECT_EQ(objects->front().bytes, 3);
  EXPECT_NEAR(objects->front().modified_ms / 1000.0, time(nullptr), 60);
}

TEST_P(ObjectStoreTest, ListsPageByPage) {
  std::vector<std::string> names;
  for (int i = 0; i < 7; ++i) {
    names.push_back(absl::StrCat("jobs/job-", i, "/tokens"));
    ASSERT_TRUE(store_->Write(names.back(), "x").ok());
  }
  ASSERT_TRUE(store_->Write("jobs/top", "x").ok());
  ASSERT_TRUE(store_->Write("jobs2/top", "x").ok());
  names.push_back("jobs/top");
  EXPECT_EQ(*store_->List("jobs"), names);
  EXPECT_THAT(*store_->ListFolders("jobs"),
              ElementsAre("job-0", "job-1", "job-2", "job-3", "job-4", "job-5", "job-6"));
  EXPECT_THAT(*store_->ListFolders("files"), IsEmpty());
}

TEST_P(ObjectStoreTest, AnObjectAppearsWholeOrNotAtAll) {
  ASSERT_TRUE(store_->Write("a/b", "before").ok());
  {
    auto writer = store_->Create("a/b");
    ASSERT_TRUE((*writer)->Append("half").ok());
    EXPECT_EQ(*store_->ReadAll("a/b", 100), "before");
    EXPECT_THAT(*store_->List("a"), ElementsAre("a/b"));
  }
  EXPECT_EQ(*store_->ReadAll("a/b", 100), "before");
  EXPECT_THAT(*store_->ListPartial("a"), IsEmpty());
}

TEST_P(ObjectStoreTest, LargeObjectsOfAnySizeAroundAPart) {
  constexpr size_t kPart = 5 << 20;
  for (size_t size : {kPart - 1, kPart, kPart + 1, 3 * kPart, 3 * kPart + 12345}) {
    const std::string bytes = Pattern(size);
    auto writer = store_->Create("jobs/a/tokens");
    ASSERT_TRUE(writer.ok());
    for (size_t done = 0; done < size; done += 999999) {
      ASSERT_TRUE((*writer)->Append(bytes.substr(done, 999999)).ok());
    }
    const auto info = (*writer)->Commit();
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->bytes, static_cast<int64_t>(size));
    EXPECT_EQ(info->sha256, HexSha256(bytes));
    EXPECT_TRUE(*store_->ReadAll("jobs/a/tokens", 1 << 30, info->sha256) == bytes) << size;
    EXPECT_TRUE(*store_->Read("jobs/a/tokens", kPart - 100, 7 << 20) ==
                bytes.substr(kPart - 100, 7 << 20));
  }
  EXPECT_THAT(*store_->ListPartial("jobs"), IsEmpty());
}

TEST_P(ObjectStoreTest, AnAbandonedLargeObjectLeavesNothing) {
  {
    auto writer = store_->Create("jobs/a/tokens");
    ASSERT_TRUE((*writer)->Append(Pattern(11 << 20)).ok());
    const auto partial = store_->ListPartial("jobs");
    ASSERT_TRUE(partial.ok()) << partial.status();
    ASSERT_EQ(partial->size(), 1u);
    EXPECT_NEAR(partial->front().modified_ms / 1000.0, time(nullptr), 60);
    EXPECT_THAT(*store_->List("jobs"), IsEmpty());
  }
  EXPECT_THAT(*store_->ListPartial("jobs"), IsEmpty());
  EXPECT_THAT(*store_->List("jobs"), IsEmpty());
}

TEST_P(ObjectStoreTest, AWriterWhosePartialIsDeletedFails) {
  std::vector<std::unique_ptr<ObjectWriter>> writers;
  for (const char* name : {"jobs/a/1/0.output", "jobs/a/1/1.output", "jobs/b/1/0.output"}) {
    writers.push_back(*store_->Create(name));
    ASSERT_TRUE(writers.back()->Append(Pattern(11 << 20)).ok());
  }
  const auto partial = store_->ListPartial("jobs");
  ASSERT_TRUE(partial.ok()) << partial.status();
  ASSERT_EQ(partial->size(), 3u);
  EXPECT_EQ(store_->ListPartial("jobs/a")->size(), 2u);
  for (const PartialObject& one : *partial) {
    EXPECT_TRUE(store_->DeletePartial(one).ok());
    EXPECT_TRUE(store_->DeletePartial(one).ok());
  }
  for (auto& writer : writers) EXPECT_FALSE(writer->Commit().ok());
  EXPECT_THAT(*store_->List("jobs"), IsEmpty());
  EXPECT_TRUE(absl::IsInvalidArgument(store_->DeletePartial({"jobs/a/tokens", "", 0})));
}

TEST_P(ObjectStoreTest, SourcesStream) {
  const std::string bytes = Pattern((9 << 20) + 17);
  const auto info = store_->Write("files/a", bytes);
  ASSERT_TRUE(info.ok()) << info.status();
  auto source = store_->OpenSource("files/a", info->sha256);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->FractionRead(), 0);
  EXPECT_EQ((*source)->name(), "files/a");
  absl::Status status;
  EXPECT_TRUE(ReadSource(**source, bytes.size() + 10, status) == bytes);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ((*source)->FractionRead(), 1);
  auto range = store_->OpenRange("files/a", 5 << 20, 100, info->sha256);
  ASSERT_TRUE(range.ok()) << range.status();
  EXPECT_TRUE(ReadSource(**range, 1000, status) == bytes.substr(5 << 20, 100));
  EXPECT_TRUE(absl::IsOutOfRange(store_->OpenRange("files/a", 0, bytes.size() + 1).status()));
  EXPECT_TRUE(absl::IsOutOfRange(store_->OpenRange("files/a", -1, 1).status()));
}

TEST_P(ObjectStoreTest, OtherBytesThanWrittenAreDataLoss) {
  std::string bytes = Pattern(5 << 20);
  const std::string sha256 = HexSha256(bytes);
  bytes[4321] ^= 1;
  ASSERT_TRUE(store_->Write("files/a", bytes).ok());
  const absl::Status all = store_->ReadAll("files/a", 10 << 20, sha256).status();
  EXPECT_TRUE(absl::IsDataLoss(all)) << all;
  EXPECT_THAT(all.message(), HasSubstr("files/a"));
  EXPECT_THAT(all.message(), HasSubstr(sha256));
  absl::Status status;
  auto source = store_->OpenSource("files/a", sha256);
  // Nobody gets to the end of it.
  EXPECT_LT(ReadSource(**source, bytes.size(), status).size(), bytes.size());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  ASSERT_TRUE(store_->Write("files/empty", "").ok());
  source = store_->OpenSource("files/a", sha256, "genome.fa");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->name(), "genome.fa");
  source = store_->OpenSource("files/empty", sha256);
  EXPECT_TRUE(absl::IsDataLoss((*source)->Peek(1).status()));
}

TEST_P(ObjectStoreTest, NamesStayInside) {
  for (const char* name : {"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "a b",
                           "a\\b", "a/.", "caf\xc3\xa9", "a?b", "a%2fb", "a/b.partial"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Write(name, "x").status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Read(name, 0, 1).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Size(name).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Delete(name))) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->List(name).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->ListFolders(name).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->ListPartial(name).status())) << name;
  }
  for (const char* name : {"", "../x.partial", "/x.partial", ".partial", "a/b"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->DeletePartial({name, "", 0}))) << name;
  }
}

TEST_P(ObjectStoreTest, ManyThreads) {
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 10; ++k) {
        const std::string name = absl::StrCat("jobs/", i, "/", k, "/x"), bytes = name + "!";
        const bool done = store_->Write(name, bytes).ok() && *store_->ReadAll(name, 100) == bytes &&
                          (k % 2 == 1 || store_->Delete(name).ok());
        if (done) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 60);
  EXPECT_EQ(store_->List("jobs")->size(), 30u);
}

INSTANTIATE_TEST_SUITE_P(Stores, ObjectStoreTest, ::testing::Values("file", "s3"),
                         [](const auto& info) { return info.param; });

TEST(ObjectStoreUriTest, OtherSchemesAreRefused) {
  EXPECT_THAT(ObjectStore::Open("http://bucket").status().message(), HasSubstr("http://bucket"));
  EXPECT_FALSE(ObjectStore::Open("file://relative").ok());
}

}  // namespace
}  // namespace longwave

#include "scheduler/object_store.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ObjectStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/objects-", getpid());
    std::filesystem::remove_all(folder_);
    auto store = ObjectStore::Open("file://" + folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(ObjectStoreTest, WritesReadsListsAndDeletes) {
  const auto info = store_->Write("jobs/a/1/0.output", "0123456789");
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->bytes, 10);
  EXPECT_EQ(info->sha256, HexSha256("0123456789"));
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 3, 4), "3456");
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 8, 100), "89");
  EXPECT_EQ(*store_->Read("jobs/a/1/0.output", 10, 1), "");
  EXPECT_TRUE(absl::IsOutOfRange(store_->Read("jobs/a/1/0.output", 11, 1).status()));
  EXPECT_EQ(*store_->Size("jobs/a/1/0.output"), 10);
  ASSERT_TRUE(store_->Write("jobs/a/tokens", "x").ok());
  ASSERT_TRUE(store_->Write("jobs/b/tokens", "y").ok());
  EXPECT_THAT(*store_->List("jobs/a"), ElementsAre("jobs/a/1/0.output", "jobs/a/tokens"));
  ASSERT_TRUE(store_->Delete("jobs/a/1/0.output").ok());
  EXPECT_TRUE(store_->Delete("jobs/a/1/0.output").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/jobs/a/1"));
  EXPECT_THAT(*store_->List("jobs/a"), ElementsAre("jobs/a/tokens"));
  EXPECT_THAT(*store_->List("jobs/c"), IsEmpty());
  EXPECT_TRUE(absl::IsNotFound(store_->Read("jobs/a/1/0.output", 0, 1).status()));
  EXPECT_EQ(*store_->ReadAll("jobs/b/tokens", 1), "y");
  EXPECT_TRUE(absl::IsResourceExhausted(store_->ReadAll("jobs/b/tokens", 0).status()));
}

TEST_F(ObjectStoreTest, AnObjectAppearsWholeOrNotAtAll) {
  {
    auto writer = store_->Create("a/b");
    ASSERT_TRUE((*writer)->Append("half").ok());
    EXPECT_TRUE(absl::IsNotFound(store_->Size("a/b").status()));
  }
  EXPECT_THAT(*store_->List("a"), IsEmpty());
}

TEST_F(ObjectStoreTest, NamesStayInside) {
  for (const char* name : {"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "a b",
                           "a\\b", "a/.", "caf\xc3\xa9"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Write(name, "x").status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Read(name, 0, 1).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Delete(name))) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(store_->List(name).status())) << name;
  }
}

TEST_F(ObjectStoreTest, OtherSchemesAreRefused) {
  EXPECT_THAT(ObjectStore::Open("s3://bucket").status().message(), HasSubstr("s3://bucket"));
  EXPECT_FALSE(ObjectStore::Open("file://relative").ok());
}

}  // namespace
}  // namespace longwave

#include "scheduler/observed_objects.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "observability/server_probe.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

class ObservedObjectsTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Expect(int requests, int errors) {
    const std::string text = probe_.Text();
    EXPECT_THAT(text,
                HasSubstr(absl::StrCat("\nlongwave_object_request_seconds_count ", requests)));
    EXPECT_THAT(text,
                HasSubstr(absl::StrCat("\nlongwave_object_request_errors_total ", errors, "\n")));
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/observed-", getpid());
  ServerProbe probe_;
  std::unique_ptr<ObjectStore> objects_ =
      Observe(*ObjectStore::Open("file://" + folder_), probe_.objects());
};

TEST_F(ObservedObjectsTest, AWriteIsOneRequest) {
  auto writer = *objects_->Create("a/b");
  ASSERT_TRUE(writer->Append("12").ok());
  ASSERT_TRUE(writer->Append("34").ok());
  Expect(0, 0);
  EXPECT_EQ(writer->Commit()->bytes, 4);
  Expect(1, 0);
  EXPECT_EQ(*objects_->Read("a/b", 1, 2), "23");
  EXPECT_EQ(*objects_->Size("a/b"), 4);
  EXPECT_EQ(*objects_->List("a"), std::vector<std::string>{"a/b"});
  EXPECT_TRUE(objects_->ListFolders("a").ok());
  EXPECT_TRUE(objects_->ListPartial("a").ok());
  EXPECT_TRUE(objects_->Delete("a/b").ok());
  Expect(7, 0);
}

TEST_F(ObservedObjectsTest, WhatIsNotThereIsAnAnswerAndWhatCannotBeIsAFailure) {
  EXPECT_TRUE(absl::IsNotFound(objects_->Size("none").status()));
  EXPECT_FALSE(objects_->Read("no/../name", 0, 1).ok());
  Expect(2, 0);
  ASSERT_TRUE(objects_->Write("a", "1").ok());
  EXPECT_FALSE(objects_->Write("a/b", "1").ok());  // a file where a folder must be
  Expect(4, 1);
}

}  // namespace
}  // namespace longwave

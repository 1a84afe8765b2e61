#include "services/output_files.h"

#include <filesystem>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Kind = OutputFiles::Kind;

class OutputFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "/output_files.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }
  std::set<std::string> Files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  fs::path folder_;
};

TEST(OutputNames, RecordsGoBeforeTheEnding) {
  EXPECT_EQ(RecordPath("d.x/out.npy", "chr1", ".npy"), "d.x/out.chr1.npy");
  EXPECT_EQ(RecordPath("out", "chr1", ".npy"), "out.chr1.npy");
  EXPECT_EQ(RecordPath("out.v2", "chr1", ".npy"), "out.v2.chr1.npy");
  EXPECT_EQ(RecordPath("d.x/out.txt", "chr1", ""), "d.x/out.chr1.txt");
  EXPECT_EQ(RecordPath("d.x/out", "chr1", ""), "d.x/out.chr1");
  EXPECT_EQ(RecordPath(".hidden", "a", ""), ".hidden.a");
}

TEST(OutputNames, AreSafe) {
  EXPECT_EQ(SafeName("gi|1|ref/../x y"), "gi_1_ref_.._x_y");
  EXPECT_EQ(SafeName("A-b_c.9"), "A-b_c.9");
  EXPECT_EQ(SafeName("\xC3\xA9"), "__");
}

TEST_F(OutputFilesTest, OneSequenceGetsThePathItself) {
  OutputFiles files = OutputFiles::Open(Path("out.npy"), Kind::kFloats).value();
  EXPECT_EQ(Files().count("out.npy"), 0);  // begun, but not under its name
  ASSERT_TRUE(files.Begin("only").ok());
  const std::vector<float> values = {1, 2, 3};
  ASSERT_TRUE(files.Append(values).ok());
  EXPECT_EQ(files.Commit({3}, false).value(), Path("out.npy"));
  EXPECT_EQ(Files(), std::set<std::string>{"out.npy"});
  EXPECT_EQ(files.committed(), std::vector<std::string>{Path("out.npy")});
}

TEST_F(OutputFilesTest, SeveralGetTheirNames) {
  OutputFiles files = OutputFiles::Open(Path("out.npy"), Kind::kIds).value();
  for (const char* record : {"a", "b|c"}) {
    ASSERT_TRUE(files.Begin(record).ok());
    ASSERT_TRUE(files.Append(7).ok());
    ASSERT_TRUE(files.Commit({1}, true).ok());
  }
  EXPECT_EQ(Files(), (std::set<std::string>{"out.a.npy", "out.b_c.npy"}));
}

TEST_F(OutputFilesTest, AClashIsRefusedBeforeItsValues) {
  OutputFiles files = OutputFiles::Open(Path("out.npy"), Kind::kIds).value();
  ASSERT_TRUE(files.Begin("a b").ok());
  ASSERT_TRUE(files.Commit({0}, true).ok());
  EXPECT_THAT(files.Begin("a|b").message(), HasSubstr("out.a_b.npy"));
  EXPECT_EQ(Files(), std::set<std::string>{"out.a_b.npy"});
}

TEST_F(OutputFilesTest, BytesAreWrittenAsTheyAre) {
  {
    OutputFiles files = OutputFiles::Open(Path("text"), Kind::kBytes).value();
    ASSERT_TRUE(files.Begin("x").ok());
    for (int32_t byte : {72, 105, 255}) ASSERT_TRUE(files.Append(byte).ok());
    ASSERT_TRUE(files.Commit({3}, false).ok());
  }
  EXPECT_EQ(fs::file_size(Path("text")), 3);
}

TEST_F(OutputFilesTest, WhatIsNotCommittedLeavesNothing) {
  {
    OutputFiles files = OutputFiles::Open(Path("out.npy"), Kind::kFloats).value();
    ASSERT_TRUE(files.Append(std::vector<float>{1}).ok());
  }
  EXPECT_TRUE(Files().empty());
}

TEST_F(OutputFilesTest, NoPathWritesNothing) {
  OutputFiles files = OutputFiles::Open("", Kind::kFloats).value();
  ASSERT_TRUE(files.Begin("x").ok());
  ASSERT_TRUE(files.Append(std::vector<float>{1}).ok());
  EXPECT_EQ(files.Commit({1}, false).value(), "");
  EXPECT_TRUE(files.committed().empty());
}

TEST_F(OutputFilesTest, OpenFailsAtOnce) {
  EXPECT_THAT(OutputFiles::Open(Path("none/out.npy"), Kind::kFloats).status().message(),
              HasSubstr("none/out.npy"));
}

}  // namespace
}  // namespace longwave

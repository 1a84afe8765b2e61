// What only a folder has: the disk.
#include "scheduler/file_store.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

std::mutex synced_mutex;
std::set<std::string> synced;  // paths

}  // namespace

// In place of the C library's, for all of this program.
extern "C" int fsync(int fd) {
  char path[4096];
  const std::string link = absl::StrCat("/proc/self/fd/", fd);
  const ssize_t size = readlink(link.c_str(), path, sizeof(path));
  {
    const std::lock_guard<std::mutex> lock(synced_mutex);
    if (size > 0) synced.insert(std::string(path, static_cast<size_t>(size)));
  }
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace longwave {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class FileStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    folder_ = std::filesystem::canonical(folder_).string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_ = absl::StrCat(::testing::TempDir(), "/files-", getpid());
};

TEST_F(FileStoreTest, AnObjectAndItsFoldersReachTheDisk) {
  auto store = *ObjectStore::Open("file://" + folder_);
  {
    const std::lock_guard<std::mutex> lock(synced_mutex);
    synced.clear();
  }
  ASSERT_TRUE(store->Write("jobs/a/1/0.output", "abc").ok());
  const std::lock_guard<std::mutex> lock(synced_mutex);
  EXPECT_THAT(synced, Contains(HasSubstr("/jobs/a/1/0.output.")));  // under its temporary name
  for (const char* folder : {"", "/jobs", "/jobs/a", "/jobs/a/1"}) {
    EXPECT_THAT(synced, Contains(folder_ + folder));
  }
}

TEST_F(FileStoreTest, AFolderIsSyncedOnceForEachTimeItIsMade) {
  auto store = *ObjectStore::Open("file://" + folder_);
  const auto write = [&](const char* name) {
    {
      const std::lock_guard<std::mutex> lock(synced_mutex);
      synced.clear();
    }
    ASSERT_TRUE(store->Write(name, "abc").ok());
  };
  write("jobs/a/1/0.output");
  write("jobs/a/1/1.output");
  EXPECT_THAT(synced, Contains(folder_ + "/jobs/a/1"));
  EXPECT_THAT(synced, Not(Contains(folder_ + "/jobs/a")));
  std::filesystem::remove_all(folder_ + "/jobs/a/1");
  std::filesystem::create_directory(folder_ + "/jobs/a/1");  // by another
  write("jobs/a/1/2.output");
  EXPECT_THAT(synced, Contains(folder_ + "/jobs/a"));
  EXPECT_THAT(synced, Not(Contains(folder_ + "/jobs")));
}

// In a process with mounts of its own: a disk of 1 MiB. Exit code 77: not allowed here.
int WriteToFullDisk(const std::string& folder, std::string& said) {
  const uid_t user = getuid();
  if (unshare(CLONE_NEWNS | (user == 0 ? 0 : CLONE_NEWUSER)) != 0 ||
      mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=1m") != 0) {
    return 77;
  }
  auto store = *ObjectStore::Open("file://" + folder);
  const absl::Status full = store->Write("jobs/a/1/0.output", std::string(3 << 20, 'x')).status();
  said = full.ToString();
  if (!absl::IsResourceExhausted(full)) return 1;
  // Nothing is left of it: the room is there for another.
  if (!store->List("jobs")->empty() || !store->ListPartial("jobs")->empty()) return 2;
  return store->Write("jobs/a/1/1.output", std::string(500 << 10, 'x')).ok() ? 0 : 3;
}

TEST_F(FileStoreTest, AFullDiskIsSaidWithTheName) {
  int out[2];
  ASSERT_EQ(pipe(out), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::string said;
    const int code = WriteToFullDisk(folder_, said);
    (void)!write(out[1], said.data(), said.size());
    _exit(code);
  }
  close(out[1]);
  std::string said(4096, '\0');
  said.resize(static_cast<size_t>(std::max<ssize_t>(0, read(out[0], said.data(), said.size()))));
  close(out[0]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "may not mount";
  EXPECT_EQ(WEXITSTATUS(status), 0) << said;
  EXPECT_THAT(said, HasSubstr("jobs/a/1/0.output"));
}

TEST_F(FileStoreTest, FoldersThatAreEmptyGo) {
  auto store = *ObjectStore::Open("file://" + folder_);
  ASSERT_TRUE(store->Write("jobs/a/1/0.output", "abc").ok());
  ASSERT_TRUE(store->Write("jobs/a/tokens", "abc").ok());
  ASSERT_TRUE(store->Delete("jobs/a/1/0.output").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/jobs/a/1"));
  ASSERT_TRUE(store->Delete("jobs/a/tokens").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/jobs/a"));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/jobs"));
}

}  // namespace
}  // namespace longwave

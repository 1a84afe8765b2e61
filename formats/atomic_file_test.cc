#include "formats/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::IsEmpty;
using testing::StartsWith;
using testing::UnorderedElementsAre;

TEST(AtomicFile, AppearsOnlyAtCommit) {
  ScratchFolder folder;
  const std::string path = WriteFile(folder / "out", "old");
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Append(Bytes("new bytes")).ok());
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_THAT(folder.Files(),
              UnorderedElementsAre("out", AllOf(StartsWith("out." + std::to_string(getpid())),
                                                EndsWith(".partial"))));
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadFile(path), "new bytes");
  EXPECT_THAT(folder.Files(), ElementsAre("out"));
}

TEST(AtomicFile, DestroyedLeavesNothing) {
  ScratchFolder folder;
  {
    auto file = AtomicFile::Create(folder / "out");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->Append(std::vector<uint8_t>(3 << 20)).ok());
  }
  EXPECT_THAT(folder.Files(), IsEmpty());
}

TEST(AtomicFile, TwoOfOneNameDoNotMeet) {
  ScratchFolder folder;
  auto a = AtomicFile::Create(folder / "out"), b = AtomicFile::Create(folder / "out");
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_TRUE((*a)->Append(Bytes("a")).ok() && (*b)->Append(Bytes("b")).ok());
  ASSERT_TRUE((*b)->Commit().ok());
  ASSERT_TRUE((*a)->Commit().ok());
  EXPECT_EQ(ReadFile(folder / "out"), "a");
  EXPECT_THAT(folder.Files(), ElementsAre("out"));
}

TEST(AtomicFile, WriteAtReachesDiskAndBuffer) {
  ScratchFolder folder;
  auto file = AtomicFile::Create(folder / "out");
  ASSERT_TRUE(file.ok());
  std::string expected;
  for (int64_t size : {0, 1, 700'000, 700'000, 1 << 20, (1 << 20) + 1, 10}) {
    const std::string part(size, 'a');
    ASSERT_TRUE((*file)->Append(Bytes(part)).ok());
    expected += part;
    // At the start, at the end, and over what was flushed into what was not.
    for (int64_t offset : {int64_t{0}, (*file)->size() / 2, (*file)->size() - 20}) {
      if (offset < 0 || offset + 20 > (*file)->size()) continue;
      const std::string mark = "[" + std::to_string(offset) + "]";
      ASSERT_TRUE((*file)->WriteAt(offset, Bytes(mark)).ok());
      expected.replace(offset, mark.size(), mark);
    }
    const std::string all((*file)->size(), 'x');
    ASSERT_TRUE((*file)->WriteAt(0, Bytes(all)).ok());
    ASSERT_TRUE((*file)->WriteAt(0, Bytes(expected)).ok());
  }
  EXPECT_EQ((*file)->size(), static_cast<int64_t>(expected.size()));
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(ReadFile(folder / "out") == expected);
}

TEST(AtomicFile, CommitUnderAnotherName) {
  ScratchFolder folder;
  auto file = AtomicFile::Create(folder / "out");
  ASSERT_TRUE((*file)->Commit(folder / "other").ok());
  EXPECT_THAT(folder.Files(), ElementsAre("other"));
}

TEST(AtomicFile, FailedRenameLeavesNothing) {
  ScratchFolder folder;
  std::filesystem::create_directory(folder / "taken");
  auto file = AtomicFile::Create(folder / "out");
  EXPECT_EQ(MessageOf((*file)->Commit(folder / "taken")), (folder / "taken") + ": Is a directory");
  EXPECT_THAT(folder.Files(), ElementsAre("taken"));
}

TEST(AtomicFile, ModeFollowsUmask) {
  ScratchFolder folder;
  const mode_t kept = umask(027);
  auto file = AtomicFile::Create(folder / "out");
  umask(kept);
  ASSERT_TRUE((*file)->Commit().ok());
  struct stat info;
  ASSERT_EQ(stat((folder / "out").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

TEST(AtomicFile, LinkKeepsPointing) {
  ScratchFolder folder;
  WriteFile(folder / "real", "old");
  ASSERT_EQ(symlink("real", (folder / "link").c_str()), 0);
  auto file = AtomicFile::Create(folder / "link");
  ASSERT_TRUE((*file)->Append(Bytes("new")).ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(ReadFile(folder / "real"), "new");
  ASSERT_EQ(symlink("nowhere", (folder / "dangling").c_str()), 0);
  EXPECT_EQ(MessageOf(AtomicFile::Create(folder / "dangling")),
            (folder / "dangling") + ": No such file or directory");
}

TEST(AtomicFile, CreateFailsAtOnce) {
  ScratchFolder folder;
  EXPECT_EQ(MessageOf(AtomicFile::Create(folder / "none/out")),
            (folder / "none/out") + ": No such file or directory");
  EXPECT_EQ(MessageOf(AtomicFile::Create(folder / ".")), (folder / ".") + ": Is a directory");
  EXPECT_EQ(MessageOf(AtomicFile::Create("")), "an output path is empty");
  if (geteuid() == 0) return;
  chmod((folder / ".").c_str(), 0500);
  EXPECT_EQ(MessageOf(AtomicFile::Create(folder / "out")),
            (folder / "out") + ": Permission denied");
}

TEST(AtomicFile, FullDevice) {
  auto file = AtomicFile::Create("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Append(Bytes("x")).ok());  // buffered
  EXPECT_EQ(MessageOf((*file)->Commit()), "/dev/full: No space left on device");
  auto large = AtomicFile::Create("/dev/full");
  const std::vector<uint8_t> bytes(2 << 20);
  EXPECT_EQ(MessageOf((*large)->Append(bytes)), "/dev/full: No space left on device");
  EXPECT_EQ(MessageOf((*large)->Commit()), "/dev/full: No space left on device");  // it stays
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(AtomicFile, FileSizeLimitLeavesNothing) {
  ScratchFolder folder;
  auto file = AtomicFile::Create(folder / "out");
  ASSERT_TRUE(file.ok());
  rlimit kept;
  getrlimit(RLIMIT_FSIZE, &kept);
  rlimit small = kept;
  small.rlim_cur = 1 << 20;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status wrote = (*file)->Append(std::vector<uint8_t>(3 << 20));
  setrlimit(RLIMIT_FSIZE, &kept);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_EQ(MessageOf(wrote), (folder / "out") + ": File too large");
  EXPECT_THAT(folder.Files(), IsEmpty());
}

TEST(AtomicFile, AKeptFileIsLeftForALaterOne) {
  ScratchFolder folder;
  {
    auto file = AtomicFile::CreateKept(folder / "out");
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(absl::IsUnavailable(AtomicFile::CreateKept(folder / "out").status()));
    ASSERT_TRUE((*file)->Restart(0).ok());
    ASSERT_TRUE((*file)->Append(Bytes("abcdef")).ok());
    ASSERT_TRUE((*file)->Flush().ok());
    (*file)->Keep();
  }
  EXPECT_THAT(folder.Files(), ElementsAre("out.partial"));
  { EXPECT_TRUE(AtomicFile::CreateKept(folder / "out").ok()); }  // looked at, no more
  EXPECT_EQ(ReadFile(folder / "out.partial"), "abcdef");
  auto file = AtomicFile::CreateKept(folder / "out");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Restart(3).ok());
  EXPECT_EQ((*file)->size(), 3);
  ASSERT_TRUE((*file)->Append(Bytes("xyz")).ok());
  ASSERT_TRUE((*file)->WriteAt(2, Bytes("C")).ok());
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(ReadFile(folder / "out"), "abCxyz");
  EXPECT_THAT(folder.Files(), ElementsAre("out"));
}

TEST(AtomicFile, AKeptFileThatFailsLeavesNothing) {
  ScratchFolder folder;
  { EXPECT_TRUE(AtomicFile::CreateKept(folder / "out").ok()); }
  EXPECT_THAT(folder.Files(), IsEmpty());
  {
    auto file = AtomicFile::CreateKept(folder / "out");
    ASSERT_TRUE(file.ok() && (*file)->Restart(0).ok());
  }
  EXPECT_THAT(folder.Files(), IsEmpty());
}

TEST(AtomicFile, WhatCannotBeKept) {
  ScratchFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  ASSERT_EQ(mkfifo((folder / "out.partial").c_str(), 0600), 0);
  ASSERT_EQ(symlink((folder / "target").c_str(), (folder / "link.partial").c_str()), 0);
  for (const char* name : {"pipe", "out", "link", "nowhere/out", ""}) {
    EXPECT_TRUE(absl::IsUnavailable(AtomicFile::CreateKept(folder / name).status())) << name;
  }
  EXPECT_THAT(folder.Files(), UnorderedElementsAre("pipe", "out.partial", "link.partial"));
}

// Each takes the file up, or finds it taken, and gives it its final name: no byte of another's.
TEST(AtomicFile, KeptFilesOfManyThreads) {
  ScratchFolder folder;
  std::vector<std::thread> threads;
  std::atomic<int> committed = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string content(1000, static_cast<char>('a' + t));
      for (int round = 0; round < 200; ++round) {
        auto file = AtomicFile::CreateKept(folder / "out");
        if (!file.ok()) continue;
        ASSERT_TRUE((*file)->Restart(0).ok());
        ASSERT_TRUE((*file)->Append({reinterpret_cast<const uint8_t*>(content.data()), 500}).ok());
        ASSERT_TRUE((*file)->Flush().ok());
        ASSERT_TRUE((*file)->Append({reinterpret_cast<const uint8_t*>(content.data()), 500}).ok());
        ASSERT_TRUE((*file)->Commit().ok());
        ++committed;
        const std::string got = ReadFile(folder / "out");
        ASSERT_EQ(got, std::string(1000, got.at(0)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(committed, 0);
}

TEST(AtomicFile, PipeTakesWhatItIsGiven) {
  ScratchFolder folder;
  const std::string path = folder / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] { got = ReadFile(path); });
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Append(Bytes("head body")).ok());
  EXPECT_TRUE((*file)->WriteAt(0, Bytes("HEAD")).ok());
  EXPECT_TRUE((*file)->Commit().ok());
  file->reset();
  reader.join();
  EXPECT_EQ(got, "HEAD body");
  EXPECT_THAT(folder.Files(), ElementsAre("pipe"));
}

}  // namespace
}  // namespace longwave

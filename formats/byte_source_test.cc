#include "formats/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// 300 KB that gzip cannot make much smaller: larger than every buffer.
std::string Noise() {
  std::string bytes;
  uint32_t x = 12345;
  while (bytes.size() < 300'000)
    bytes.push_back(static_cast<char>((x = x * 1664525 + 1013904223) >> 24));
  return bytes;
}

absl::StatusOr<std::string> ReadAll(ByteSource& source, int64_t chunk) {
  std::string all;
  std::vector<uint8_t> out(chunk);
  while (true) {
    absl::StatusOr<int64_t> got = source.Read(absl::MakeSpan(out));
    if (!got.ok()) return got.status();
    all.append(out.begin(), out.begin() + *got);
    if (*got < chunk) return all;
  }
}

class ByteSourceChunks : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ByteSourceChunks,
                         testing::Values(1, 7, 65535, 65536, 65537, 131072, 131073, 300'000,
                                         999'999));

TEST_P(ByteSourceChunks, PlainGzipAndMembersGiveTheSameBytes) {
  ScratchFolder folder;
  const std::string noise = Noise();
  const std::string members = Gzip(noise.substr(0, 100'001)) + Gzip("") +
                              Gzip(noise.substr(100'001)) + std::string(9, '\0');
  for (const std::string& stored : {noise, Gzip(noise), members}) {
    auto source = ByteSource::Open(WriteFile(folder / "x", stored));
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_GE((*source)->FractionRead(), 0);
    auto all = ReadAll(**source, GetParam());
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_TRUE(*all == noise);
    EXPECT_EQ((*source)->FractionRead(), 1);
  }
}

TEST_P(ByteSourceChunks, PeekDoesNotConsume) {
  const std::string noise = Noise();
  auto source = ByteSource::FromMemory(Bytes(noise), "m");
  std::vector<uint8_t> out(GetParam());
  for (size_t at = 0; at < noise.size();) {
    for (int64_t n : {0, 3, 65536}) {
      auto peeked = source->Peek(n);
      ASSERT_TRUE(peeked.ok());
      ASSERT_EQ(peeked->size(), std::min<size_t>(n, noise.size() - at));
      ASSERT_EQ(0, noise.compare(at, peeked->size(), reinterpret_cast<const char*>(peeked->data()),
                                 peeked->size()));
    }
    if (GetParam() == 1 && at > 1000) break;  // the rest is slow and the same
    at += *source->Read(absl::MakeSpan(out));
  }
}

TEST(ByteSource, PeekAtTheEndIsShort) {
  const std::string text = "ab";
  auto source = ByteSource::FromMemory(Bytes(text), "m");
  EXPECT_EQ(source->Peek(5)->size(), 2u);
  uint8_t out[5];
  EXPECT_EQ(*source->Read(absl::MakeSpan(out)), 2);
  EXPECT_EQ(source->Peek(5)->size(), 0u);
  EXPECT_EQ(*source->Read(absl::MakeSpan(out)), 0);
}

TEST(ByteSource, PipeGivesAllAndNoFraction) {
  ScratchFolder folder;
  const std::string path = folder / "pipe", noise = Noise();
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] {
    std::ofstream out(path, std::ios::binary);
    for (size_t at = 0; at < noise.size(); at += 977) out << noise.substr(at, 977) << std::flush;
  });
  auto source = ByteSource::Open(path);
  EXPECT_TRUE(source.ok());
  EXPECT_EQ((*source)->FractionRead(), -1);
  auto all = ReadAll(**source, 1000);
  writer.join();
  ASSERT_TRUE(all.ok());
  EXPECT_TRUE(*all == noise);
}

TEST(ByteSource, DashIsStandardInput) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const int kept = dup(STDIN_FILENO);
  dup2(ends[0], STDIN_FILENO);
  const std::string packed = Gzip("acgt");
  ASSERT_EQ(write(ends[1], packed.data(), packed.size()), static_cast<ssize_t>(packed.size()));
  close(ends[1]);
  auto source = ByteSource::Open("-");
  EXPECT_TRUE(source.ok());
  EXPECT_EQ((*source)->name(), "standard input");
  auto all = ReadAll(**source, 100);
  dup2(kept, STDIN_FILENO);
  close(kept);
  close(ends[0]);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(*all, "acgt");
}

TEST(ByteSource, MissingAndFolderNameThePath) {
  ScratchFolder folder;
  EXPECT_EQ(MessageOf(ByteSource::Open(folder / "none")),
            (folder / "none") + ": No such file or directory");
  EXPECT_THAT(MessageOf(ByteSource::Open(folder / ".")), EndsWith("/.: Is a directory"));
}

TEST(ByteSource, UnreadableFileNamesThePath) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
  ScratchFolder folder;
  const std::string path = WriteFile(folder / "x", "a");
  chmod(path.c_str(), 0);
  EXPECT_EQ(MessageOf(ByteSource::Open(path)), path + ": Permission denied");
}

absl::Status UnpackError(const std::string& packed) {
  auto source = ByteSource::Unpacked(ByteSource::FromMemory(Bytes(packed), "x.gz"));
  if (!source.ok()) return source.status();
  return ReadAll(**source, 1000).status();
}

TEST(Gzip, TruncatedAtEveryByteIsAnError) {
  const std::string packed = Gzip("the quick brown fox");
  EXPECT_TRUE(UnpackError(packed).ok());
  for (size_t n = 3; n < packed.size(); ++n) {
    EXPECT_EQ(MessageOf(UnpackError(packed.substr(0, n))), "x.gz: the gzip data ends early") << n;
  }
  // In the second member.
  EXPECT_EQ(MessageOf(UnpackError(packed + packed.substr(0, 12))),
            "x.gz: the gzip data ends early");
}

TEST(Gzip, CorruptIsAnError) {
  std::string packed = Gzip("the quick brown fox");
  packed[packed.size() - 6] ^= 1;  // the checksum
  EXPECT_EQ(MessageOf(UnpackError(packed)), "x.gz: corrupt gzip data: incorrect data check");
  EXPECT_THAT(MessageOf(UnpackError("\x1f\x8b\x08 and then no gzip at all")),
              StartsWith("x.gz: corrupt gzip data: "));
}

TEST(Gzip, TrailingBytesAreAnErrorAndZerosAreNot) {
  const std::string packed = Gzip("acgt");
  EXPECT_TRUE(UnpackError(packed + std::string(100'000, '\0')).ok());
  EXPECT_EQ(MessageOf(UnpackError(packed + "x")),
            "x.gz: bytes that are not gzip follow the gzip data");
  EXPECT_THAT(MessageOf(UnpackError(packed + "\x1fxxxxxxxxxxxx")), HasSubstr("incorrect header"));
}

TEST(Gzip, TwoMagicBytesAloneArePlain) {
  const std::string text = "\x1f\x8b";
  auto source = ByteSource::Unpacked(ByteSource::FromMemory(Bytes(text), "x"));
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(*ReadAll(**source, 10), text);
}

}  // namespace
}  // namespace longwave

#include "services/watched_input.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr int64_t kChunk = 10;

std::unique_ptr<WatchedInput> Open(const std::string& text) {
  auto source =
      ByteSource::FromMemory({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "test");
  auto input = TokenInput::FromSource(std::move(source), InputFormat::kAuto, "test");
  EXPECT_TRUE(input.ok()) << input.status();
  return std::make_unique<WatchedInput>(*std::move(input));
}

// As ContinueSequence() reads: a chunk and one token more, then chunks. Stops once `tokens` are of
// chunks that were read; returns all that it was given.
std::string ReadChunks(WatchedInput& input, int64_t tokens) {
  std::string text;
  std::vector<int32_t> buffer(kChunk + 1);
  for (int64_t chunks = 0; chunks * kChunk < tokens; ++chunks) {
    const int64_t wanted = chunks == 0 ? kChunk + 1 : kChunk;
    const auto got = input.Read(absl::MakeSpan(buffer).first(wanted));
    EXPECT_TRUE(got.ok()) << got.status();
    text.append(buffer.begin(), buffer.begin() + *got);
    if (*got < wanted) break;
  }
  return text;
}

TEST(WatchedInput, SkippingLeadsWhereReadingDoes) {
  for (int64_t length : {1, 9, 10, 11, 19, 20, 21, 30, 55}) {
    std::string letters;
    for (int64_t i = 0; i < length; ++i) letters += static_cast<char>('A' + i * 7 % 26);
    const std::string text = absl::StrCat(">a\n", letters, "\n>b\nACGT\n");
    for (int64_t position = kChunk;; position += kChunk) {
      position = std::min(position, length);
      SCOPED_TRACE(absl::StrCat(length, " ", position));
      auto read = Open(text), skipped = Open(text);
      ASSERT_TRUE(*read->NextSequence() && *skipped->NextSequence());
      ReadChunks(*read, position);
      EXPECT_EQ(*skipped->Skip(position, kChunk), position);
      EXPECT_EQ(read->digest(), skipped->digest());
      // What is left is the same, but for the one token that a chunk's reader keeps to itself.
      EXPECT_EQ(ReadChunks(*skipped, 1000), letters.substr(position));
      ReadChunks(*read, 1000);
      ASSERT_TRUE(*read->NextSequence() && *skipped->NextSequence());
      EXPECT_EQ(ReadChunks(*skipped, 1000), "ACGT");
      if (position == length) break;
    }
  }
}

TEST(WatchedInput, EverythingReadIsInTheDigest) {
  const auto digest = [](const std::string& text) {
    auto input = Open(text);
    while (*input->NextSequence()) ReadChunks(*input, 1000);
    return input->digest();
  };
  const std::string text = ">a\nACGTACGTACGTACGT\n>b\nAC\n";
  EXPECT_EQ(digest(text), digest(">a x\nACGT\nACGTACGTACGT\n>b\nAC"));
  for (const char* other : {">a\nACGTACGTACGTACGA\n>b\nAC\n", ">a\nACGTACGTACGTACG\n>b\nTAC\n",
                            ">c\nACGTACGTACGTACGT\n>b\nAC\n", ">a\nACGTACGTACGTACGT\n"}) {
    EXPECT_NE(digest(text), digest(other)) << other;
  }
}

TEST(WatchedInput, ASequenceThatIsTooShort) {
  auto input = Open("ACGT");
  ASSERT_TRUE(*input->NextSequence());
  EXPECT_EQ(*input->Skip(20, kChunk), 4);
  EXPECT_FALSE(*input->NextSequence());
}

}  // namespace
}  // namespace longwave

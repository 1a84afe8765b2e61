#include "formats/fasta_input.h"

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

using Records = std::vector<std::pair<std::string, std::string>>;  // name, letters

// Keeps the text alive beside the input over it.
struct Fasta {
  explicit Fasta(std::string t)
      : text(std::move(t)), input(ByteSource::FromMemory(Bytes(text), "x.fa")) {}
  FastaInput* operator->() { return &input; }
  FastaInput& operator*() { return input; }
  const std::string text;
  FastaInput input;
};

absl::StatusOr<Records> ReadRecords(TokenInput& input, size_t chunk) {
  Records records;
  std::vector<int32_t> out(chunk);
  while (true) {
    absl::StatusOr<bool> more = input.NextSequence();
    if (!more.ok()) return more.status();
    if (!*more) return records;
    EXPECT_EQ(input.sequence().index, static_cast<int64_t>(records.size()));
    records.emplace_back(input.sequence().name, "");
    while (true) {
      absl::StatusOr<int64_t> got = input.Read(absl::MakeSpan(out));
      if (!got.ok()) return got.status();
      records.back().second.append(out.begin(), out.begin() + *got);
      if (static_cast<size_t>(*got) < chunk) break;
    }
    EXPECT_EQ(*input.Read(absl::MakeSpan(out)), 0);
  }
}

std::string ErrorOf(const std::string& text) {
  Fasta input(text);
  const auto records = ReadRecords(*input, 5);
  EXPECT_FALSE(records.ok()) << text;
  return MessageOf(records);
}

class FastaChunks : public testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, FastaChunks,
                         testing::Values(1, 2, 3, 7, 60, 61, 65535, 65536, 65537, 1'000'000));

TEST_P(FastaChunks, SeveralRecords) {
  Fasta input(
      "; a comment > with this\n;another\n\n \t\n>one first record\nACGT\r\nacgtn\n\n>two\r\n"
      "A C\tG*-x;>\n>\n\nT\n> three\tx\nGG");
  const auto records = ReadRecords(*input, GetParam());
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT(*records, ElementsAre(std::pair("one", "ACGTACGTN"), std::pair("two", "ACG*-X;>"),
                                    std::pair("", "T"), std::pair("three", "GG")));
}

// Lines of every kind across the borders of the 64 KiB blocks.
TEST_P(FastaChunks, LongRecords) {
  std::string text;
  Records expected;
  uint32_t x = 1;
  for (int record = 0; record < 12; ++record) {
    expected.emplace_back("r" + std::to_string(record) + std::string(record * 900, 'n'), "");
    text += ">" + expected.back().first + " long\n";
    for (int i = 0; i < 20'000 + record; ++i) {
      expected.back().second += "ACGT"[(x = x * 1664525 + 1013904223) >> 30];
    }
    for (size_t at = 0, width; at < expected.back().second.size(); at += width) {
      width = 1 + (x = x * 1664525 + 1013904223) % 131;
      text += expected.back().second.substr(at, width) + (width % 2 ? "\n" : "\r\n");
    }
  }
  Fasta input(text);
  const auto records = ReadRecords(*input, GetParam());
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_TRUE(*records == expected);
  EXPECT_EQ(input->FractionRead(), 1);
}

TEST(Fasta, EveryByteThatIsNoBlankIsALetter) {
  std::string line = "A";
  for (int c = 1; c < 256; ++c) line += static_cast<char>(c == '\n' ? 'q' : c);
  const std::string text = ">x\n" + line + std::string(1, '\0') + "\n";
  Fasta input(text);
  const auto records = ReadRecords(*input, 100);
  ASSERT_TRUE(records.ok());
  EXPECT_EQ((*records)[0].second.size(), 1u + 255 - 5 + 1);
  EXPECT_THAT((*records)[0].second, StartsWith("A\x01\x02"));
  std::vector<int32_t> out(300);
  Fasta again(text);
  ASSERT_TRUE(*again->NextSequence());
  ASSERT_EQ(*again->Read(absl::MakeSpan(out)), 252);
  EXPECT_EQ(out[250], 255);  // bytes above 127 are not negative tokens
}

TEST(Fasta, SkipsWhatIsUnread) {
  Fasta input(">a\nACGT\nACGT\n>b\nT\n>c\nGG\n");
  EXPECT_TRUE(*input->HasNextSequence());
  ASSERT_TRUE(*input->NextSequence());
  int32_t one;
  ASSERT_EQ(*input->Read(absl::MakeSpan(&one, 1)), 1);
  ASSERT_TRUE(*input->NextSequence());
  EXPECT_EQ(input->sequence().name, "b");
  EXPECT_EQ(input->sequence().index, 1);
  EXPECT_TRUE(*input->HasNextSequence());  // skips the T
  EXPECT_EQ(*input->Read(absl::MakeSpan(&one, 1)), 0);
  ASSERT_TRUE(*input->NextSequence());
  EXPECT_FALSE(*input->HasNextSequence());
  EXPECT_FALSE(*input->HasNextSequence());
  EXPECT_FALSE(*input->NextSequence());
  EXPECT_EQ(*input->Read(absl::MakeSpan(&one, 1)), 0);
}

TEST(Fasta, HasNextSequenceAtTheEnd) {
  Fasta input(">a\nACGT\n\n  \n");
  ASSERT_TRUE(*input->NextSequence());
  std::vector<int32_t> out(4);
  ASSERT_EQ(*input->Read(absl::MakeSpan(out)), 4);
  EXPECT_THAT(out, ElementsAre('A', 'C', 'G', 'T'));
  EXPECT_FALSE(*input->HasNextSequence());
}

TEST(Fasta, Errors) {
  EXPECT_EQ(ErrorOf("\n \r\n"), "x.fa: no FASTA records");
  EXPECT_EQ(ErrorOf("; only a comment"), "x.fa: no FASTA records");
  EXPECT_EQ(ErrorOf("\nACGT\n>a\nA\n"),
            "x.fa: not FASTA: 'ACGT\\n>a\\nA\\n' comes before the first '>'");
  EXPECT_EQ(ErrorOf(std::string(100, 'A')),
            "x.fa: not FASTA: '" + std::string(60, 'A') + "'... comes before the first '>'");
  EXPECT_THAT(ErrorOf(" >a\nA\n"), HasSubstr("not FASTA: '>a"));
  EXPECT_EQ(ErrorOf(">"), "x.fa: record 0 '' has no letters");
  EXPECT_EQ(ErrorOf(">a\nA\n>chr2 x\n\n>c\nA\n"), "x.fa: record 1 'chr2' has no letters");
  EXPECT_EQ(ErrorOf(">a\nA\n>chr2\r\n \n"), "x.fa: record 1 'chr2' has no letters");
}

TEST(Fasta, HeaderLimit) {
  const std::string longest = ">" + std::string(kMaxFastaHeader - 1, 'n');
  Fasta input(longest + "\nA\n");
  ASSERT_TRUE(input->NextSequence().ok());
  EXPECT_EQ(input->sequence().name, longest.substr(1));
  for (const char* tail : {"n\nA\n", "n"}) {
    EXPECT_THAT(ErrorOf(longest + tail),
                StartsWith("x.fa: record 0's header line is over 65536 bytes: '>nnn"));
  }
  EXPECT_LT(ErrorOf(longest + longest).size(), 200u);
}

}  // namespace
}  // namespace longwave

#include "formats/token_input.h"

#include <sys/stat.h>

#include <thread>

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

template <typename T>
std::string Npy(const std::string& descr, const std::string& shape, const std::vector<T>& values) {
  std::string dictionary =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + "}";
  dictionary.resize(117, ' ');
  const std::string start("\x93NUMPY\x01\x00\x76\x00", 10);
  return start + dictionary + "\n" +
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

class TokenInputTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<TokenInput>> Open(const std::string& name,
                                                   const std::string& bytes,
                                                   InputFormat format = InputFormat::kAuto) {
    return TokenInput::Open(WriteFile(folder_ / name, bytes), format);
  }

  // Every sequence, or the first error.
  absl::StatusOr<std::vector<std::vector<int32_t>>> ReadAll(const std::string& name,
                                                            const std::string& bytes,
                                                            InputFormat format = InputFormat::kAuto,
                                                            int64_t chunk = 3) {
    auto input = Open(name, bytes, format);
    if (!input.ok()) return input.status();
    std::vector<std::vector<int32_t>> all;
    while (true) {
      absl::StatusOr<bool> more = (*input)->NextSequence();
      if (!more.ok()) return more.status();
      if (!*more) return all;
      all.emplace_back();
      std::vector<int32_t> out(chunk);
      for (int64_t got = chunk; got == chunk;) {
        absl::StatusOr<int64_t> read = (*input)->Read(absl::MakeSpan(out));
        if (!read.ok()) return read.status();
        got = *read;
        all.back().insert(all.back().end(), out.begin(), out.begin() + got);
      }
    }
  }

  std::string ErrorOf(const std::string& name, const std::string& bytes,
                      InputFormat format = InputFormat::kAuto) {
    const auto all = ReadAll(name, bytes, format);
    EXPECT_FALSE(all.ok());
    const std::string path = folder_ / name, message = MessageOf(all);
    EXPECT_EQ(message.substr(0, path.size()), path) << message;
    return message.substr(std::min(message.size(), path.size()));
  }

  ScratchFolder folder_;
};

const std::string kFasta = ">r\nac\n>s\ng\n";

TEST_F(TokenInputTest, DetectsByContentThenName) {
  const auto bytes = [](const std::string& text) {
    return std::vector<std::vector<int32_t>>{{text.begin(), text.end()}};
  };
  const std::vector<std::vector<int32_t>> records = {{'A', 'C'}, {'G'}};
  EXPECT_EQ(*ReadAll("x", kFasta), records);
  EXPECT_EQ(*ReadAll("x.gz", Gzip(kFasta)), records);
  EXPECT_EQ(*ReadAll("x.npy", kFasta), records);  // the name says nothing of .npy
  EXPECT_EQ(*ReadAll("x.txt", kFasta), bytes(kFasta));
  EXPECT_EQ(*ReadAll("x.TXT.gz", Gzip(kFasta)), bytes(kFasta));
  EXPECT_EQ(*ReadAll("x", "plain"), bytes("plain"));
  EXPECT_EQ(*ReadAll("x.fa", "\n; c\n" + kFasta), records);
  EXPECT_EQ(*ReadAll("x.fna.gz", Gzip("\n" + kFasta)), records);
  EXPECT_THAT(ErrorOf("x.fasta", "plain"), HasSubstr("not FASTA: 'plain'"));
  EXPECT_EQ(*ReadAll("x", Npy<int32_t>("<i4", "(2,)", {5, 6})),
            (std::vector<std::vector<int32_t>>{{5, 6}}));
  EXPECT_EQ(*ReadAll("x.gz", Gzip(Npy<int64_t>("<i8", "(2,)", {5, 6}))),
            (std::vector<std::vector<int32_t>>{{5, 6}}));
}

TEST_F(TokenInputTest, TheFormatGivenWins) {
  EXPECT_EQ(ReadAll("x.fa", kFasta, InputFormat::kBytes)->at(0).size(), kFasta.size());
  EXPECT_EQ(ReadAll("x.txt", kFasta, InputFormat::kFasta)->size(), 2u);
  EXPECT_THAT(ErrorOf("x", "plain", InputFormat::kNpy),
              HasSubstr("does not start with \\x93NUMPY"));
}

TEST_F(TokenInputTest, BytesAreUnsignedAndWhole) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += static_cast<char>(i * 7);
  for (int64_t chunk : {1, 1000, 32767, 32768, 32769, 300'000}) {
    const auto all = ReadAll("x.txt", text, InputFormat::kAuto, chunk);
    ASSERT_TRUE(all.ok()) << all.status();
    ASSERT_EQ(all->size(), 1u);
    ASSERT_EQ(all->at(0).size(), text.size());
    for (size_t i = 0; i < text.size(); ++i)
      ASSERT_EQ(all->at(0)[i], static_cast<uint8_t>(text[i]));
  }
}

TEST_F(TokenInputTest, BytesSequence) {
  auto input = Open("x", "abc");
  EXPECT_TRUE(*(*input)->HasNextSequence());
  ASSERT_TRUE(*(*input)->NextSequence());
  EXPECT_EQ((*input)->sequence().index, 0);
  EXPECT_EQ((*input)->sequence().length, -1);
  EXPECT_EQ((*input)->batch(), std::nullopt);
  EXPECT_TRUE((*input)->tokens_are_bytes());
  EXPECT_FALSE(*(*input)->HasNextSequence());
  EXPECT_FALSE(*(*input)->NextSequence());
  std::vector<int32_t> out(3);
  EXPECT_EQ(*(*input)->Read(absl::MakeSpan(out)), 0);
}

TEST_F(TokenInputTest, Empty) {
  for (InputFormat format :
       {InputFormat::kAuto, InputFormat::kBytes, InputFormat::kFasta, InputFormat::kNpy}) {
    EXPECT_EQ(ErrorOf("x.fa", "", format), " is empty");
    EXPECT_EQ(ErrorOf("x.gz", Gzip(""), format), " is empty");
  }
  EXPECT_EQ(ErrorOf("x.npy", Npy<int32_t>("<i4", "(0,)", {})), ": npy shape (0,) is empty");
  EXPECT_EQ(ErrorOf("x.npy", Npy<int32_t>("<i4", "(3, 0)", {})), ": npy shape (3, 0) is empty");
}

TEST_F(TokenInputTest, NpyBatch) {
  for (const std::string& bytes : {Npy<int32_t>("<i4", "(2, 3)", {1, 2, 3, 4, 5, 6}),
                                   Npy<int64_t>("<i8", "(2, 3)", {1, 2, 3, 4, 5, 6})}) {
    EXPECT_EQ(*ReadAll("x", bytes), (std::vector<std::vector<int32_t>>{{1, 2, 3}, {4, 5, 6}}));
    auto input = Open("x", bytes);
    ASSERT_TRUE(input.ok());
    EXPECT_EQ((*input)->batch(), 2);
    EXPECT_FALSE((*input)->tokens_are_bytes());
    ASSERT_TRUE(*(*input)->NextSequence());
    EXPECT_EQ((*input)->sequence().length, 3);
    std::vector<int32_t> out(2);
    ASSERT_EQ(*(*input)->Read(absl::MakeSpan(out)), 2);
    EXPECT_TRUE(*(*input)->HasNextSequence());
    ASSERT_TRUE(*(*input)->NextSequence());  // past the 3
    EXPECT_EQ((*input)->sequence().index, 1);
    ASSERT_EQ(*(*input)->Read(absl::MakeSpan(out)), 2);
    EXPECT_THAT(out, ElementsAre(4, 5));
    EXPECT_FALSE(*(*input)->HasNextSequence());
    EXPECT_FALSE(*(*input)->NextSequence());
  }
}

TEST_F(TokenInputTest, NpyOneDimensionIsNoBatch) {
  auto input = Open("x", Npy<int32_t>("<i4", "(2,)", {1, 2}));
  EXPECT_EQ((*input)->batch(), std::nullopt);
  ASSERT_TRUE(*(*input)->NextSequence());
  EXPECT_EQ((*input)->sequence().length, 2);
}

TEST_F(TokenInputTest, NpyErrors) {
  EXPECT_EQ(ErrorOf("x", Npy<int32_t>("<i4", "()", {1})),
            ": npy shape (): token ids have the shape (L,) or (batch, L)");
  EXPECT_THAT(ErrorOf("x", Npy<int32_t>("<i4", "(1, 1, 1)", {1})), HasSubstr("shape (1, 1, 1)"));
  EXPECT_EQ(ErrorOf("x", Npy<float>("<f4", "(1,)", {1})),
            ": npy shape (1,) of dtype <f4: token ids are <i4 or <i8");
  EXPECT_THAT(ErrorOf("x", Npy<double>("<f8", "(1,)", {1})), HasSubstr("dtype '<f8'"));
  EXPECT_EQ(ErrorOf("x", Npy<int32_t>("<i4", "(2, 5)", {1, 2, 3, 4, 5, 6, 7, 8, 9, -3})),
            ": token id -3 at position 4 of sequence 1");
  EXPECT_EQ(ErrorOf("x", Npy<int64_t>("<i8", "(2,)", {1, 1LL << 40})),
            ": id 1099511627776 at element 1 is beyond int32");
  EXPECT_THAT(ErrorOf("x", Npy<int32_t>("<i4", "(2,)", {1})), HasSubstr("ends after 1 of 2"));
  EXPECT_THAT(ErrorOf("x", Npy<int32_t>("<i4", "(2,)", {1, 2, 3})), HasSubstr("bytes follow"));
}

TEST_F(TokenInputTest, TruncatedGzipIsAnErrorWhenReached) {
  std::string text = ">r\n";
  for (int i = 0; i < 300'000; ++i) text += "ACGT"[(i * 2654435761u) >> 30];
  const std::string packed = Gzip(text);
  EXPECT_EQ(ErrorOf("x.fa.gz", packed.substr(0, packed.size() - 100)),
            ": the gzip data ends early");
}

TEST_F(TokenInputTest, MissingAndFolder) {
  EXPECT_THAT(MessageOf(TokenInput::Open(folder_ / "none", InputFormat::kAuto)),
              EndsWith("/none: No such file or directory"));
  EXPECT_THAT(MessageOf(TokenInput::Open(folder_ / ".", InputFormat::kAuto)),
              EndsWith("/.: Is a directory"));
}

TEST_F(TokenInputTest, PipeOfFasta) {
  const std::string path = folder_ / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] {
    std::ofstream out(path, std::ios::binary);
    for (char c : kFasta) out << c << std::flush;
  });
  auto input = TokenInput::Open(path, InputFormat::kAuto);
  writer.join();
  ASSERT_TRUE(input.ok());
  EXPECT_EQ((*input)->FractionRead(), -1);
  std::vector<int32_t> out(9);
  ASSERT_TRUE(*(*input)->NextSequence());
  EXPECT_EQ(*(*input)->Read(absl::MakeSpan(out)), 2);
  ASSERT_TRUE(*(*input)->NextSequence());
  EXPECT_EQ(*(*input)->Read(absl::MakeSpan(out)), 1);
}

}  // namespace
}  // namespace longwave

#include "formats/npy.h"

#include <limits>

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::string Npy(const std::string& dictionary, int version = 1) {
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
    out += static_cast<char>(dictionary.size() >> (8 * i));
  }
  return out + dictionary;
}

std::string Described(const std::string& descr, const std::string& shape,
                      const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape +
         ", }   \n";
}

template <typename T>
std::string Raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string HeaderError(const std::string& bytes) {
  const auto header = ParseNpyHeader(Bytes(bytes));
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument) << header.status();
  return MessageOf(header);
}

TEST(NpyHeader, EveryVersion) {
  for (int version : {1, 2, 3}) {
    const std::string bytes = Npy(Described("<f4", "(2, 3)"), version);
    const auto header = ParseNpyHeader(Bytes(bytes + "more"));
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->type, NpyType::kFloat32);
    EXPECT_THAT(header->shape, ElementsAre(2, 3));
    EXPECT_EQ(header->data_offset, static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(header->elements(), 6);
  }
}

TEST(NpyHeader, AnyLayoutOfTheDictionary) {
  const auto header =
      ParseNpyHeader(Bytes(Npy("{\"shape\":( 5L , ),'fortran_order' :False,\"descr\":'<i8'}")));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->type, NpyType::kInt64);
  EXPECT_THAT(header->shape, ElementsAre(5));
  EXPECT_EQ(ParseNpyHeader(Bytes(Npy(Described("<i4", "()"))))->elements(), 1);
  EXPECT_EQ(ParseNpyHeader(Bytes(Npy(Described("<i4", "(4611686018427387904, 0, 9)"))))->elements(),
            0);
  EXPECT_TRUE(ParseNpyHeader(Bytes(Npy(Described("<i4", "(7,)", "True")))).ok());
}

TEST(NpyHeader, ShortInputAsksForMore) {
  const std::string whole = Npy(Described("<f4", "(2, 3)"));
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_TRUE(absl::IsOutOfRange(ParseNpyHeader(Bytes(whole.substr(0, n))).status())) << n;
  }
  EXPECT_TRUE(ParseNpyHeader(Bytes(whole)).ok());
}

TEST(NpyHeader, Errors) {
  EXPECT_THAT(HeaderError("PK\x03\x04"), EndsWith("does not start with \\x93NUMPY"));
  EXPECT_THAT(HeaderError(Npy("{}", 4)), HasSubstr("version 4.0"));
  EXPECT_THAT(HeaderError("\x93NUMPY\x02" + std::string(1, '\0') + "\xff\xff\xff\xff"),
              HasSubstr("length 4294967295 is beyond 65524"));
  const struct {
    std::string dictionary, message;
  } kCases[] = {
      {"", "no dictionary at ''"},
      {"[]", "no dictionary"},
      {"{}", "'descr' is missing"},
      {"{'descr': '<f4'}", "'shape' is missing"},
      {"{'descr': '<f4', 'shape': (1,)}", "'fortran_order' is missing"},
      {"{'descr': '<f4', 'descr': '<f4'}", "second key 'descr'"},
      {"{'other': 1}", "second key 'other'"},
      {"{'descr' '<f4'}", "no 'key': value"},
      {"{'descr", "no 'key': value"},
      {"{'descr': '<f4' 'shape': (1,)}", "the dictionary has no end at"},
      {"{'descr': [('a', '<f4')]}", "descr is not a plain dtype"},
      {"{'fortran_order': 0}", "neither True nor False"},
      {Described("<f8", "(1,)"), "dtype '<f8' is not one of <f4, <i4, <i8"},
      {Described(">f4", "(1,)"), "'>f4' is big-endian"},
      {Described("<f4", "(2, 3)", "True"), "Fortran order, shape (2, 3)"},
      {Described("<f4", "7"), "shape is not a tuple"},
      {Described("<f4", "(7)"), "shape is a number, not a tuple"},
      {Described("<f4", "(-7,)"), "shape holds no size within int64 at '-7"},
      {Described("<f4", "(1.5, 2)"), "shape has no end at '.5"},
      {Described("<f4", "(9223372036854775808,)"), "no size within int64"},
      {Described("<f4", "(4294967296, 4294967296)"), "(4294967296, 4294967296) overflows int64"},
      {Described("<f4", "(1,)") + "x", "text after the dictionary at 'x'"},
      {Described(
           "<f4", "(" +
                      [] {
                        std::string s;
                        for (int i = 0; i < 65; ++i) s += "1,";
                        return s;
                      }() +
                      ")"),
       "over 64 dimensions"},
  };
  for (const auto& c : kCases) EXPECT_THAT(HeaderError(Npy(c.dictionary)), HasSubstr(c.message));
}

absl::StatusOr<std::unique_ptr<NpyReader>> Open(const std::string& bytes) {
  return NpyReader::Open(ByteSource::FromMemory(Bytes(bytes), "x.npy"));
}

TEST(NpyReader, ReadsInPieces) {
  const std::string bytes = Npy(Described("<f4", "(2, 3)")) + Raw<float>({1, 2, 3, 4, 5, 6});
  auto reader = Open(bytes);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<float> out(4);
  EXPECT_EQ(*(*reader)->ReadFloats(absl::MakeSpan(out)), 4);
  EXPECT_THAT(out, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(*(*reader)->ReadFloats(absl::MakeSpan(out)), 2);
  EXPECT_EQ(out[1], 6);
  EXPECT_EQ(*(*reader)->ReadFloats(absl::MakeSpan(out)), 0);
  EXPECT_EQ((*reader)->FractionRead(), 1);
}

TEST(NpyReader, NarrowsInt64) {
  std::vector<int64_t> ids(20'000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = i % 2 ? -int64_t(i) : int64_t(i);
  const std::string head = Npy(Described("<i8", "(20000,)"));
  const std::string good = head + Raw(ids);
  std::vector<int32_t> out(30'000);
  ASSERT_EQ(*(*Open(good))->ReadIds(absl::MakeSpan(out)), 20'000);
  EXPECT_EQ(out[19'999], -19'999);
  ids[19'998] = 1LL << 31;
  const std::string bad = head + Raw(ids);
  EXPECT_EQ(MessageOf((*Open(bad))->ReadIds(absl::MakeSpan(out))),
            "x.npy: id 2147483648 at element 19998 is beyond int32");
}

TEST(NpyReader, TruncatedAndTrailing) {
  std::vector<float> out(10);
  const std::string head = Npy(Described("<f4", "(3,)"));
  const std::string few = head + Raw<float>({1, 2}) + "xyz",
                    many = head + Raw<float>({1, 2, 3}) + "x";
  EXPECT_EQ(MessageOf((*Open(few))->ReadFloats(absl::MakeSpan(out))),
            "x.npy: the data ends after 2 of 3 elements of shape (3,)");
  EXPECT_EQ(MessageOf((*Open(many))->ReadFloats(absl::MakeSpan(out))),
            "x.npy: bytes follow the 3 elements of shape (3,)");
  EXPECT_THAT(MessageOf(Open(Npy(Described("<f4", "(0,)")) + "x")),
              HasSubstr("bytes follow the 0"));
  EXPECT_THAT(MessageOf(Open(head.substr(0, 30))), StartsWith("x.npy: npy header: length "));
  EXPECT_THAT(MessageOf(Open("")), StartsWith("x.npy: "));
}

TEST(NpyReader, HeaderLongerThanTheFirstLook) {
  const std::string bytes =
      Npy(Described("<i4", "(1,)") + std::string(60'000, ' ')) + Raw<int32_t>({7});
  int32_t id = 0;
  auto reader = Open(bytes);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(*(*reader)->ReadIds(absl::MakeSpan(&id, 1)), 1);
  EXPECT_EQ(id, 7);
}

TEST(NpyWriter, RoundTrip) {
  ScratchFolder folder;
  auto writer = NpyWriter::Create(folder / "x.npy", NpyType::kFloat32);
  ASSERT_TRUE(writer.ok()) << writer.status();
  std::vector<float> values(600'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 3;
  for (size_t at = 0; at < values.size(); at += 100'000) {
    ASSERT_TRUE((*writer)->Append(absl::MakeConstSpan(values).subspan(at, 100'000)).ok());
  }
  EXPECT_EQ((*writer)->elements(), 600'000);
  ASSERT_TRUE((*writer)->Commit({3, 200'000}).ok());
  auto reader = NpyReader::Open(*ByteSource::Open(folder / "x.npy"));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT((*reader)->header().shape, ElementsAre(3, 200'000));
  std::vector<float> read(600'001);
  ASSERT_EQ(*(*reader)->ReadFloats(absl::MakeSpan(read)), 600'000);
  read.pop_back();
  EXPECT_TRUE(read == values);
}

// What np.save(np.array([1, -2, 3], dtype=np.int32)) writes.
TEST(NpyWriter, BytesAreThoseOfNumPy) {
  ScratchFolder folder;
  auto writer = NpyWriter::Create(folder / "x.npy", NpyType::kInt32);
  ASSERT_TRUE((*writer)->Append(std::vector<int32_t>{1, -2, 3}).ok());
  ASSERT_TRUE((*writer)->Commit({3}, folder / "y.npy").ok());
  std::string dictionary = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }";
  dictionary.resize(117, ' ');
  EXPECT_EQ(ReadFile(folder / "y.npy"), Npy(dictionary + "\n") + Raw<int32_t>({1, -2, 3}));
  EXPECT_THAT(folder.Files(), ElementsAre("y.npy"));
}

TEST(NpyWriter, WrongShapeLeavesNothing) {
  ScratchFolder folder;
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{2, 2}, {1LL << 40, 1LL << 40}, {-3}, std::vector<int64_t>(60, 1)}) {
    auto writer = NpyWriter::Create(folder / "x.npy", NpyType::kInt32);
    ASSERT_TRUE((*writer)->Append(std::vector<int32_t>{1, -2, 3}).ok());
    EXPECT_THAT(MessageOf((*writer)->Commit(shape)), StartsWith((folder / "x.npy") + ": "));
    writer->reset();
    EXPECT_THAT(folder.Files(), IsEmpty());
  }
}

TEST(NpyWriter, FullDevice) {
  auto writer = NpyWriter::Create("/dev/full", NpyType::kInt32);
  ASSERT_TRUE((*writer)->Append(std::vector<int32_t>{1}).ok());
  EXPECT_EQ(MessageOf((*writer)->Commit({1})), "/dev/full: No space left on device");
}

}  // namespace
}  // namespace longwave

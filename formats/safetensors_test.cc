#include "formats/safetensors.h"

#include "formats/format_test_util.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string File(const std::string& json, int64_t data_size, int64_t length = -1) {
  std::string out;
  const uint64_t n = length < 0 ? json.size() : length;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(n >> (8 * i));
  return out + json + std::string(data_size, 'd');
}

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

std::string ErrorOf(const std::string& bytes) {
  const auto parsed = Safetensors::Parse(Bytes(bytes), "m.st");
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << parsed.status();
  EXPECT_THAT(MessageOf(parsed), StartsWith("m.st: "));
  return MessageOf(parsed);
}

// One tensor "t" with this shape and these offsets over 8 bytes of data.
std::string ErrorOfOne(const std::string& shape, const std::string& offsets) {
  return ErrorOf(File("{" + Entry("t", "F32", shape, offsets) + "}", 8));
}

TEST(Safetensors, ReadsTensorsInAnyOrderOfTheHeader) {
  const std::string bytes = File(
      "{" + Entry("b", "BF16", "[2,2]", "[4,12]") + ",\"__metadata__\":{\"format\":\"pt\"}," +
          Entry("a", "F32", "[]", "[0,4]") + "," + Entry("none", "I64", "[3,0]", "[4,4]") + "}    ",
      12);
  const auto file = Safetensors::Parse(Bytes(bytes), "m.st");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 3u);
  const auto b = (*file)->Find("b");
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(b->dtype, DType::kBF16);
  EXPECT_THAT(b->shape, ElementsAre(2, 2));
  EXPECT_EQ(b->data, Bytes(bytes).data() + bytes.size() - 8);
  EXPECT_EQ((*file)->Find("a")->elements(), 1);
  EXPECT_EQ((*file)->Find("none")->elements(), 0);
  EXPECT_TRUE((*file)->Contains("none"));
  EXPECT_FALSE((*file)->Contains("__metadata__"));
  const auto missing = (*file)->Find("c");
  EXPECT_TRUE(absl::IsNotFound(missing.status()));
  EXPECT_EQ(MessageOf(missing), "m.st: no tensor 'c'");
}

TEST(Safetensors, EveryDType) {
  for (DType type : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                     DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    const int64_t size = 3 * ByteSize(type);
    const std::string bytes =
        File("{" + Entry("t", Name(type), "[3]", "[0," + std::to_string(size) + "]") + "}", size);
    const auto file = Safetensors::Parse(Bytes(bytes), "m.st");
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->Find("t")->dtype, type);
  }
}

TEST(Safetensors, EmptyHeaderIsNoTensor) {
  EXPECT_TRUE(Safetensors::Parse(Bytes(File("{}", 0)), "m.st").ok());
}

TEST(Safetensors, HeaderLength) {
  EXPECT_EQ(ErrorOf(""), "m.st: 0 bytes are too few for a safetensors file");
  EXPECT_EQ(ErrorOf("1234567"), "m.st: 7 bytes are too few for a safetensors file");
  EXPECT_EQ(ErrorOf(File("{}", 0, 3)),
            "m.st: the header's length 3 reaches past the file's 10 bytes");
  EXPECT_EQ(ErrorOf(File("{}", 0, 100'000'001)),
            "m.st: the header's length 100000001 is beyond 100000000");
  EXPECT_THAT(ErrorOf(std::string(8, '\xff')), HasSubstr("length 18446744073709551615 is beyond"));
}

TEST(Safetensors, MalformedJson) {
  for (const char* json :
       {"", " ", "{", "{]", "{}x", "{}{}", "{\"a\"}", "{\"a\":1,}", "// c\n{}", "{\"\xff\":{}}",
        "{\"__metadata__\":{\"a\":\"\xc3\"}}", "{\"\\ud800\":{}}"}) {
    const std::string error = ErrorOf(File(json, 0));
    EXPECT_TRUE(error.find("malformed at byte") != error.npos || json == std::string("{\"a\":1,}"))
        << json << ": " << error;
  }
}

TEST(Safetensors, WrongTypes) {
  EXPECT_THAT(ErrorOf(File("[]", 0)), EndsWith("the header is an array, not an object"));
  EXPECT_THAT(ErrorOf(File("3", 0)), EndsWith("the header is 3, not an object"));
  EXPECT_THAT(ErrorOf(File("null", 0)), EndsWith("the header is null, not an object"));
  EXPECT_THAT(ErrorOf(File("{\"t\":true}", 0)), EndsWith("'t' is true, not an object"));
  EXPECT_THAT(ErrorOf(File("{\"t\":[]}", 0)), EndsWith("'t' is an array, not an object"));
  EXPECT_THAT(ErrorOf(File("{\"__metadata__\":{\"a\":1}}", 0)),
              EndsWith("__metadata__ 'a' is 1, not a string"));
  EXPECT_THAT(ErrorOf(File("{\"__metadata__\":\"a\"}", 0)), HasSubstr("not an object"));
  EXPECT_THAT(ErrorOf(File("{\"t\":{\"dtype\":3}}", 0)),
              HasSubstr("dtype is or holds 3 where a string"));
  EXPECT_THAT(ErrorOf(File("{\"t\":{\"other\":3}}", 0)), HasSubstr("'t': unknown key 'other'"));
  EXPECT_THAT(ErrorOf(File("{\"t\":{}}", 0)), EndsWith("tensor 't' has no dtype"));
  EXPECT_THAT(ErrorOf(File("{\"t\":{\"dtype\":\"F32\",\"shape\":[]}}", 0)),
              EndsWith("tensor 't' has no data_offsets"));
  EXPECT_THAT(ErrorOf(File("{" + Entry("t", "U64", "[1]", "[0,8]") + "}", 8)),
              EndsWith("tensor 't': dtype 'U64' is not supported"));
  EXPECT_THAT(ErrorOfOne("\"2\"", "[0,8]"), HasSubstr("shape is or holds '2' where sizes"));
  EXPECT_THAT(ErrorOfOne("[[2]]", "[0,8]"), HasSubstr("shape is or holds an array"));
  EXPECT_THAT(ErrorOfOne("{}", "[0,8]"), HasSubstr("shape is or holds an object"));
  EXPECT_THAT(ErrorOfOne("[\"2\"]", "[0,8]"), HasSubstr("shape is or holds '2'"));
  EXPECT_THAT(ErrorOfOne("[2]", "[0]"), HasSubstr("data_offsets holds 1 numbers, not 2"));
  EXPECT_THAT(ErrorOfOne("[2]", "[0,4,8]"), HasSubstr("data_offsets holds 3 numbers, not 2"));
}

TEST(Safetensors, WrongNumbers) {
  EXPECT_THAT(ErrorOfOne("[-2]", "[0,8]"),
              HasSubstr("'t': shape is or holds the negative number -2"));
  EXPECT_THAT(ErrorOfOne("[2]", "[-8,0]"),
              HasSubstr("data_offsets is or holds the negative number -8"));
  EXPECT_THAT(ErrorOfOne("[2.5]", "[0,8]"), HasSubstr("the number 2.5, not an integer"));
  EXPECT_THAT(ErrorOfOne("[2e0]", "[0,8]"), HasSubstr("not an integer"));
  EXPECT_THAT(ErrorOfOne("[9223372036854775808]", "[0,8]"),
              HasSubstr("9223372036854775808, which is beyond"));
  EXPECT_THAT(ErrorOfOne("[99999999999999999999999]", "[0,8]"),
              HasSubstr("not an integer within int64"));
  EXPECT_THAT(ErrorOfOne("[4294967296,4294967296]", "[0,8]"),
              HasSubstr("'t' F32 (4294967296, 4294967296) at [0, 8): the size overflows int64"));
  EXPECT_THAT(ErrorOfOne("[2305843009213693952]", "[0,8]"),
              HasSubstr("overflows"));  // only in bytes
  std::string ones = "[1";
  for (int i = 0; i < 40; ++i) ones += ",1";
  EXPECT_THAT(ErrorOfOne(ones + "]", "[0,8]"), HasSubstr("over 32 dimensions"));
}

TEST(Safetensors, DeepNesting) {
  EXPECT_THAT(ErrorOf(File(std::string(1'000'000, '['), 0)), HasSubstr("not an object"));
  std::string deep = "{\"t\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"t\":";
  EXPECT_THAT(ErrorOf(File(deep, 0)), HasSubstr("unknown key"));
}

TEST(Safetensors, Duplicates) {
  const std::string t = Entry("t", "F32", "[2]", "[0,8]");
  EXPECT_EQ(ErrorOf(File("{" + t + "," + t + "}", 8)), "m.st: 't' appears twice");
  EXPECT_EQ(ErrorOf(File("{" + t + "," + Entry("\\u0074", "F32", "[0]", "[8,8]") + "}", 8)),
            "m.st: 't' appears twice");
  EXPECT_THAT(ErrorOf(File("{\"__metadata__\":{},\"__metadata__\":{}}", 0)), HasSubstr("twice"));
  EXPECT_EQ(ErrorOf(File("{\"t\":{\"shape\":[2],\"shape\":[2]}}", 0)),
            "m.st: tensor 't': shape appears twice");
}

TEST(Safetensors, Offsets) {
  EXPECT_THAT(
      ErrorOfOne("[2]", "[8,0]"),
      EndsWith("'t' F32 (2,) at [8, 0): the offsets are not in order within the 8 bytes of data"));
  EXPECT_THAT(ErrorOfOne("[3]", "[0,12]"), HasSubstr("not in order within the 8 bytes"));
  EXPECT_THAT(ErrorOfOne("[0]", "[9223372036854775807,9223372036854775807]"),
              HasSubstr("not in order"));
  EXPECT_THAT(ErrorOfOne("[1]", "[0,8]"),
              EndsWith("dtype and shape need 4 bytes, the offsets hold 8"));
  EXPECT_THAT(ErrorOfOne("[0,5]", "[0,8]"), HasSubstr("need 0 bytes"));
  EXPECT_THAT(ErrorOfOne("[1]", "[0,4]"),
              EndsWith("no tensor has the bytes from 4 to the data's end at 8"));
  EXPECT_THAT(ErrorOfOne("[1]", "[4,8]"),
              EndsWith("'t' F32 (1,) at [4, 8): no tensor has the bytes from 0 up to it"));
  EXPECT_THAT(ErrorOf(File("{" + Entry("a", "F32", "[2]", "[0,8]") + "," +
                               Entry("b", "F32", "[1]", "[4,8]") + "}",
                           8)),
              EndsWith("tensor 'b' F32 (1,) at [4, 8) overlaps tensor 'a' F32 (2,) at [0, 8)"));
  EXPECT_THAT(ErrorOf(File("{}", 3)),
              EndsWith("no tensor has the bytes from 0 to the data's end at 3"));
}

TEST(Safetensors, LongAndBinaryNamesAreCutAndEscaped) {
  const std::string error = ErrorOf(File("{\"\\u0007" + std::string(5000, 'n') + "\":1}", 0));
  EXPECT_THAT(error, StartsWith("m.st: '\\x07nnn"));
  EXPECT_LT(error.size(), 300u);
}

TEST(Safetensors, LongKeysInPieces) {
  const std::string name(200'000, 'n');
  const std::string bytes = File("{" + Entry(name, "U8", "[1]", "[0,1]") + "}", 1);
  const auto file = Safetensors::Parse(Bytes(bytes), "m.st");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Contains(name));
}

TEST(Safetensors, OpenMapsAFile) {
  ScratchFolder folder;
  const std::string path =
      WriteFile(folder / "m.st", File("{" + Entry("t", "U8", "[3]", "[0,3]") + "}", 3));
  const auto file = Safetensors::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Find("t")->data[2], 'd');
  EXPECT_EQ((*file)->path(), path);
}

TEST(Safetensors, OpenErrorsNameThePath) {
  ScratchFolder folder;
  EXPECT_EQ(MessageOf(Safetensors::Open(folder / "none")),
            (folder / "none") + ": No such file or directory");
  EXPECT_EQ(MessageOf(Safetensors::Open(folder / ".")), (folder / ".") + ": Is a directory");
  EXPECT_EQ(MessageOf(Safetensors::Open("/dev/null")),
            "/dev/null: not a regular file, which mapping it into memory needs");
  const std::string empty = WriteFile(folder / "empty", "");
  EXPECT_EQ(MessageOf(Safetensors::Open(empty)),
            empty + ": 0 bytes are too few for a safetensors file");
}

TEST(ShapeString, LikePython) {
  EXPECT_EQ(ShapeString({}), "()");
  EXPECT_EQ(ShapeString({3}), "(3,)");
  EXPECT_EQ(ShapeString({64, 32, 2}), "(64, 32, 2)");
}

}  // namespace
}  // namespace longwave

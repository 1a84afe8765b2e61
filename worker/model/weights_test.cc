#include "worker/model/weights.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/format_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A file of one tensor "x" in memory, its data `offset` bytes from a cache line's start.
class OneTensor {
 public:
  template <typename T>
  OneTensor(const std::string& dtype, const std::vector<int64_t>& shape,
            const std::vector<T>& values, int offset = 0) {
    const size_t size = values.size() * sizeof(T);
    std::string header =
        absl::StrCat("{\"x\":{\"dtype\":\"", dtype, "\",\"shape\":[", absl::StrJoin(shape, ","),
                     "],\"data_offsets\":[0,", size, "]}}");
    while ((8 + header.size()) % 64 != static_cast<size_t>(offset)) header += ' ';
    const uint64_t length = header.size();
    bytes_.resize(64 + 8 + length + size);
    start_ = bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
    std::memcpy(start_, &length, 8);
    std::memcpy(start_ + 8, header.data(), length);
    if (size > 0) std::memcpy(start_ + 8 + length, values.data(), size);
    data_ = start_ + 8 + length;
    size_ = 8 + length + size;
  }

  std::shared_ptr<const Safetensors> file() const {
    auto parsed = Safetensors::Parse(absl::MakeConstSpan(start_, size_), "model.safetensors");
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? *parsed : nullptr;
  }
  const uint8_t* data() const { return data_; }

 private:
  std::vector<uint8_t> bytes_;
  uint8_t *start_, *data_;
  size_t size_;
};

// What loading "x" of `shape` says; "" where it succeeds.
std::string Refusal(const OneTensor& tensor, const std::vector<int64_t>& shape) {
  WeightLoader loader(tensor.file());
  const absl::StatusOr<const float*> loaded = loader.Load("x", shape);
  if (loaded.ok()) return "";
  EXPECT_TRUE(absl::IsInvalidArgument(loaded.status())) << loaded.status();
  EXPECT_EQ(loader.parameters(), 0);
  return MessageOf(loaded);
}

const std::vector<float> kSix = {1, -2, 0.5f, 0, 1e-40f, 3e38f};

TEST(WeightLoader, AlignedFloatsStayInTheFile) {
  const OneTensor tensor("F32", {2, 3}, kSix);
  WeightLoader loader(tensor.file());
  const absl::StatusOr<const float*> x = loader.Load("x", {2, 3});
  ASSERT_TRUE(x.ok()) << x.status();
  EXPECT_EQ(reinterpret_cast<const uint8_t*>(*x), tensor.data());
  EXPECT_EQ(std::vector<float>(*x, *x + 6), kSix);
  EXPECT_EQ(loader.parameters(), 6);
  EXPECT_EQ(loader.bytes(), 24);
  loader.CountBytes(100);
  EXPECT_EQ(loader.bytes(), 124);
}

TEST(WeightLoader, UnalignedFloatsAreCopied) {
  for (int offset : {1, 2, 3, 5, 63}) {
    const OneTensor tensor("F32", {6}, kSix, offset);
    WeightLoader loader(tensor.file());
    const absl::StatusOr<const float*> x = loader.Load("x", {6});
    ASSERT_TRUE(x.ok()) << x.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(*x) % alignof(float), 0u);
    EXPECT_EQ(std::memcmp(*x, kSix.data(), 24), 0);
  }
  for (int offset : {4, 12}) {  // aligned as floats: nothing to copy
    const OneTensor tensor("F32", {6}, kSix, offset);
    WeightLoader loader(tensor.file());
    EXPECT_EQ(reinterpret_cast<const uint8_t*>(*loader.Load("x", {6})), tensor.data());
  }
}

TEST(WeightLoader, OtherFloatsAreConverted) {
  const std::vector<float> want = {1, -2, 0.5f};
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x3800}, brain = {0x3f80, 0xc000, 0x3f00};
  for (int offset : {0, 1}) {
    const OneTensor files[] = {{"F16", {3}, half, offset},
                               {"BF16", {3}, brain, offset},
                               {"F64", {3}, std::vector<double>{1, -2, 0.5}, offset}};
    for (const OneTensor& tensor : files) {
      WeightLoader loader(tensor.file());
      const absl::StatusOr<const float*> x = loader.Load("x", {3});
      ASSERT_TRUE(x.ok()) << x.status();
      EXPECT_EQ(std::vector<float>(*x, *x + 3), want);
      EXPECT_EQ(loader.bytes(), 12);  // as they are in memory
    }
  }
}

TEST(WeightLoader, PointersLiveWithWhatIsOwned) {
  const OneTensor tensor("F32", {6}, kSix, 1);
  std::vector<std::shared_ptr<const void>> owned;
  const float* x = nullptr;
  {
    WeightLoader loader(tensor.file());
    x = *loader.Load("x", {6});
    owned = loader.TakeOwned();
  }
  EXPECT_EQ(std::vector<float>(x, x + 6), kSix);
}

TEST(WeightLoader, Missing) {
  WeightLoader loader(OneTensor("F32", {6}, kSix).file());
  const absl::StatusOr<const float*> loaded = loader.Load("layers.0.D", {6});
  EXPECT_TRUE(absl::IsNotFound(loaded.status()));
  EXPECT_THAT(MessageOf(loaded), AllOf(HasSubstr("'layers.0.D'"), HasSubstr("model.safetensors")));
}

TEST(WeightLoader, ShapesThatDiffer) {
  const OneTensor tensor("F32", {2, 3}, kSix);
  EXPECT_EQ(Refusal(tensor, {2, 3}), "");
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{3, 2}, {6}, {2, 3, 1}, {1, 2, 3}, {2, 4}, {}, {0}}) {
    EXPECT_THAT(Refusal(tensor, shape),
                AllOf(HasSubstr("model.safetensors: "), HasSubstr("'x'"),
                      HasSubstr("has shape (2, 3), not " + ShapeString(shape))));
  }
  EXPECT_THAT(Refusal(OneTensor("F32", {0, 3}, std::vector<float>()), {2, 3}),
              HasSubstr("has shape (0, 3), not (2, 3)"));
}

TEST(WeightLoader, TypesThatAreNotFloats) {
  for (const char* dtype : {"I64", "I32", "I16", "I8", "U8", "BOOL"}) {
    const int64_t size = dtype[1] == '6' ? 8 : dtype[1] == '3' ? 4 : dtype[1] == '1' ? 2 : 1;
    EXPECT_THAT(Refusal(OneTensor(dtype, {4}, std::vector<uint8_t>(4 * size)), {4}),
                AllOf(HasSubstr("'x'"), HasSubstr(absl::StrCat("type ", dtype, ", not F32"))));
  }
}

TEST(WeightLoader, NonFiniteSaysWhichElement) {
  constexpr int64_t kCount = 3000;  // of blocks of 1024, the last one partly
  for (const int64_t at : {0, 1, 1023, 1024, 2047, 2048, 2999}) {
    for (const float value : {NAN, -NAN, INFINITY, -INFINITY, std::nanf("1234")}) {
      for (const int offset : {0, 1}) {
        std::vector<float> values(kCount, 3e38f);
        values[at] = value;
        values[kCount - 1] = NAN;  // the first is said
        const std::string message = Refusal(OneTensor("F32", {kCount}, values, offset), {kCount});
        EXPECT_THAT(message, AllOf(HasSubstr("model.safetensors: "), HasSubstr("'x'")));
        EXPECT_THAT(message, testing::EndsWith(absl::StrCat("at element ", at)));
        EXPECT_THAT(message, HasSubstr(std::isinf(at == kCount - 1 ? NAN : value) ? "inf" : "nan"));
      }
    }
  }
  for (const uint16_t value : {0x7c00, 0xfc00, 0x7e00}) {
    EXPECT_THAT(Refusal(OneTensor("F16", {3}, std::vector<uint16_t>{0, 0, value}), {3}),
                HasSubstr("element 2"));
  }
  for (const uint16_t value : {0x7f80, 0xff80, 0x7fc0}) {
    EXPECT_THAT(Refusal(OneTensor("BF16", {3}, std::vector<uint16_t>{0, value, 0}), {3}),
                HasSubstr("element 1"));
  }
  for (const double value : {double{NAN}, double{INFINITY}, 1e300}) {  // beyond float32, too
    EXPECT_THAT(Refusal(OneTensor("F64", {2}, std::vector<double>{value, 0}), {2}),
                HasSubstr("element 0"));
  }
}

TEST(WeightLoader, NormsNeedBothTensors) {
  WeightLoader loader(OneTensor("F32", {6}, kSix).file());
  const absl::StatusOr<LayerNormWeights> norm = loader.LoadNorm("norm.", 6, 1e-5);
  EXPECT_TRUE(absl::IsNotFound(norm.status()));
  EXPECT_THAT(MessageOf(norm), HasSubstr("'norm.weight'"));
}

}  // namespace
}  // namespace longwave

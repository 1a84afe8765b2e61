#include "formats/boundary.h"

#include <limits>
#include <random>

#include "formats/byte_codec.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

Boundary Some() {
  Boundary boundary;
  boundary.model_hash = HexSha256("model");
  boundary.position = int64_t{1} << 40;
  boundary.carry = {1.5, -2.25};
  boundary.tensors = {{"layers.0.halo", {2, 3}, {1, 2, 3, 4, 5, std::numeric_limits<float>::min()}},
                      {"layers.0.ssm", {}, {-0.0f}}};
  return boundary;
}

// `content` with the checksum it should have.
std::string Signed(std::string content) {
  Sha256 hash;
  hash.Add(content);
  return content + hash.Digest();
}

TEST(Boundary, ComesBackAsItWas) {
  for (const Boundary& boundary : {Some(), Boundary{HexSha256(""), 0, {}, {}}}) {
    const auto bytes = FormatBoundary(boundary);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const auto again = ParseBoundary(*bytes);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, boundary);
    EXPECT_EQ(*FormatBoundary(*again), *bytes);
  }
}

TEST(Boundary, WriterRefusesWhatTheLayoutCannotHold) {
  std::string bytes;
  const auto append = [&](absl::string_view piece) {
    bytes.append(piece.data(), piece.size());
    return absl::OkStatus();
  };
  const std::string hash = HexSha256("model"), values(8, 'v');
  EXPECT_THAT(BoundaryWriter(append).Begin("model", 0, 0).message(), HasSubstr("\"model\""));
  EXPECT_THAT(BoundaryWriter(append).Begin(hash, -1, 0).message(), HasSubstr("position -1"));
  EXPECT_EQ(bytes, "");
  BoundaryWriter writer(append);
  EXPECT_TRUE(writer.Begin(hash, 0, 2).ok());
  EXPECT_TRUE(writer.Tensor("a", {2}, values).ok());
  EXPECT_THAT(writer.End({}).message(), HasSubstr("1 tensors too few"));
  EXPECT_TRUE(writer.Tensor("b", {2, 1}, values).ok());
  EXPECT_THAT(writer.Tensor("c", {2}, values).message(), HasSubstr("\"c\""));
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{3}, {-2}, std::vector<int64_t>(9, 1)}) {
    BoundaryWriter other(append);
    EXPECT_TRUE(other.Begin(hash, 0, 1).ok());
    EXPECT_THAT(other.Tensor("d", shape, values).message(), HasSubstr("8 bytes"));
  }
  BoundaryWriter full([](absl::string_view) { return absl::ResourceExhaustedError("full"); });
  EXPECT_EQ(full.Begin(hash, 0, 0).message(), "full");
}

TEST(Boundary, EveryChangedBitAndEveryLengthIsRefused) {
  const std::string bytes = *FormatBoundary(Some());
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(ParseBoundary(bytes.substr(0, i)).ok()) << i;
    std::string changed = bytes;
    changed[i] ^= 1 << (i % 8);
    EXPECT_FALSE(ParseBoundary(changed).ok()) << i;
  }
  EXPECT_TRUE(absl::IsDataLoss(ParseBoundary(bytes + "x").status()));
}

TEST(Boundary, LengthsThatLieAreRefusedThoughTheChecksumIsRight) {
  const std::string bytes = *FormatBoundary(Some());
  const std::string content = bytes.substr(0, bytes.size() - Sha256::kBytes);
  for (size_t i = 8 + 64 + 8; i + 4 <= content.size(); ++i) {
    std::string changed = content;
    for (int k = 0; k < 4; ++k) changed[i + k] = '\xff';
    const auto parsed = ParseBoundary(Signed(changed));  // a value may change; nothing may crash
    EXPECT_TRUE(!parsed.ok() || parsed->tensors.size() == 2) << i;
  }
  EXPECT_FALSE(ParseBoundary(Signed(content + "x")).ok());
  EXPECT_FALSE(ParseBoundary(Signed(content.substr(0, content.size() - 1))).ok());
}

TEST(Boundary, IsOfOneModelAndOnePosition) {
  const Boundary boundary = Some();
  EXPECT_TRUE(CheckBoundary(boundary, boundary.model_hash, boundary.position).ok());
  const absl::Status model = CheckBoundary(boundary, HexSha256("other"), boundary.position);
  EXPECT_TRUE(absl::IsFailedPrecondition(model));
  EXPECT_THAT(model.message(), HasSubstr(HexSha256("other")));
  const absl::Status position = CheckBoundary(boundary, boundary.model_hash, 7);
  EXPECT_THAT(position.message(), HasSubstr("1099511627776, not 7"));
}

TEST(Boundary, WhatItCannotHoldIsRefused) {
  Boundary boundary = Some();
  boundary.tensors[0].values.pop_back();
  EXPECT_THAT(FormatBoundary(boundary).status().message(), HasSubstr("layers.0.halo"));
  boundary = Some();
  boundary.model_hash = "none";
  EXPECT_FALSE(FormatBoundary(boundary).ok());
}

TEST(Sha256, KnownDigests) {
  EXPECT_EQ(HexSha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(absl::IsNotFound(HexSha256OfFile("/nowhere").status()));
}

}  // namespace
}  // namespace longwave

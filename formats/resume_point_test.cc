#include "formats/resume_point.h"

#include <gtest/gtest.h>

#include "formats/sha256.h"

namespace longwave {
namespace {

ResumePoint Example() {
  ResumePoint point;
  point.identity = "score chunk=8192";
  point.done = {{"chr1", 1000, 1.25, "out.chr1.npy", 4128, 123456789},
                {"chr2", 1, std::nullopt, "", 0, 0}};
  point.done_digest = HexSha256("a");
  point.digest = HexSha256("b");
  point.elements = 77;
  point.output_digest = HexSha256("c");
  point.boundary.model_hash = HexSha256("model");
  point.boundary.position = 8192;
  point.boundary.carry = {0.5};
  point.boundary.tensors = {{"layers.0.ssm", {2, 2}, {1, 2, 3, 4}}};
  return point;
}

TEST(ResumePoint, RoundTrip) {
  const auto bytes = FormatResumePoint(Example());
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const auto parsed = ParseResumePoint(*bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Example());
}

TEST(ResumePoint, EveryChangedBitIsNoticed) {
  const std::string bytes = *FormatResumePoint(Example());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] ^= 1 << (i % 8);
    EXPECT_FALSE(ParseResumePoint(changed).ok()) << i;
    EXPECT_FALSE(ParseResumePoint(bytes.substr(0, i)).ok()) << i;
  }
  EXPECT_FALSE(ParseResumePoint(bytes + "x").ok());
}

TEST(ResumePoint, WhatABoundaryCannotHoldIsRefused) {
  ResumePoint point = Example();
  point.boundary.model_hash = "x";
  EXPECT_TRUE(absl::IsInvalidArgument(FormatResumePoint(point).status()));
}

}  // namespace
}  // namespace longwave

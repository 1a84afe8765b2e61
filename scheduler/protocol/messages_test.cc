#include "scheduler/protocol/messages.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::HasSubstr;

std::vector<Message> All() {
  const ChunkKey key{"0123456789abcdef", int64_t{1} << 40, 7};
  Assign assign{
      key, {"jobs/a/1/2.boundary", "feed"}, "a/1/2", "tcp://10.0.0.7:4000", "h3-dna", "cafe", 2};
  assign.chunk_tokens = 8192;
  assign.sampling = "256 0.5 0 1 7";
  assign.first = 16384;
  assign.tokens = 8192;
  assign.length = 4938920;
  assign.given = 4938665;
  assign.first_token = 12;
  assign.start_position = 17;
  assign.token_bytes = 1;
  assign.serial = true;
  assign.last = true;
  assign.trace = true;
  return {Hello{2, "cpu", "tcp://10.0.0.7:4000", 5000, "1b4e28ba"},
          Report{2, 1 << 20, {key, {"b", 0, 1}}},
          Done{key, 32768, "aa", "bb", 1500},
          Failed{key, true, std::string("token id 300\0x", 14)},
          HandBack{key},
          Goodbye{true},
          Welcome{"file:///data/objects", "/models", 1000, 6000},
          assign,
          BoundaryReady{key, {"jobs/a/1/2.boundary", "feed"}},
          Committed{key},
          Dropped{key, "an older epoch"},
          Unknown{},
          Drain{},
          Redirect{"tcp://10.0.0.8:7001"}};
}

TEST(Messages, EachComesBackAsItWas) {
  const std::vector<Message> all = All();
  ASSERT_EQ(all.size(), std::variant_size_v<Message>);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i].index(), i);
    const auto again = Decode(Encode(all[i]));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(*again == all[i]) << Name(all[i]);
  }
}

// Fuzzing starts from messages that are read: after a change of the protocol, from those that are
// read now. LONGWAVE_WRITE_SEEDS=1 writes them.
TEST(Messages, TheFuzzersSeedsAreThese) {
  for (const Message& message : All()) {
    const std::string path =
        absl::StrCat(LONGWAVE_SOURCE_DIR, "/tests/fuzz/corpus/fuzz_messages/seed_", Name(message));
    if (std::getenv("LONGWAVE_WRITE_SEEDS") != nullptr) {
      std::ofstream(path, std::ios::binary) << Encode(message);
    }
    std::ifstream in(path, std::ios::binary);
    const std::string seed{std::istreambuf_iterator<char>(in), {}};
    EXPECT_TRUE(seed == Encode(message))
        << path << " is not what is sent now: LONGWAVE_WRITE_SEEDS=1 writes it";
  }
}

TEST(Messages, EveryOtherLengthIsRefused) {
  for (const Message& message : All()) {
    const std::string bytes = Encode(message);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(Decode(bytes.substr(0, size)).ok()) << Name(message) << size;
    }
    EXPECT_THAT(Decode(bytes + "x").status().message(), HasSubstr("1 bytes too many"));
  }
  EXPECT_FALSE(Decode(std::string(kMaxMessageBytes + 1, 'L')).ok());
}

TEST(Messages, WhatNoSenderSaysIsRefused) {
  EXPECT_FALSE(Decode("Lx").ok());
  EXPECT_FALSE(Decode(std::string("\x4d\0", 2)).ok());
  EXPECT_FALSE(Decode(Encode(Report{-1, 0, {}})).ok());
  EXPECT_FALSE(Decode(Encode(HandBack{{"a", -1, 1}})).ok());
  EXPECT_FALSE(Decode(Encode(Report{1, 1, std::vector<ChunkKey>(kMostSlots + 1)})).ok());
  std::string failed = Encode(Failed{{"", 0, 1}, true, ""});
  failed[2 + 4 + 8 + 8] = 2;
  EXPECT_THAT(Decode(failed).status().message(), HasSubstr("Failed: a number out of its range"));
}

}  // namespace
}  // namespace longwave

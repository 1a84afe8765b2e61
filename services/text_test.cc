#include "services/text.h"

#include <limits>

#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(Text, Commas) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(4938920), "4,938,920");
  EXPECT_EQ(WithCommas(-123), "-123");
  EXPECT_EQ(WithCommas(-1234), "-1,234");
  EXPECT_EQ(WithCommas(std::numeric_limits<int64_t>::max()), "9,223,372,036,854,775,807");
}

TEST(Text, Bytes) {
  EXPECT_EQ(HumanBytes(0), "0 bytes");
  EXPECT_EQ(HumanBytes(1023), "1023 bytes");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(int64_t{8} << 30), "8.0 GiB");
}

TEST(Text, ParsesBytes) {
  EXPECT_EQ(ParseBytes("0").value(), 0);
  EXPECT_EQ(ParseBytes("1000").value(), 1000);
  EXPECT_EQ(ParseBytes("64k").value(), 64 << 10);
  EXPECT_EQ(ParseBytes("512MB").value(), 512 << 20);
  EXPECT_EQ(ParseBytes("8GiB").value(), int64_t{8} << 30);
  for (const char* text : {"", "B", "G", "-1", "1.5G", "8 GB of RAM", "9e9", "9223372036854775808",
                           "99999999999T", "8GG"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

TEST(Text, Seconds) {
  EXPECT_EQ(HumanSeconds(0.125), "0.12 s");
  EXPECT_EQ(HumanSeconds(12.34), "12.3 s");
  EXPECT_EQ(HumanSeconds(59.96), "1:00");
  EXPECT_EQ(HumanSeconds(3723), "1:02:03");
}

TEST(Text, Utf8) {
  EXPECT_EQ(ToUtf8("caf\xC3\xA9 \xF0\x9F\xA7\xAC"), "caf\xC3\xA9 \xF0\x9F\xA7\xAC");
  EXPECT_EQ(ToUtf8("a\xFF"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(ToUtf8("\xC3"), "\xEF\xBF\xBD");                                  // cut short
  EXPECT_EQ(ToUtf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong
  EXPECT_EQ(ToUtf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
}

TEST(Text, BaseName) {
  EXPECT_EQ(BaseName("a/b/c.fa"), "c.fa");
  EXPECT_EQ(BaseName("c.fa"), "c.fa");
  EXPECT_EQ(BaseName("-"), "standard input");
}

}  // namespace
}  // namespace longwave

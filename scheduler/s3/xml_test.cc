#include "scheduler/s3/xml.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

TEST(XmlTest, ElementsTextAndEntities) {
  const auto root = ParseXml(
      "\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>\n<!-- x > y -->\n"
      "<s3:List xmlns='http://x/' xmlns:s3 = \"a>b\" >\n"
      "  <Key>a&amp;b&lt;&gt;&quot;&apos;&#65;&#x20ac;</Key><Empty/><Empty2></Empty2 >\n"
      "  <Key>second<!-- no --> one</Key><Raw><![CDATA[<&]]></Raw></s3:List>\n<!--end-->");
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->name, "List");
  ASSERT_EQ(root->children.size(), 5u);
  EXPECT_EQ(root->ChildText("Key"), "a&b<>\"'A\xe2\x82\xac");
  EXPECT_EQ(root->children[3].text, "second one");
  EXPECT_EQ(root->ChildText("Raw"), "<&");
  EXPECT_EQ(root->ChildText("Empty"), "");
  EXPECT_EQ(root->Child("None"), nullptr);
}

TEST(XmlTest, RefusesWhatIsWrong) {
  for (const char* bad : {"",
                          "x",
                          "<",
                          "<a",
                          "<a>",
                          "<a></b>",
                          "<a><b></a></b>",
                          "<a/><b/>",
                          "<a/>x",
                          "< a/>",
                          "<a b/>",
                          "<a b=c/>",
                          "<a b='c/>",
                          "<ab='c'/>",
                          "<a>&</a>",
                          "<a>&;</a>",
                          "<a>&nbsp;</a>",
                          "<a>&#0;</a>",
                          "<a>&#xd800;</a>",
                          "<a>&#x110000;</a>",
                          "<a>&#-5;</a>",
                          "<a>&#x;</a>",
                          "<a>&#99999999999;</a>",
                          "<a><!-- </a>",
                          "<a><![CDATA[x</a>",
                          "<a:></a:>",
                          "<?xml <a/>",
                          "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
                          "<a><!ELEMENT b></a>"}) {
    const auto root = ParseXml(bad);
    EXPECT_TRUE(absl::IsInvalidArgument(root.status())) << bad;
    EXPECT_THAT(root.status().message(), ::testing::HasSubstr("wrong at byte"));
  }
}

TEST(XmlTest, DepthIsLimited) {
  const auto nested = [](int depth) {
    std::string open, close;
    for (int i = 0; i < depth; ++i) {
      absl::StrAppend(&open, "<a>");
      absl::StrAppend(&close, "</a>");
    }
    return open + close;
  };
  EXPECT_TRUE(ParseXml(nested(kMostXmlDepth)).ok());
  EXPECT_FALSE(ParseXml(nested(kMostXmlDepth + 1)).ok());
  EXPECT_FALSE(ParseXml(nested(1000000)).ok());
}

TEST(XmlTest, Escapes) {
  const std::string text = "<a & \"b\">";
  const auto root = ParseXml(absl::StrCat("<x>", EscapeXml(text), "</x>"));
  ASSERT_TRUE(root.ok()) << root.status();
  EXPECT_EQ(root->text, text);
}

}  // namespace
}  // namespace longwave

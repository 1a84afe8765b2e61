#include "scheduler/s3/config.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using Variables = std::map<std::string, std::string>;

absl::StatusOr<S3Config> Read(const std::string& uri, Variables variables = {}) {
  variables.insert({{"AWS_ACCESS_KEY_ID", "id"}, {"AWS_SECRET_ACCESS_KEY", "secret"}});
  return ReadS3Config(uri, [&](const char* name) { return variables[name]; });
}

TEST(S3ConfigTest, AmazonWithoutAnEndpoint) {
  auto config = Read("s3://bucket/a/b/", {{"AWS_REGION", "eu-west-1"}, {"AWS_SESSION_TOKEN", "t"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->url, "https://bucket.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(config->uri(), "s3://bucket/a/b");
  EXPECT_EQ(config->region, "eu-west-1");
  EXPECT_EQ(config->session_token, "t");
  config = Read("s3://my.bucket", {{"AWS_DEFAULT_REGION", "cn-north-1"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->url, "https://s3.cn-north-1.amazonaws.com.cn/my.bucket");
  EXPECT_EQ(config->uri(), "s3://my.bucket");
}

TEST(S3ConfigTest, AnEndpointHasTheBucketInThePath) {
  auto config = Read("s3://bucket/a", {{"AWS_ENDPOINT_URL", "http://127.0.0.1:9000/"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->url, "http://127.0.0.1:9000/bucket");
  EXPECT_EQ(config->region, "us-east-1");
  config = Read("s3://bucket", {{"AWS_ENDPOINT_URL", "http://all"},
                                {"AWS_ENDPOINT_URL_S3", "https://s3.local/base"},
                                {"AWS_REGION", "here"},
                                {"AWS_DEFAULT_REGION", "there"},
                                {"AWS_CA_BUNDLE", "/ca.pem"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->url, "https://s3.local/base/bucket");
  EXPECT_EQ(config->region, "here");
  EXPECT_EQ(config->ca_file, "/ca.pem");
}

TEST(S3ConfigTest, RefusalsNameWhatIsWrong) {
  const Variables region = {{"AWS_REGION", "eu-west-1"}};
  const auto error = [](const std::string& uri, Variables variables) {
    const auto config = Read(uri, std::move(variables));
    EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << config.status();
    return std::string(config.status().message());
  };
  using ::testing::HasSubstr;
  for (const char* bucket : {"", "ab", "UPPER", "-a-b", "a_b", "bucket:1", "a%2fb"}) {
    EXPECT_THAT(error(std::string("s3://") + bucket + "/x", region), HasSubstr("bucket"));
  }
  EXPECT_THAT(error("s3://bucket/a b", region), HasSubstr("a b"));
  EXPECT_THAT(error("s3://bucket/../x", region), HasSubstr("../x"));
  EXPECT_THAT(error("s3://bucket//a", region), HasSubstr("prefix"));
  EXPECT_THAT(error("s3://bucket", {}), HasSubstr("AWS_REGION"));
  EXPECT_THAT(error("s3://bucket", {{"AWS_REGION", "a/b"}}), HasSubstr("a/b"));
  for (const char* endpoint : {"127.0.0.1:9000", "ftp://x", "http://", "http:///x", "http://a b",
                               "http://a?b", "http://user@host"}) {
    EXPECT_THAT(error("s3://bucket", {{"AWS_ENDPOINT_URL", endpoint}}),
                HasSubstr("AWS_ENDPOINT_URL"));
  }
  EXPECT_THAT(error("s3://bucket", {{"AWS_REGION", "x"}, {"AWS_ACCESS_KEY_ID", ""}}),
              HasSubstr("AWS_ACCESS_KEY_ID"));
  EXPECT_THAT(error("s3://bucket", {{"AWS_REGION", "x"}, {"AWS_SECRET_ACCESS_KEY", ""}}),
              HasSubstr("AWS_SECRET_ACCESS_KEY"));
}

}  // namespace
}  // namespace longwave

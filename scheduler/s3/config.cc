#include "scheduler/s3/config.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "scheduler/object_store.h"

namespace longwave {
namespace {

constexpr absl::string_view kScheme = "s3://";

bool IsBucketName(absl::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && absl::ascii_isalnum(name.front()) &&
         absl::ascii_isalnum(name.back()) && std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-' || c == '.';
         });
}

// What stands in a host name and in what is signed.
bool IsRegion(absl::string_view region) {
  return !region.empty() && std::all_of(region.begin(), region.end(),
                                        [](char c) { return absl::ascii_isalnum(c) || c == '-'; });
}

bool IsEndpoint(absl::string_view url) {
  if (!absl::ConsumePrefix(&url, "http://") && !absl::ConsumePrefix(&url, "https://")) return false;
  return !url.empty() && url.front() != '/' && std::all_of(url.begin(), url.end(), [](char c) {
    return absl::ascii_isgraph(c) && c != '?' && c != '#' && c != '@' && c != '%';
  });
}

// Amazon's own: the bucket is part of the host, unless a dot in it would not fit the certificate.
std::string AmazonUrl(const S3Config& config) {
  const std::string host = absl::StrCat("s3.", config.region, ".amazonaws.com",
                                        absl::StartsWith(config.region, "cn-") ? ".cn" : "");
  if (absl::StrContains(config.bucket, '.')) {
    return absl::StrCat("https://", host, "/", config.bucket);
  }
  return absl::StrCat("https://", config.bucket, ".", host);
}

}  // namespace

std::string S3Config::uri() const {
  return absl::StrCat(kScheme, bucket, prefix.empty() ? "" : "/", prefix);
}

std::string EnvironmentVariable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<S3Config> ReadS3Config(
    const std::string& uri, const std::function<std::string(const char* name)>& variable) {
  const auto refuse = [&uri](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("object store ", uri, ": ", why));
  };
  absl::string_view rest = uri;
  if (!absl::ConsumePrefix(&rest, kScheme)) return refuse("must be s3://BUCKET/PREFIX");
  S3Config config;
  const size_t slash = std::min(rest.find('/'), rest.size());
  config.bucket = std::string(rest.substr(0, slash));
  rest.remove_prefix(slash);
  absl::ConsumePrefix(&rest, "/");
  absl::ConsumeSuffix(&rest, "/");
  config.prefix = std::string(rest);
  if (!IsBucketName(config.bucket)) {
    return refuse(absl::StrCat("\"", config.bucket, "\" is no name of a bucket"));
  }
  if (!config.prefix.empty() && !CheckObjectName(config.prefix).ok()) {
    return refuse(absl::StrCat("\"", config.prefix, "\" is no prefix of objects' names"));
  }
  config.key_id = variable("AWS_ACCESS_KEY_ID");
  config.secret = variable("AWS_SECRET_ACCESS_KEY");
  config.session_token = variable("AWS_SESSION_TOKEN");
  config.ca_file = variable("AWS_CA_BUNDLE");
  if (config.key_id.empty()) return refuse("AWS_ACCESS_KEY_ID is not set");
  if (config.secret.empty()) return refuse("AWS_SECRET_ACCESS_KEY is not set");
  std::string endpoint = variable("AWS_ENDPOINT_URL_S3");
  if (endpoint.empty()) endpoint = variable("AWS_ENDPOINT_URL");
  config.region = variable("AWS_REGION");
  if (config.region.empty()) config.region = variable("AWS_DEFAULT_REGION");
  if (config.region.empty() && !endpoint.empty()) config.region = "us-east-1";
  if (config.region.empty()) return refuse("neither AWS_REGION nor AWS_DEFAULT_REGION is set");
  if (!IsRegion(config.region)) {
    return refuse(absl::StrCat("AWS_REGION \"", config.region, "\" is no region"));
  }
  while (absl::EndsWith(endpoint, "/")) endpoint.pop_back();
  if (endpoint.empty()) {
    config.url = AmazonUrl(config);
  } else if (!IsEndpoint(endpoint)) {
    return refuse(
        absl::StrCat("AWS_ENDPOINT_URL \"", endpoint, "\": must be http(s)://HOST[:PORT]"));
  } else {
    config.url = absl::StrCat(endpoint, "/", config.bucket);
  }
  return config;
}

}  // namespace longwave

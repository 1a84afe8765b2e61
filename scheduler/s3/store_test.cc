// What only S3 has: refusals, faults between here and there, and attempts again.
#include "scheduler/s3/store.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/testing/s3_server.h"

namespace longwave {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kPart = 5 << 20;

std::string Answer(absl::string_view status, absl::string_view code,
                   absl::string_view headers = "") {
  const std::string body = absl::StrCat("<?xml version=\"1.0\"?><Error><Code>", code,
                                        "</Code><Message>not\nnow</Message></Error>");
  return absl::StrCat("HTTP/1.1 ", status, "\r\n", headers, "Content-Length: ", body.size(),
                      "\r\n\r\n", body);
}
const std::string kSlowDown = Answer("503 Slow Down", "SlowDown");

class S3StoreTest : public ::testing::Test {
 protected:
  S3StoreTest() : config_(TestS3Config(absl::StrCat("faults/", ++counter_), proxy_.port())) {}
  void SetUp() override { Open(); }
  void Open() {
    auto store = OpenS3Store(config_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  static int counter_;
  FaultProxy proxy_{S3Server::Shared().port()};
  S3Config config_;
  std::unique_ptr<ObjectStore> store_;
};
int S3StoreTest::counter_ = 0;

TEST_F(S3StoreTest, WrongCredentialsAndBucketsAreSaid) {
  config_.secret = "wrong";
  absl::Status opened = OpenS3Store(config_).status();
  EXPECT_TRUE(absl::IsPermissionDenied(opened)) << opened;
  EXPECT_THAT(opened.message(), AllOf(HasSubstr("s3://longwave"), HasSubstr("HTTP 403"),
                                      HasSubstr("SignatureDoesNotMatch")));
  config_ = TestS3Config("x", proxy_.port());
  config_.key_id = "nobody";
  EXPECT_TRUE(absl::IsPermissionDenied(OpenS3Store(config_).status()));
  config_ = TestS3Config("x", proxy_.port());
  config_.bucket = "other";
  config_.url = absl::StrCat("http://127.0.0.1:", proxy_.port(), "/other");
  opened = OpenS3Store(config_).status();
  EXPECT_TRUE(absl::IsNotFound(opened)) << opened;
  EXPECT_THAT(opened.message(), AllOf(HasSubstr("s3://other"), HasSubstr("NoSuchBucket")));
}

TEST_F(S3StoreTest, SessionTokensAreSent) {
  config_.session_token = "token";
  Open();
  EXPECT_TRUE(store_->Write("a", "x").ok());
  EXPECT_EQ(*store_->ReadAll("a", 1), "x");
}

TEST_F(S3StoreTest, ServersThatRefuseForAWhileOnlyDelay) {
  const std::string bytes(2 * kPart + 5, 'x');
  for (const std::string& answer :
       {kSlowDown, Answer("500 Oh", "InternalError"), Answer("429 Slower", "Whatever"),
        Answer("400 Bad", "RequestTimeout"),
        std::string("HTTP/1.1 502 Bad Gateway\r\n"
                    "Content-Length: 4\r\n\r\nbad!")}) {
    proxy_.Answer(12, answer);
    EXPECT_TRUE(store_->Write("small", "abc").ok());
    proxy_.Answer(3, answer);
    EXPECT_EQ(*store_->Read("small", 0, 10), "abc");
    proxy_.Answer(3, answer);
    EXPECT_THAT(*store_->List("small2"), IsEmpty());
    proxy_.Answer(3, answer);
    EXPECT_TRUE(store_->Delete("small").ok());
  }
  auto writer = *store_->Create("large");
  for (size_t done = 0; done < bytes.size(); done += kPart) {
    proxy_.Answer(3, kSlowDown);
    ASSERT_TRUE(writer->Append(bytes.substr(done, kPart)).ok());
  }
  proxy_.Answer(3, kSlowDown);
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_TRUE(*store_->ReadAll("large", 1 << 30) == bytes);
}

TEST_F(S3StoreTest, AServerThatRefusesForLongIsUnavailable) {
  config_.total_ms = 200;
  Open();
  proxy_.Answer(1 << 30, kSlowDown);
  const absl::Status written = store_->Write("jobs/a", "abc").status();
  EXPECT_TRUE(absl::IsUnavailable(written)) << written;
  EXPECT_THAT(written.message(), AllOf(HasSubstr("jobs/a"), HasSubstr("HTTP 503 SlowDown: not?now"),
                                       HasSubstr("attempts in")));
  proxy_.Clear();
  EXPECT_TRUE(store_->Write("jobs/a", "abc").ok());
}

TEST_F(S3StoreTest, AskedToWaitWaitsNoLongerThanItsOwnLongestPause) {
  proxy_.Answer(2, Answer("503 Slow Down", "SlowDown", "Retry-After: 3600\r\n"));
  EXPECT_TRUE(store_->Write("a", "abc").ok());
}

TEST_F(S3StoreTest, OtherRefusalsAreFinal) {
  const int64_t before = proxy_.requests();
  proxy_.Answer(1, Answer("400 Bad", "MalformedXML"));
  EXPECT_EQ(store_->Write("a", "x").status().code(), absl::StatusCode::kUnknown);
  proxy_.Answer(1, Answer("507 Full", "InsufficientStorage"));
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Write("a", "x").status()));
  proxy_.Answer(1, Answer("400 Bad", "ExpiredToken"));
  EXPECT_TRUE(absl::IsPermissionDenied(store_->Write("a", "x").status()));
  proxy_.Answer(1, Answer("301 Elsewhere", "PermanentRedirect", "x-amz-bucket-region: far-1\r\n"));
  EXPECT_THAT(store_->Write("a", "x").status().message(),
              HasSubstr("the bucket is in far-1, AWS_REGION is us-east-1"));
  EXPECT_EQ(proxy_.requests() - before, 4);
}

TEST_F(S3StoreTest, ConnectionsThatAreCutAreMadeAgain) {
  const std::string bytes(2 * kPart + 5, 'y');
  for (int64_t cut : {0, 10, 1000, 300000}) {
    proxy_.CutRequest(2, cut);
    ASSERT_TRUE(store_->Write("large", bytes).ok()) << cut;
    proxy_.CutAnswer(2, cut);
    EXPECT_TRUE(*store_->Read("large", 0, 1 << 30) == bytes) << cut;
  }
}

// The upload was complete, but nobody heard of it.
TEST_F(S3StoreTest, AnAnswerThatIsLostIsNotAFailure) {
  auto writer = *store_->Create("large");
  ASSERT_TRUE(writer->Append(std::string(kPart + 1, 'z')).ok());
  ASSERT_TRUE(writer->Append(std::string(kPart, 'z')).ok());
  proxy_.Pass(1);  // the last part
  proxy_.CutAnswer(1, 0);
  proxy_.Answer(1, Answer("404 Not Found", "NoSuchUpload"));
  const auto info = writer->Commit();
  EXPECT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(*store_->Size("large"), static_cast<int64_t>(2 * kPart + 1));
  // Another's upload is not taken for it.
  writer = *store_->Create("large");
  ASSERT_TRUE(writer->Append(std::string(kPart + 1, 'z')).ok());
  proxy_.Pass(1);
  proxy_.Answer(1, Answer("404 Not Found", "NoSuchUpload"));
  EXPECT_TRUE(absl::IsNotFound(writer->Commit().status()));
}

TEST_F(S3StoreTest, AServerThatSaysNothingIsGivenUp) {
  config_.attempt_ms = 100;
  Open();
  proxy_.Stall(2);
  EXPECT_TRUE(store_->Write("a", "abc").ok());
  config_.total_ms = 150;
  Open();
  proxy_.Stall(1 << 30);
  const absl::Status size = store_->Size("a").status();
  EXPECT_TRUE(absl::IsUnavailable(size)) << size;
}

TEST_F(S3StoreTest, NobodyListens) {
  config_.total_ms = 50;
  config_.url = "http://127.0.0.1:1/longwave";
  const absl::Status opened = OpenS3Store(config_).status();
  EXPECT_TRUE(absl::IsUnavailable(opened)) << opened;
  EXPECT_THAT(opened.message(), HasSubstr("object store s3://longwave/faults"));
}

TEST_F(S3StoreTest, AnswersThatAreNoneAreRefused) {
  ASSERT_TRUE(store_->Write("a", "abcdef").ok());
  const auto ok = [](absl::string_view body, absl::string_view headers = "") {
    return absl::StrCat("HTTP/1.1 200 OK\r\n", headers, "Content-Length: ", body.size(), "\r\n\r\n",
                        body);
  };
  for (const char* body :
       {"", "what", "<html></html>", "<ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"}) {
    proxy_.Answer(1, ok(body));
    EXPECT_EQ(store_->List("a").status().code(), absl::StatusCode::kUnknown) << body;
    proxy_.Answer(1, ok(body));
    EXPECT_EQ(store_->ListPartial("a").status().code(), absl::StatusCode::kUnknown) << body;
  }
  // Another's keys are none of ours.
  proxy_.Answer(1, ok("<ListBucketResult><Contents><Key>../../etc</Key><Size>1</Size></Contents>"
                      "<Contents><Key>b</Key></Contents></ListBucketResult>"));
  EXPECT_THAT(*store_->List("a"), IsEmpty());
  // The whole object where a part was asked for; another part; more than was asked for.
  proxy_.Answer(1, ok("abcdef"));
  EXPECT_FALSE(store_->Read("a", 1, 2).ok());
  proxy_.Answer(1, ok("ab"));
  EXPECT_TRUE(absl::IsDataLoss(store_->Read("a", 1, 2).status()));
  const std::string part =
      "HTTP/1.1 206 Part\r\nContent-Range: bytes 2-3/6\r\nContent-Length: 2\r\n"
      "\r\ncd";
  proxy_.Answer(1, part);
  EXPECT_TRUE(absl::IsDataLoss(store_->Read("a", 1, 2).status()));
  proxy_.Answer(1, part);
  EXPECT_EQ(*store_->Read("a", 2, 2), "cd");
  proxy_.Answer(1, "not HTTP at all\r\n\r\n");
  EXPECT_EQ(*store_->Read("a", 2, 2), "cd");  // asked again
}

// 200, and then an error: S3 had begun to answer before it knew.
TEST_F(S3StoreTest, AnErrorInAGoodAnswerIsOne) {
  const std::string bytes(kPart + 10, 'x');
  for (const char* code : {"InternalError", "InvalidPart"}) {
    auto writer = *store_->Create("large");
    ASSERT_TRUE(writer->Append(bytes).ok());
    proxy_.Pass(1);  // the last part
    proxy_.Answer(1, Answer("200 OK", code));
    const auto info = writer->Commit();
    if (code == std::string("InternalError")) {
      EXPECT_TRUE(info.ok()) << info.status();
      EXPECT_TRUE(*store_->ReadAll("large", 1 << 30) == bytes);
    } else {
      EXPECT_THAT(info.status().message(), HasSubstr("InvalidPart"));
    }
  }
}

TEST_F(S3StoreTest, APartWithoutAnETagIsNoPart) {
  auto writer = *store_->Create("large");
  ASSERT_TRUE(writer->Append(std::string(kPart, 'x')).ok());
  proxy_.Pass(1);
  proxy_.Answer(1, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_THAT(writer->Append("x").message(), HasSubstr("without an ETag"));
  EXPECT_FALSE(writer->Append("x").ok());
  EXPECT_FALSE(writer->Commit().ok());
  writer.reset();
  EXPECT_THAT(*store_->List("faults"), IsEmpty());
}

}  // namespace
}  // namespace longwave

#include "services/cluster/http_client.h"

#include <gtest/gtest.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

namespace asio = boost::asio;

// A server that answers its connections one after another, each with the next of `answers`, as it
// is, and closes them.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::string> answers)
      : acceptor_(context_, {asio::ip::make_address("127.0.0.1"), 0}),
        thread_([this, answers = std::move(answers)] {
          for (const std::string& answer : answers) {
            asio::ip::tcp::socket socket(context_);
            acceptor_.accept(socket);
            std::string request;
            boost::system::error_code code;
            asio::read_until(socket, asio::dynamic_buffer(request), "\r\n\r\n", code);
            requests.push_back(request);
            asio::write(socket, asio::buffer(answer), code);
          }
        }) {}
  // Until all answers were given.
  void Join() { thread_.join(); }

  std::unique_ptr<HttpClient> Client() {
    HttpClientOptions options;
    options.server = absl::StrCat("http://127.0.0.1:", acceptor_.local_endpoint().port());
    options.token = "secret";
    auto client = HttpClient::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  std::vector<std::string> requests;

 private:
  asio::io_context context_;
  asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
};

std::string Answer(const std::string& status, const std::string& body,
                   const std::string& headers = "") {
  return absl::StrCat("HTTP/1.1 ", status, "\r\n", headers, "Content-Length: ", body.size(),
                      "\r\n\r\n", body);
}

TEST(HttpClient, AsksAgainForWhatMayBeAskedTwice) {
  ScriptedServer server({"", Answer("503 Service Unavailable", ""), "HTTP/1.1 200 OK\r\nCont",
                         Answer("200 OK", R"({"a": 1})")});
  const auto answer = server.Client()->Send("POST", "/v1/jobs", "{}", "key-1");
  server.Join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->at("a"), 1);
  for (const std::string& request : server.requests) {
    EXPECT_TRUE(absl::StrContains(request, "Idempotency-Key: key-1\r\n")) << request;
    EXPECT_TRUE(absl::StrContains(request, "Authorization: Bearer secret\r\n")) << request;
  }
}

TEST(HttpClient, DoesNotAskAgainForWhatMayNot) {
  ScriptedServer server({""});
  EXPECT_TRUE(absl::IsUnavailable(server.Client()->Send("POST", "/v1/x", "{}").status()));
  server.Join();
}

TEST(HttpClient, SaysWhatTheServerSays) {
  ScriptedServer server({Answer("409 Conflict", R"({"detail": "job 1 is over"})"),
                         Answer("401 Unauthorized", "no"), Answer("200 OK", "<html>"),
                         Answer("429 Too Many Requests", R"({"detail": 5})")});
  const auto client = server.Client();
  EXPECT_EQ(client->Send("POST", "/x").status(), absl::FailedPreconditionError("job 1 is over"));
  EXPECT_TRUE(absl::IsUnauthenticated(client->Send("POST", "/x").status()));
  EXPECT_TRUE(absl::IsUnavailable(client->Send("POST", "/x").status()));
  EXPECT_TRUE(absl::IsResourceExhausted(client->Send("POST", "/x").status()));
  server.Join();
}

TEST(HttpClient, ADownloadThatIsCutGoesOnWhereItWas) {
  ScriptedServer server(
      {"HTTP/1.1 200 OK\r\nETag: \"t\"\r\nContent-Length: 10\r\n\r\nabcd", "",
       "HTTP/1.1 206 Partial Content\r\nETag: \"t\"\r\nContent-Range: bytes 4-9/10\r\n"
       "Content-Length: 6\r\n\r\nef",
       Answer("206 Partial Content", "ghij", "ETag: \"t\"\r\nContent-Range: bytes 6-9/10\r\n")});
  std::string got;
  const absl::Status status = server.Client()->Download("/x", [&](absl::string_view bytes) {
    absl::StrAppend(&got, bytes);
    return absl::OkStatus();
  });
  server.Join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(got, "abcdefghij");
  EXPECT_FALSE(absl::StrContains(server.requests[0], "Range: "));
  EXPECT_TRUE(absl::StrContains(server.requests[3], "\r\nRange: bytes=6-\r\nIf-Range: \"t\"\r\n"))
      << server.requests[3];
}

TEST(HttpClient, ContentThatChangedIsNotMixed) {
  for (const char* second :
       {"HTTP/1.1 200 OK\r\nETag: \"u\"\r\nContent-Length: 2\r\n\r\nxy",
        "HTTP/1.1 206 Partial Content\r\nETag: \"u\"\r\nContent-Range: bytes 4-9/10\r\n"
        "Content-Length: 6\r\n\r\nefghij",
        "HTTP/1.1 206 Partial Content\r\nETag: \"t\"\r\nContent-Range: bytes 0-9/10\r\n"
        "Content-Length: 10\r\n\r\nabcdefghij"}) {
    ScriptedServer server(
        {"HTTP/1.1 200 OK\r\nETag: \"t\"\r\nContent-Length: 10\r\n\r\nabcd", second});
    const absl::Status status =
        server.Client()->Download("/x", [&](absl::string_view bytes) { return absl::OkStatus(); });
    server.Join();
    EXPECT_TRUE(absl::IsAborted(status)) << status;
  }
}

TEST(HttpClient, EventsGoOnAfterTheLastThatWasTaken) {
  const std::string head =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  const auto chunk = [](const std::string& text) {
    return absl::StrCat(absl::Hex(text.size()), "\r\n", text, "\r\n");
  };
  ScriptedServer server(
      {head + chunk("id: 1\nevent: planned\ndata: {}\n\n: still there\n\nid: 2\nevent: st"),
       head + chunk("id: 2\r\nevent: started\r\ndata: a\r\ndata: b\r\n\r\n") + "0\r\n\r\n"});
  std::string got;
  const absl::Status status =
      server.Client()->Events("/x", [&](const HttpClient::Event& event) -> absl::StatusOr<bool> {
        absl::StrAppend(&got, event.id, " ", event.type, " ", event.data, ";");
        return true;
      });
  server.Join();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(got, "1 planned {};2 started a\nb;");
  EXPECT_FALSE(absl::StrContains(server.requests[0], "Last-Event-ID"));
  EXPECT_TRUE(absl::StrContains(server.requests[1], "Last-Event-ID: 1\r\n"));
}

TEST(HttpClient, AddressesThatAreNone) {
  for (const char* server :
       {"", "localhost", "ftp://x", "http://", "http://x/path", "http://x?y"}) {
    HttpClientOptions options;
    options.server = server;
    EXPECT_TRUE(absl::IsInvalidArgument(HttpClient::Create(options).status())) << server;
  }
}

}  // namespace
}  // namespace longwave

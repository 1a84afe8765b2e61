#include "services/cluster/client_session.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "boost/url/encode.hpp"
#include "boost/url/rfc/unreserved_chars.hpp"
#include "services/progress.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

namespace json = boost::json;

constexpr auto kPoll = std::chrono::milliseconds(200);
constexpr size_t kMostToken = 4096;

constexpr char kNotes[] =
    R"(Where the server is: --server, or LONGWAVE_SERVER; a token, where it asks for one: --token-file, or
LONGWAVE_TOKEN. Exit code: 0; 2 for anything that is refused or cannot be reached, or for a job that
failed, said in one line on standard error; 128 + the signal that stopped it.)";

absl::StatusOr<std::string> ReadToken(const ClientOptions& options) {
  // Not an option: others on the machine could read it there.
  const char* known = std::getenv("LONGWAVE_TOKEN");
  std::string token = known == nullptr ? "" : known, from = "LONGWAVE_TOKEN";
  if (!options.token_file.empty()) {
    from = absl::StrCat("--token-file ", options.token_file);
    std::ifstream file(options.token_file);
    token.assign(std::istreambuf_iterator<char>(file), {});
    if (!file.is_open()) return absl::InvalidArgumentError(absl::StrCat(from, ": cannot be read"));
    absl::StripAsciiWhitespace(&token);
    if (token.empty()) return absl::InvalidArgumentError(absl::StrCat(from, ": is empty"));
  }
  bool good = token.size() <= kMostToken;
  for (const unsigned char c : token) good = good && absl::ascii_isgraph(c);
  if (good) return token;
  return absl::InvalidArgumentError(absl::StrCat(from, ": is no token: one word of at most ",
                                                 kMostToken, " printable characters"));
}

}  // namespace

void AddServerOptions(CLI::App& command, ClientOptions& client) {
  const std::string where = "Which server";
  command
      .add_option("--server", client.server,
                  "http://HOST:PORT, or https://HOST:PORT, of `longwave serve`")
      ->envname("LONGWAVE_SERVER")
      ->capture_default_str()
      ->group(where);
  command.add_option("--token-file", client.token_file, "A file with the token to show")
      ->group(where);
  command
      .add_option("--ca", client.ca,
                  "https: a PEM file of who may vouch for the server (default: the system's)")
      ->group(where);
  command.footer(kNotes);
}

absl::StatusOr<std::unique_ptr<HttpClient>> OpenClient(const ClientOptions& options) {
  CatchStopSignals();
  const absl::StatusOr<std::string> token = ReadToken(options);
  if (!token.ok()) return token.status();
  HttpClientOptions http;
  http.server = options.server;
  http.token = *token;
  http.ca = options.ca;
  return HttpClient::Create(http);
}

std::string EscapeForUrl(const std::string& text) {
  return boost::urls::encode(text, boost::urls::unreserved_chars);
}

std::string Text(const json::object& object, const char* name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

int64_t Number(const json::object& object, const char* name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

double Real(const json::object& object, const char* name) {
  const auto* value = object.if_contains(name);
  if (value == nullptr) return 0;
  return value->is_double() ? value->get_double() : static_cast<double>(Number(object, name));
}

json::object Member(const json::object& object, const char* name) {
  const auto* value = object.if_contains(name);
  return value != nullptr && value->is_object() ? value->get_object() : json::object();
}

absl::StatusOr<json::object> Object(absl::StatusOr<json::value> answer) {
  if (!answer.ok()) return answer.status();
  if (const auto* object = answer->if_object()) return *object;
  return absl::UnavailableError("the server's answer is not what was expected: is it longwave's?");
}

absl::StatusOr<json::object> GetJob(HttpClient& client, const std::string& id) {
  return Object(client.Send("GET", absl::StrCat("/v1/jobs/", EscapeForUrl(id))));
}

std::string JobLine(const json::object& job) {
  const json::object progress = Member(job, "progress");
  std::string line =
      absl::StrCat(Text(job, "id"), "  ", Text(job, "state"), "  ", Text(job, "task"), " ",
                   Text(job, "model"), "  ", WithCommas(Number(progress, "tokens_done")));
  if (progress.contains("tokens")) {
    absl::StrAppend(&line, " of ", WithCommas(Number(progress, "tokens")));
  }
  absl::StrAppend(&line, " tokens");
  if (const std::string error = Text(job, "error"); !error.empty()) {
    absl::StrAppend(&line, "  ", error);
  }
  return line + "\n";
}

absl::StatusOr<json::object> WaitForJob(HttpClient& client, const std::string& id) {
  Progress bar(Progress::StyleOfStderr(false));
  for (bool first = true;; first = false) {
    absl::Status stop = CheckStop();
    if (!stop.ok()) return stop;
    absl::StatusOr<json::object> job = GetJob(client, id);
    if (!job.ok()) return job.status();
    const std::string state = Text(*job, "state");
    const json::object progress = Member(*job, "progress");
    const double tokens = Real(progress, "tokens"), done = Real(progress, "tokens_done");
    if (first) bar.GoOnFrom(static_cast<int64_t>(done));
    bar.Update(static_cast<int64_t>(done), tokens > 0 ? done / tokens : -1);
    if (state == "succeeded") return job;
    if (state == "failed" || state == "cancelled") {
      bar.Clear();
      return absl::InvalidArgumentError(
          absl::StrCat("job ", id, " ", state, state == "failed" ? ": " : "", Text(*job, "error")));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

}  // namespace longwave

// `longwave submit`, `status`, `result`, `cancel` and `list`: the client of a server.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "boost/url/encode.hpp"
#include "boost/url/rfc/unreserved_chars.hpp"
#include "formats/atomic_file.h"
#include "services/cluster/api.h"
#include "services/cluster/http_client.h"
#include "services/commands.h"
#include "services/progress.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

namespace json = boost::json;

constexpr auto kPoll = std::chrono::milliseconds(200);
constexpr int kPatience = 150;  // polls in vain: a server that is started again is waited for
constexpr int64_t kBlock = 256 << 10;

struct ClientOptions {
  std::string server = "http://127.0.0.1:8080", id, out, state;
  std::string model, input, task = "score";
  int64_t chunk = 0, window = 0, max_logits_bytes = 0, limit = 100;
  bool json = false, wait = false;
};

std::string Escape(const std::string& text) {
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

// The server's answer, where it is the object that it should be.
absl::StatusOr<json::object> Object(absl::StatusOr<json::value> answer) {
  if (!answer.ok()) return answer.status();
  if (const auto* object = answer->if_object()) return *object;
  return absl::UnavailableError("the server's answer is not what was expected: is it longwave's?");
}

std::string Line(const json::object& job) {
  const auto* found = job.if_contains("progress");
  const json::object progress =
      found != nullptr && found->is_object() ? found->get_object() : json::object();
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

absl::Status Say(const ClientOptions& options, const json::object& job) {
  return PrintOut(options.json ? json::serialize(job) + "\n" : Line(job));
}

// Until the job is over. Not succeeded: an error that says why.
absl::StatusOr<json::object> Wait(HttpClient& client, const std::string& id) {
  Progress bar(Progress::StyleOfStderr(false));
  int failures = 0;
  while (true) {
    absl::Status stop = CheckStop();
    if (!stop.ok()) return stop;
    absl::StatusOr<json::object> job =
        Object(client.Send("GET", absl::StrCat("/v1/jobs/", Escape(id))));
    if (!job.ok() && (!absl::IsUnavailable(job.status()) || ++failures > kPatience)) {
      return job.status();
    }
    if (job.ok()) {
      failures = 0;
      const std::string state = Text(*job, "state");
      if (const auto* found = job->if_contains("progress"); found && found->is_object()) {
        const json::object& progress = found->get_object();
        const double tokens = Number(progress, "tokens"), done = Number(progress, "tokens_done");
        bar.Update(static_cast<int64_t>(done), tokens > 0 ? done / tokens : -1);
      }
      if (state == "succeeded") return job;
      if (state == "failed" || state == "cancelled") {
        bar.Clear();
        return absl::InvalidArgumentError(absl::StrCat(
            "job ", id, " ", state, state == "failed" ? ": " : "", Text(*job, "error")));
      }
    }
    std::this_thread::sleep_for(kPoll);
  }
}

absl::StatusOr<std::string> UploadInput(HttpClient& client, const std::string& input) {
  const bool standard = input == "-";
  const int fd = standard ? STDIN_FILENO : open(input.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, input);
  const auto body = [&]() -> absl::StatusOr<std::string> {
    std::string block(kBlock, '\0');
    ssize_t got = 0;
    do {
      got = read(fd, block.data(), block.size());
    } while (got < 0 && errno == EINTR && StopSignal() == 0);
    if (absl::Status stop = CheckStop(); !stop.ok()) return stop;
    if (got < 0) return absl::ErrnoToStatus(errno, input);
    block.resize(got);
    return block;
  };
  const std::string name = standard ? "" : input.substr(input.rfind('/') + 1);
  const absl::StatusOr<json::object> file =
      Object(client.Upload(absl::StrCat("/v1/files?name=", Escape(name)), body));
  if (!standard) close(fd);
  if (!file.ok()) return file.status();
  return Text(*file, "id");
}

absl::Status Submit(const ClientOptions& options) {
  CatchStopSignals();
  absl::StatusOr<HttpClient> client = HttpClient::Create(options.server);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::string> input = UploadInput(*client, options.input);
  if (!input.ok()) return input.status();
  json::object job = {{"model", options.model}, {"input", *input}, {"task", options.task}};
  if (options.chunk != 0) job["chunk"] = options.chunk;
  if (options.window != 0) job["window"] = options.window;
  if (options.max_logits_bytes != 0) job["max_logits_bytes"] = options.max_logits_bytes;
  // So that a request whose answer was lost may be sent again.
  const std::string key = NewId();
  absl::StatusOr<json::object> created =
      Object(client->Send("POST", "/v1/jobs", json::serialize(job), key));
  if (absl::IsUnavailable(created.status())) {
    std::this_thread::sleep_for(kPoll);
    created = Object(client->Send("POST", "/v1/jobs", json::serialize(job), key));
  }
  if (!created.ok()) return created.status();
  const std::string id = Text(*created, "id");
  absl::Status said = options.json && !options.wait ? Say(options, *created)
                      : options.json                ? absl::OkStatus()
                                                    : PrintOut(id + "\n");
  if (!said.ok() || !options.wait) return said;
  const absl::StatusOr<json::object> over = Wait(*client, id);
  if (!over.ok()) return over.status();
  return options.json ? Say(options, *over) : absl::OkStatus();
}

absl::Status Status(const ClientOptions& options) {
  CatchStopSignals();
  absl::StatusOr<HttpClient> client = HttpClient::Create(options.server);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job =
      options.wait ? Wait(*client, options.id)
                   : Object(client->Send("GET", absl::StrCat("/v1/jobs/", Escape(options.id))));
  return job.ok() ? Say(options, *job) : job.status();
}

absl::Status Result(const ClientOptions& options) {
  CatchStopSignals();
  absl::StatusOr<HttpClient> client = HttpClient::Create(options.server);
  if (!client.ok()) return client.status();
  if (options.wait) {
    const absl::StatusOr<json::object> over = Wait(*client, options.id);
    if (!over.ok()) return over.status();
  }
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(options.out);
  if (!file.ok()) return file.status();
  absl::Status status = client->Download(
      absl::StrCat("/v1/jobs/", Escape(options.id), "/output"), [&](absl::string_view bytes) {
        absl::Status stop = CheckStop();
        if (!stop.ok()) return stop;
        return (*file)->Append({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
      });
  return status.ok() ? (*file)->Commit() : status;
}

absl::Status Cancel(const ClientOptions& options) {
  absl::StatusOr<HttpClient> client = HttpClient::Create(options.server);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job =
      Object(client->Send("POST", absl::StrCat("/v1/jobs/", Escape(options.id), "/cancel")));
  return job.ok() ? Say(options, *job) : job.status();
}

absl::Status List(const ClientOptions& options) {
  absl::StatusOr<HttpClient> client = HttpClient::Create(options.server);
  if (!client.ok()) return client.status();
  std::string target = absl::StrCat("/v1/jobs?limit=", options.limit);
  if (!options.state.empty()) absl::StrAppend(&target, "&state=", Escape(options.state));
  const absl::StatusOr<json::object> answer = Object(client->Send("GET", target));
  if (!answer.ok()) return answer.status();
  if (options.json) return Say(options, *answer);
  std::string text;
  if (const auto* jobs = answer->if_contains("jobs"); jobs != nullptr && jobs->is_array()) {
    for (const json::value& job : jobs->get_array()) {
      if (job.is_object()) text += Line(job.get_object());
    }
  }
  return PrintOut(text);
}

// A command with the options that all of them have.
std::shared_ptr<ClientOptions> Add(CLI::App& app, Action& action, const char* name,
                                   const char* about, absl::Status (*run)(const ClientOptions&),
                                   CLI::App*& command) {
  command = app.add_subcommand(name, about);
  auto options = std::make_shared<ClientOptions>();
  command->add_option("--server", options->server, "http://HOST:PORT of `longwave serve`")
      ->envname("LONGWAVE_SERVER")
      ->capture_default_str();
  command->callback([options, run, &action] { action = [options, run] { return run(*options); }; });
  return options;
}

}  // namespace

void AddClientCommands(CLI::App& app, Action& action) {
  CLI::App* command = nullptr;
  auto options = Add(app, action, "submit", "Give a server a job; prints its id", Submit, command);
  command->add_option("MODEL", options->model, "One of the server's models")->required();
  command
      ->add_option("INPUT", options->input, "As of longwave run, one sequence; - is standard input")
      ->required();
  command->add_option("--task", options->task, "score, embed or logits")->capture_default_str();
  command->add_option("--chunk", options->chunk, "Tokens in one piece (default 8192)");
  command->add_option("--window", options->window, "embed: tokens in one mean (default: all)");
  command->add_option("--max-logits-bytes", options->max_logits_bytes,
                      "logits: refuse to make a larger array than this (default 1 GiB)");
  command->add_flag("--wait", options->wait, "Until the job is over; exit code 2 if it failed");
  command->add_flag("--json", options->json, "Print the job as JSON");

  options = Add(app, action, "status", "How a server's job stands", Status, command);
  command->add_option("JOB", options->id, "Its id")->required();
  command->add_flag("--wait", options->wait, "Until the job is over; exit code 2 if it failed");
  command->add_flag("--json", options->json, "Print the job as JSON");

  options = Add(app, action, "result", "Fetch the output of a server's job", Result, command);
  command->add_option("JOB", options->id, "Its id")->required();
  command->add_option("--out", options->out, "The .npy file to write")->required();
  command->add_flag("--wait", options->wait, "Until the job is over");

  options = Add(app, action, "cancel", "End a server's job", Cancel, command);
  command->add_option("JOB", options->id, "Its id")->required();
  command->add_flag("--json", options->json, "Print the job as JSON");

  options = Add(app, action, "list", "A server's jobs, newest first", List, command);
  command->add_option("--state", options->state,
                      "queued, running, succeeded, failed or cancelled only");
  command->add_option("--limit", options->limit, "At most so many")->capture_default_str();
  command->add_flag("--json", options->json, "Print JSON");
}

}  // namespace longwave

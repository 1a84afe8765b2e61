// `longwave submit`, `status`, `result`, `trace`, `cancel`, `delete`, `list`, `workers` and
// `events`: the client of a server.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/parse.hpp"
#include "boost/json/serialize.hpp"
#include "services/cluster/api.h"
#include "services/cluster/client_session.h"
#include "services/cluster/client_transfer.h"
#include "services/commands.h"
#include "services/option_checks.h"
#include "services/output_files.h"
#include "services/run_options.h"
#include "services/text.h"

namespace longwave {
namespace {

namespace json = boost::json;

struct CommandOptions {
  ClientOptions client;
  JobOptions job;                    // submit's
  const CLI::App* submit = nullptr;  // what was typed of them
  std::string id, out, state, model;
  std::optional<int64_t> priority, time_limit;
  int64_t limit = 100;
  bool wait = false, trace = false, input = false, no_follow = false;
};

std::string JobPath(const CommandOptions& options, const char* what = "") {
  return absl::StrCat("/v1/jobs/", EscapeForUrl(options.id), what);
}

absl::Status Say(const CommandOptions& options, const json::object& job) {
  return PrintOut(options.client.json ? json::serialize(job) + "\n" : JobLine(job));
}

// The job as the server is asked for it, but for its input.
json::object JsonOf(const JobSpec& spec) {
  json::object job = {{"model", spec.model}, {"task", Name(spec.task)}, {"chunk", spec.chunk}};
  if (spec.task == Task::kEmbed && spec.window != JobSpec().window) job["window"] = spec.window;
  if (spec.task == Task::kLogits) job["max_logits_bytes"] = spec.max_logits_bytes;
  if (spec.task != Task::kGenerate) return job;
  job["max_new_tokens"] = spec.max_new_tokens;
  if (spec.temperature == 0) return job;
  job["temperature"] = spec.temperature;
  job["top_k"] = spec.top_k;
  job["top_p"] = spec.top_p;
  job["seed"] = spec.seed;
  return job;
}

absl::StatusOr<json::object> GetModel(HttpClient& client, const std::string& name) {
  return Object(client.Send("GET", absl::StrCat("/v1/models/", EscapeForUrl(name))));
}

absl::Status DeleteFile(HttpClient& client, const std::string& id) {
  return client.Send("DELETE", absl::StrCat("/v1/files/", EscapeForUrl(id))).status();
}

absl::Status Submit(const CommandOptions& typed) {
  CommandOptions options = typed;
  JobSpec& spec = options.job.job;
  absl::Status finished = FinishJobOptions(*options.submit, options.job);
  if (!finished.ok()) return finished;
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  // Before an upload that may be long.
  const absl::Status model = GetModel(**client, spec.model).status();
  if (!model.ok()) return model;
  const absl::StatusOr<std::string> input =
      spec.prompt.empty() ? UploadInput(**client, spec.input, options.job.format)
                          : UploadText(**client, "prompt", spec.prompt);
  if (!input.ok()) return input.status();
  json::object job = JsonOf(spec);
  job["input"] = *input;
  if (options.priority.has_value()) job["priority"] = *options.priority;
  if (options.time_limit.has_value()) job["time_limit_seconds"] = *options.time_limit;
  if (options.trace) job["trace"] = true;
  // With a key, so that a request whose answer was lost may be sent again.
  const absl::StatusOr<json::object> created =
      Object((*client)->Send("POST", "/v1/jobs", json::serialize(job), NewId()));
  if (!created.ok()) {
    // Nobody else knows the upload's id. The server keeps it where a job has come of it after all.
    DeleteFile(**client, *input).IgnoreError();
    return created.status();
  }
  const std::string id = Text(*created, "id");
  const bool as_json = options.client.json;
  absl::Status said = as_json && !options.wait ? Say(options, *created)
                      : as_json                ? absl::OkStatus()
                                               : PrintOut(id + "\n");
  if (!said.ok() || !options.wait) return said;
  const absl::StatusOr<json::object> over = WaitForJob(**client, id);
  if (!over.ok()) return over.status();
  return as_json ? Say(options, *over) : absl::OkStatus();
}

absl::Status Status(const CommandOptions& options) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job =
      options.wait ? WaitForJob(**client, options.id) : GetJob(**client, options.id);
  return job.ok() ? Say(options, *job) : job.status();
}

absl::Status CheckOut(const CommandOptions& options) {
  if (!options.out.empty() && options.out != "-") return absl::OkStatus();
  return absl::InvalidArgumentError(options.out.empty() ? "--out '': is empty"
                                                        : "--out -: must be a file");
}

absl::Status Trace(const CommandOptions& options) {
  absl::Status out = CheckOut(options);
  if (!out.ok()) return out;
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  if (options.wait) {
    const absl::StatusOr<json::object> over = WaitForJob(**client, options.id);
    if (!over.ok()) return over.status();
  }
  return FetchFile(**client, JobPath(options, "/trace"), options.out);
}

// Whether --out gets the bytes that a model has made, and not the array of their ids.
absl::StatusOr<bool> WantsBytes(const CommandOptions& options, HttpClient& client,
                                const json::object& job) {
  if (Text(job, "task") != Name(Task::kGenerate) || absl::EndsWith(options.out, ".npy")) {
    return false;
  }
  const std::string model = Text(job, "model");
  const absl::StatusOr<json::object> found = GetModel(client, model);
  if (!found.ok()) return found.status();
  if (Text(*found, "tokenizer") == "bytes") return true;
  return absl::InvalidArgumentError(
      absl::StrCat("--out ", options.out, ": model ", model,
                   " has no tokenizer, so that it gives ids: the name must end in .npy"));
}

absl::Status Result(const CommandOptions& options) {
  absl::Status out = CheckOut(options);
  if (!out.ok()) return out;
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job =
      options.wait ? WaitForJob(**client, options.id) : GetJob(**client, options.id);
  if (!job.ok()) return job.status();
  const absl::StatusOr<bool> bytes = WantsBytes(options, **client, *job);
  if (!bytes.ok()) return bytes.status();
  const auto fetch = *bytes ? FetchBytes : FetchFile;
  const int64_t files = Number(Member(*job, "output"), "files");
  if (files == 0) return fetch(**client, JobPath(options, "/output"), options.out);
  // A file for each record, as longwave run names them.
  for (int64_t next = 0; next < files;) {
    const absl::StatusOr<json::object> page = Object((*client)->Send(
        "GET", JobPath(options, absl::StrCat("/sequences?limit=1000&from=", next).c_str())));
    if (!page.ok()) return page.status();
    const auto* list = page->if_contains("sequences");
    if (list == nullptr || !list->is_array() || list->get_array().empty()) {
      return absl::UnavailableError(absl::StrCat("the server names no sequence ", next));
    }
    for (const json::value& one : list->get_array()) {
      const json::object sequence = one.is_object() ? one.get_object() : json::object();
      const std::string path =
          RecordPath(options.out, Text(sequence, "name"), *bytes ? "" : ".npy");
      absl::Status fetched = fetch(
          **client, JobPath(options, absl::StrCat("/output?sequence=", next++).c_str()), path);
      if (!fetched.ok()) return fetched;
    }
  }
  return absl::OkStatus();
}

absl::Status Cancel(const CommandOptions& options) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job =
      Object((*client)->Send("POST", JobPath(options, "/cancel")));
  return job.ok() ? Say(options, *job) : job.status();
}

absl::Status Delete(const CommandOptions& options) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> job = GetJob(**client, options.id);  // it names its input
  if (!job.ok()) return job.status();
  absl::Status deleted = (*client)->Send("DELETE", JobPath(options)).status();
  if (deleted.ok() && options.input) deleted = DeleteFile(**client, Text(*job, "input"));
  return deleted;
}

// The list called `name` at `target`, a line for each, or all of the answer as JSON.
absl::Status Print(const CommandOptions& options, const std::string& target, const char* name,
                   std::string (*line)(const json::object&)) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const absl::StatusOr<json::object> answer = Object((*client)->Send("GET", target));
  if (!answer.ok()) return answer.status();
  if (options.client.json) return PrintOut(json::serialize(*answer) + "\n");
  std::string text;
  if (const auto* list = answer->if_contains(name); list != nullptr && list->is_array()) {
    for (const json::value& one : list->get_array()) {
      if (one.is_object()) text += line(one.get_object());
    }
  }
  return PrintOut(text);
}

absl::Status List(const CommandOptions& options) {
  std::string target = absl::StrCat("/v1/jobs?limit=", options.limit);
  if (!options.state.empty()) absl::StrAppend(&target, "&state=", EscapeForUrl(options.state));
  if (!options.model.empty()) absl::StrAppend(&target, "&model=", EscapeForUrl(options.model));
  return Print(options, target, "jobs", JobLine);
}

std::string WorkerLine(const json::object& worker) {
  const double speed = Real(worker, "tokens_per_second");
  return absl::StrCat(
      Text(worker, "name"), "  ", Text(worker, "state"), "  ", Text(worker, "device"),
      speed > 0 ? absl::StrCat("  ", WithCommas(static_cast<int64_t>(speed)), " tokens/s") : "",
      "\n");
}

absl::Status Workers(const CommandOptions& options) {
  return Print(options, "/v1/workers", "workers", WorkerLine);
}

absl::Status Events(const CommandOptions& options) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  const std::string follow = options.no_follow ? "?follow=0" : "";
  const std::string target = options.id.empty() ? absl::StrCat("/v1/events", follow)
                                                : JobPath(options, "/events") + follow;
  return (*client)->Events(target, [&](const HttpClient::Event& event) -> absl::StatusOr<bool> {
    boost::system::error_code code;
    const json::value parsed = json::parse(event.data, code);
    const json::object data = parsed.is_object() ? parsed.get_object() : json::object();
    const std::string line =
        options.client.json
            ? json::serialize(json::object{{"id", event.id}, {"event", event.type}, {"data", data}})
            : absl::StrCat(Text(data, "job"), "  ", event.type, "  ",
                           json::serialize(Member(data, "data")));
    absl::Status printed = PrintOut(line + "\n");
    if (!printed.ok()) return printed;
    return true;
  });
}

// A command with the options that all of them have.
std::shared_ptr<CommandOptions> Add(CLI::App& app, Action& action, const char* name,
                                    const char* about, absl::Status (*run)(const CommandOptions&),
                                    CLI::App*& command) {
  command = app.add_subcommand(name, about);
  auto options = std::make_shared<CommandOptions>();
  AddServerOptions(*command, options->client);
  command->callback([options, run, &action] { action = [options, run] { return run(*options); }; });
  return options;
}

}  // namespace

void AddClientCommands(CLI::App& app, Action& action) {
  CLI::App* command = nullptr;
  const CLI::Validator whole = WholeNumber();
  const auto add_json = [&](CommandOptions& options, const char* about) {
    command->add_flag("--json", options.client.json, about);
  };
  const auto add_job = [&](CommandOptions& options) {
    return command->add_option("JOB", options.id, "Its id");
  };
  const auto add_wait = [&](CommandOptions& options) {
    command->add_flag("--wait", options.wait, "Until the job is over; exit code 2 if it failed");
  };

  auto options = Add(app, action, "submit", "Give a server a job; prints its id", Submit, command);
  options->submit = command;
  command->add_option("MODEL", options->job.job.model, "One of the server's models")->required();
  AddJobOptions(*command, options->job);
  command->add_option("--priority", options->priority, "Higher goes first (default 0)")
      ->check(whole);
  command
      ->add_option("--time-limit", options->time_limit,
                   "Seconds from its first chunk on after which the job fails (default: none)")
      ->check(whole);
  command->add_flag("--trace", options->trace, "Have a timeline recorded, for longwave trace");
  add_wait(*options);
  add_json(*options, "Print the job as JSON");

  options = Add(app, action, "status", "How a server's job stands", Status, command);
  add_job(*options)->required();
  add_wait(*options);
  add_json(*options, "Print the job as JSON");

  options = Add(app, action, "result", "Fetch the output of a server's job", Result, command);
  add_job(*options)->required();
  command
      ->add_option("--out", options->out,
                   "The file to write, as longwave run would: OUT.RECORD.npy for each record where "
                   "there are several; generate: another ending than .npy gets the bytes")
      ->required();
  add_wait(*options);

  options = Add(app, action, "trace", "Fetch the timeline of a job submitted with --trace", Trace,
                command);
  add_job(*options)->required();
  command->add_option("--out", options->out, "The file to write, for chrome://tracing or Perfetto")
      ->required();
  add_wait(*options);

  options = Add(app, action, "cancel", "End a server's job", Cancel, command);
  add_job(*options)->required();
  add_json(*options, "Print the job as JSON");

  options =
      Add(app, action, "delete", "Remove a job that is over, with its output", Delete, command);
  add_job(*options)->required();
  command->add_flag("--input", options->input, "Its uploaded file too, unless others read it");

  options = Add(app, action, "list", "A server's jobs, newest first", List, command);
  command->add_option("--state", options->state,
                      "queued, running, succeeded, failed or cancelled only");
  command->add_option("--model", options->model, "Of this model only");
  command->add_option("--limit", options->limit, "At most so many")
      ->check(whole)
      ->capture_default_str();
  add_json(*options, "Print JSON");

  options = Add(app, action, "workers", "A server's workers", Workers, command);
  add_json(*options, "Print JSON");

  options = Add(app, action, "events", "What happens to a job, or to all, as it happens", Events,
                command);
  add_job(*options)->description("Its id; none: all jobs, from now on");
  command->add_flag("--no-follow", options->no_follow, "Only what has happened by now");
  add_json(*options, "Print JSON objects, one a line");
}

}  // namespace longwave

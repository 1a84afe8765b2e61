#include "services/cluster/api.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "boost/json/array.hpp"
#include "boost/json/parse.hpp"
#include "boost/json/serialize.hpp"
#include "boost/url/parse.hpp"
#include "formats/npy.h"
#include "scheduler/finish_job.h"
#include "scheduler/protocol/messages.h"
#include "services/cluster/planner.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr size_t kMostName = 255;
constexpr size_t kMostKey = 255;

// The one table of status codes.
int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kOutOfRange:
      return 416;
    case absl::StatusCode::kResourceExhausted:
      return 413;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

const char* Title(int status) {
  switch (status) {
    case 400:
      return "Bad request";
    case 404:
      return "Not found";
    case 405:
      return "Method not allowed";
    case 409:
      return "Conflict";
    case 413:
      return "Too large";
    case 416:
      return "Range not satisfiable";
    case 501:
      return "Not implemented";
    case 503:
      return "Not available";
    default:
      return "Internal error";
  }
}

absl::Status Bad(absl::string_view what, absl::string_view value, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " ", ToUtf8(value.substr(0, 200)), ": must be ", expected));
}

ApiResponse Json(int status, const boost::json::object& object) {
  ApiResponse response;
  response.status = status;
  response.body = boost::json::serialize(object) + "\n";
  return response;
}

struct Target {
  std::vector<std::string> path;  // "/v1/jobs" -> v1, jobs
  std::map<std::string, std::string> query;
};

absl::StatusOr<Target> ParseTarget(const std::string& text) {
  const auto url = boost::urls::parse_origin_form(text);
  if (!url.has_value()) return Bad("target", absl::StrCat("\"", text, "\""), "a path");
  Target target;
  for (const auto segment : url->segments()) target.path.push_back(std::string(segment));
  for (const auto parameter : url->params()) {
    const std::string key(parameter.key);
    if (!target.query.emplace(key, std::string(parameter.value)).second) {
      return Bad("query", absl::StrCat("\"", key, "\""), "given once");
    }
  }
  return target;
}

absl::Status OnlyQuery(const Target& target, std::vector<absl::string_view> known) {
  for (const auto& [key, value] : target.query) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return Bad("query", absl::StrCat("\"", key, "\""),
                 known.empty() ? "left out" : absl::StrCat("one of ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> QueryNumber(const Target& target, const std::string& name, int64_t least,
                                    int64_t most, int64_t otherwise) {
  const auto found = target.query.find(name);
  if (found == target.query.end()) return otherwise;
  int64_t number = 0;
  if (absl::SimpleAtoi(found->second, &number) && number >= least && number <= most) return number;
  return Bad(name, absl::StrCat("\"", found->second, "\""),
             absl::StrCat("a whole number, ", least, " to ", most));
}

absl::Status ReadField(const boost::json::value& value, absl::string_view name, int64_t& number) {
  if (value.is_int64()) {
    number = value.get_int64();
    return absl::OkStatus();
  }
  return Bad(name, boost::json::serialize(value), "a whole number below 2^63");
}

absl::Status ReadField(const boost::json::value& value, absl::string_view name, std::string& text) {
  if (value.is_string()) {
    text = std::string(value.get_string());
    return absl::OkStatus();
  }
  return Bad(name, boost::json::serialize(value), "a string");
}

absl::StatusOr<JobSpec> ParseJob(const std::string& body) {
  boost::system::error_code code;
  const boost::json::value value = boost::json::parse(body, code);
  if (code)
    return absl::InvalidArgumentError(absl::StrCat("body: not JSON (", code.message(), ")"));
  if (!value.is_object()) return Bad("body", boost::json::serialize(value), "a JSON object");
  JobSpec spec;
  std::string task = "score";
  for (const auto& [key, field] : value.get_object()) {
    const absl::string_view name(key.data(), key.size());
    absl::Status status;
    if (name == "model") {
      status = ReadField(field, name, spec.model);
    } else if (name == "input") {
      status = ReadField(field, name, spec.input);
    } else if (name == "task") {
      status = ReadField(field, name, task);
    } else if (name == "chunk") {
      status = ReadField(field, name, spec.chunk);
    } else if (name == "window") {
      status = ReadField(field, name, spec.window);
    } else if (name == "max_logits_bytes") {
      status = ReadField(field, name, spec.max_logits_bytes);
    } else {
      status = Bad("field", absl::StrCat("\"", name, "\""),
                   "one of model, input, task, chunk, window, max_logits_bytes");
    }
    if (!status.ok()) return status;
  }
  const absl::StatusOr<Task> parsed = ParseTask(task);
  if (!parsed.ok()) return parsed.status();
  spec.task = *parsed;
  absl::Status valid = spec.Validate();
  if (!valid.ok()) return valid;
  if (spec.chunk > Api::kMostChunk) {
    return Bad("chunk", absl::StrCat(spec.chunk), absl::StrCat("at most ", Api::kMostChunk));
  }
  return spec;
}

// [first, first + count) of `size` bytes; nullopt: no range was asked for. One range of bytes.
absl::StatusOr<std::optional<std::pair<int64_t, int64_t>>> ParseRange(const std::string& header,
                                                                      int64_t size) {
  if (header.empty()) return std::nullopt;
  const std::vector<std::string> parts = header.rfind("bytes=", 0) == 0
                                             ? absl::StrSplit(header.substr(6), '-')
                                             : std::vector<std::string>();
  int64_t first = 0, last = size - 1;
  const bool good = parts.size() == 2 && !(parts[0].empty() && parts[1].empty()) &&
                    (parts[0].empty() || (absl::SimpleAtoi(parts[0], &first) && first >= 0)) &&
                    (parts[1].empty() || (absl::SimpleAtoi(parts[1], &last) && last >= 0));
  if (!good) return Bad("Range", absl::StrCat("\"", header, "\""), "bytes=FIRST-LAST");
  if (parts[0].empty()) {
    first = std::max<int64_t>(0, size - last);
    last = size - 1;
  }
  last = std::min(last, size - 1);
  if (first > last) {
    return absl::OutOfRangeError(absl::StrCat("Range \"", header, "\" of ", size, " bytes"));
  }
  return std::pair(first, last - first + 1);
}

// Bytes [first, first + count) of `header` and, after it, the chunks' outputs.
void AddBody(const Job& job, const std::vector<CommittedChunk>& chunks, const std::string& header,
             int64_t first, int64_t count, ApiResponse& response) {
  const int64_t end = first + count, size = static_cast<int64_t>(header.size());
  if (first < size) response.body = header.substr(first, std::min(end, size) - first);
  int64_t start = size;
  for (const CommittedChunk& chunk : chunks) {
    const int64_t from = std::max(first, start), to = std::min(end, start + chunk.output_bytes);
    if (from < to) {
      response.parts.push_back(
          {OutputName(job.id, chunk.epoch, chunk.chunk), from - start, to - from});
    }
    start += chunk.output_bytes;
  }
}

ApiResponse NotAllowed(absl::string_view method, absl::string_view allowed) {
  ApiResponse response =
      Api::Problem(405, absl::StrCat("method ", method, ": must be one of ", allowed));
  response.headers.emplace_back("Allow", allowed);
  return response;
}

}  // namespace

int64_t WallClockMs() {
  using std::chrono::steady_clock, std::chrono::system_clock;
  static const system_clock::time_point kDay = system_clock::now();
  static const steady_clock::time_point kStart = steady_clock::now();
  return std::chrono::duration_cast<std::chrono::milliseconds>(kDay.time_since_epoch() +
                                                               (steady_clock::now() - kStart))
      .count();
}

std::string NewId() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

int64_t ApiResponse::body_bytes() const {
  int64_t bytes = static_cast<int64_t>(body.size());
  for (const BodyPart& part : parts) bytes += part.bytes;
  return bytes;
}

boost::json::object ToJson(const Job& job, int64_t now_ms) {
  boost::json::object object = {{"id", job.id},
                                {"state", Name(job.state)},
                                {"model", job.spec.model},
                                {"model_sha256", job.model_hash},
                                {"task", Name(job.spec.task)},
                                {"input", job.spec.input},
                                {"chunk", job.spec.chunk},
                                {"created_ms", job.created_ms}};
  if (job.spec.task == Task::kEmbed && job.spec.window != JobSpec().window) {
    object["window"] = job.spec.window;
  }
  if (job.spec.task == Task::kLogits) object["max_logits_bytes"] = job.spec.max_logits_bytes;
  if (job.started_ms > 0) object["started_ms"] = job.started_ms;
  if (job.finished_ms > 0) object["finished_ms"] = job.finished_ms;
  if (!job.error.empty()) object["error"] = ToUtf8(job.error);
  boost::json::object progress = {{"tokens_done", job.tokens_committed()},
                                  {"chunks_done", job.committed},
                                  {"tokens_computed", job.computed}};
  if (job.length >= 0) {
    progress["tokens"] = job.length;
    progress["chunks"] = job.chunks();
  }
  const int64_t until = job.finished_ms > 0 ? job.finished_ms : now_ms;
  if (job.started_ms > 0 && until > job.started_ms && job.committed > 0) {
    const double speed = 1000.0 * job.tokens_committed() / (until - job.started_ms);
    progress["tokens_per_second"] = speed;
    if (job.state == JobState::kRunning) {
      progress["seconds_left"] = (job.length - job.tokens_committed()) / speed;
    }
  }
  object["progress"] = std::move(progress);
  if (job.state == JobState::kSucceeded) {
    boost::json::array shape;
    for (int64_t size : OutputShape(job)) shape.push_back(size);
    object["output"] = boost::json::object{{"shape", std::move(shape)}, {"dtype", "float32"}};
  }
  return object;
}

ApiResponse Api::Problem(int http_status, absl::string_view detail) {
  ApiResponse response = Json(http_status, {{"type", "about:blank"},
                                            {"title", Title(http_status)},
                                            {"status", http_status},
                                            {"detail", ToUtf8(detail)}});
  response.content_type = "application/problem+json";
  return response;
}

ApiResponse Api::Problem(const absl::Status& status) {
  return Problem(HttpStatus(status.code()), status.message());
}

void Api::SetReady(absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ready_ = std::move(status);
}

ApiResponse Api::Handle(const ApiRequest& request) {
  absl::StatusOr<ApiResponse> response = Route(request);
  return response.ok() ? *std::move(response) : Problem(response.status());
}

absl::StatusOr<ApiResponse> Api::Route(const ApiRequest& request) {
  absl::StatusOr<Target> target = ParseTarget(request.target);
  if (!target.ok()) return target.status();
  const std::vector<std::string>& path = target->path;
  const bool get = request.method == "GET" || request.method == "HEAD";
  const bool post = request.method == "POST";
  if (path.size() == 1 && (path[0] == "healthz" || path[0] == "readyz")) {
    if (!get) return NotAllowed(request.method, "GET");
    const std::lock_guard<std::mutex> lock(mutex_);
    if (path[0] == "readyz" && !ready_.ok()) return ready_;
    return Json(200, {{"status", "ok"}});
  }
  const bool v1 = path.size() >= 2 && path[0] == "v1";
  if (v1 && path[1] == "files" && path.size() == 2) return NotAllowed(request.method, "POST");
  if (!v1 || path[1] != "jobs" || path.size() > 4) {
    return absl::NotFoundError(absl::StrCat("there is nothing at \"", request.target, "\""));
  }
  if (path.size() == 2) {
    absl::Status query =
        OnlyQuery(*target, get ? std::vector<absl::string_view>{"state", "before", "limit"}
                               : std::vector<absl::string_view>{});
    if (!query.ok()) return query;
    if (post) return CreateJob(request);
    return get ? ListJobs(request) : NotAllowed(request.method, "GET, POST");
  }
  absl::Status query = OnlyQuery(*target, {});
  if (!query.ok()) return query;
  if (path.size() == 3) {
    if (request.method == "DELETE") return DeleteJob(path[2]);
    if (!get) return NotAllowed(request.method, "GET, DELETE");
    const absl::StatusOr<Job> job = store_.Get(path[2]);
    if (!job.ok()) return job.status();
    return Json(200, ToJson(*job, WallClockMs()));
  }
  if (path[3] == "cancel") {
    return post ? CancelJob(path[2]) : NotAllowed(request.method, "POST");
  }
  if (path[3] == "output") {
    return get ? Output(path[2], request) : NotAllowed(request.method, "GET");
  }
  return absl::NotFoundError(absl::StrCat("there is nothing at \"", request.target, "\""));
}

absl::StatusOr<ApiResponse> Api::CreateJob(const ApiRequest& request) {
  NewJob job;
  absl::StatusOr<JobSpec> spec = ParseJob(request.body);
  if (!spec.ok()) return spec.status();
  job.spec = *std::move(spec);
  if (request.idempotency_key.size() > kMostKey) {
    return Bad("Idempotency-Key", absl::StrCat("of ", request.idempotency_key.size(), " bytes"),
               absl::StrCat("of at most ", kMostKey));
  }
  job.idempotency_key = request.idempotency_key;
  const absl::StatusOr<ModelEntry> model = models_.Find(job.spec.model);
  if (!model.ok()) return model.status();
  const ModelConfig& config = model->config;
  if (job.spec.task == Task::kGenerate || job.spec.task == Task::kTransform) {
    return Bad("task", absl::StrCat("\"", Name(job.spec.task), "\""),
               "one of score, embed, logits here (longwave run does all)");
  }
  if (config.type != ModelConfig::Type::kH3) {
    return Bad("model", absl::StrCat("\"", job.spec.model, "\""),
               "a language model: this one is a stack of S4D layers");
  }
  if (!config.attn_layer_idx.empty()) {
    return Bad("model", absl::StrCat("\"", job.spec.model, "\""),
               absl::StrCat("one without attention: this one has ", config.attn_layer_idx.size(),
                            " such layers, whose caches no boundary holds"));
  }
  const absl::StatusOr<StoredFile> input = store_.GetFile(job.spec.input);
  if (absl::IsNotFound(input.status())) {
    return Bad("input", absl::StrCat("\"", job.spec.input, "\""), "an uploaded file's id");
  }
  if (!input.ok()) return input.status();
  job.id = NewId();
  job.model_hash = model->hash;
  job.columns = job.spec.task == Task::kEmbed    ? config.d_model
                : job.spec.task == Task::kLogits ? config.vocab_size
                                                 : 0;
  const int64_t now = WallClockMs();
  const absl::StatusOr<Job> created = store_.Create(job, now);
  if (!created.ok()) return created.status();
  ApiResponse response = Json(created->id == job.id ? 201 : 200, ToJson(*created, now));
  response.headers.emplace_back("Location", absl::StrCat("/v1/jobs/", created->id));
  return response;
}

absl::StatusOr<ApiResponse> Api::ListJobs(const ApiRequest& request) {
  const absl::StatusOr<Target> target = ParseTarget(request.target);
  if (!target.ok()) return target.status();
  std::optional<JobState> state;
  if (const auto found = target->query.find("state"); found != target->query.end()) {
    absl::StatusOr<JobState> parsed = ParseJobState(found->second);
    if (!parsed.ok()) return parsed.status();
    state = *parsed;
  }
  const int64_t most = std::numeric_limits<int64_t>::max();
  const absl::StatusOr<int64_t> before = QueryNumber(*target, "before", 1, most, most);
  const absl::StatusOr<int64_t> limit = QueryNumber(*target, "limit", 1, kMostListed, 100);
  if (!before.ok()) return before.status();
  if (!limit.ok()) return limit.status();
  const absl::StatusOr<std::vector<Job>> jobs = store_.List({state, "", "", std::nullopt}, *before, *limit);
  if (!jobs.ok()) return jobs.status();
  boost::json::array list;
  for (const Job& job : *jobs) list.push_back(ToJson(job, WallClockMs()));
  boost::json::object answer = {{"jobs", std::move(list)}};
  if (static_cast<int64_t>(jobs->size()) == *limit) answer["next_before"] = jobs->back().number;
  return Json(200, answer);
}

absl::StatusOr<ApiResponse> Api::CancelJob(const std::string& id) {
  const absl::StatusOr<Job> job = store_.Cancel(id, WallClockMs());
  if (!job.ok()) return job.status();
  absl::Status removed = RemoveObjects(*job, false, store_, objects_);
  if (!removed.ok()) return removed;
  return Json(200, ToJson(*job, WallClockMs()));
}

absl::StatusOr<ApiResponse> Api::DeleteJob(const std::string& id) {
  const absl::StatusOr<Job> job = store_.Get(id);
  if (!job.ok()) return job.status();
  absl::Status status = store_.Delete(id);
  if (status.ok()) status = RemoveObjects(*job, false, store_, objects_);
  if (!status.ok()) return status;
  ApiResponse response;
  response.status = 204;
  return response;
}

absl::StatusOr<ApiResponse> Api::Output(const std::string& id, const ApiRequest& request) {
  const absl::StatusOr<Job> job = store_.Get(id);
  if (!job.ok()) return job.status();
  if (job->state != JobState::kSucceeded) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", id, " is ", Name(job->state), ": it has no output",
                     job->error.empty() ? "" : absl::StrCat(" (", job->error, ")")));
  }
  const absl::StatusOr<std::vector<CommittedChunk>> chunks = store_.Committed(id);
  if (!chunks.ok()) return chunks.status();
  const absl::StatusOr<std::string> header =
      FormatNpyHeader(NpyType::kFloat32, OutputShape(*job), kWrittenNpyHeader);
  if (!header.ok()) return header.status();
  const int64_t size = static_cast<int64_t>(header->size()) + job->output_bytes;
  const auto range = ParseRange(request.range, size);
  ApiResponse response;
  if (absl::IsOutOfRange(range.status())) {
    response = Problem(range.status());
    response.headers.emplace_back("Content-Range", absl::StrCat("bytes */", size));
    return response;
  }
  if (!range.ok()) return range.status();
  const auto [first, count] = range->value_or(std::pair<int64_t, int64_t>(0, size));
  response.content_type = "application/octet-stream";
  response.headers.emplace_back("Accept-Ranges", "bytes");
  if (range->has_value()) {
    response.status = 206;
    response.headers.emplace_back("Content-Range",
                                  absl::StrCat("bytes ", first, "-", first + count - 1, "/", size));
  }
  AddBody(*job, *chunks, *header, first, count, response);
  return response;
}

bool Api::IsUpload(const ApiRequest& request) {
  return request.method == "POST" &&
         request.target.substr(0, request.target.find('?')) == "/v1/files";
}

absl::StatusOr<Upload> Api::StartUpload(const ApiRequest& request) {
  const absl::StatusOr<Target> target = ParseTarget(request.target);
  if (!target.ok()) return target.status();
  absl::Status query = OnlyQuery(*target, {"name"});
  if (!query.ok()) return query;
  Upload upload;
  upload.file_.id = NewId();
  if (const auto name = target->query.find("name"); name != target->query.end()) {
    upload.file_.name = name->second;
  }
  // It is a label, and what tells .fa from .txt; it never becomes a path.
  if (upload.file_.name.size() > kMostName ||
      upload.file_.name.find_first_of(std::string("/\0", 2)) != std::string::npos) {
    return Bad("name", absl::StrCat("\"", upload.file_.name, "\""),
               absl::StrCat("a file's name without '/', of at most ", kMostName, " bytes"));
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = objects_.Create(FileName(upload.file_.id));
  if (!writer.ok()) return writer.status();
  upload.writer_ = *std::move(writer);
  return upload;
}

ApiResponse Api::FinishUpload(Upload upload) {
  StoredFile& file = upload.file_;
  const absl::StatusOr<ObjectInfo> written = upload.writer_->Commit();
  if (!written.ok()) return Problem(written.status());
  file.bytes = written->bytes;
  file.sha256 = written->sha256;
  file.created_ms = WallClockMs();
  const absl::Status added = store_.AddFile(file);
  if (!added.ok()) return Problem(added);
  return Json(201, {{"id", file.id},
                    {"name", ToUtf8(file.name)},
                    {"bytes", file.bytes},
                    {"sha256", file.sha256}});
}

}  // namespace longwave

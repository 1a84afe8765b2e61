// Jobs.
#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "scheduler/finish_job.h"
#include "services/cluster/api.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr size_t kMostKey = 255;

absl::StatusOr<NewJob> ParseJob(const std::string& body) {
  absl::StatusOr<Fields> fields = Fields::Parse(body);
  if (!fields.ok()) return fields.status();
  NewJob job;
  JobSpec& spec = job.spec;
  std::string task = Name(spec.task);
  int64_t limit_seconds = 0;
  const int64_t most = std::numeric_limits<int64_t>::max();
  absl::Status status = fields->Text("model", spec.model)
                            .Text("input", spec.input)
                            .Text("task", task)
                            .Number("chunk", spec.chunk, 1, Api::kMostChunk)
                            .Number("window", spec.window, 1, most)
                            .Number("max_logits_bytes", spec.max_logits_bytes, 1, most)
                            .Number("max_new_tokens", spec.max_new_tokens, 1, Api::kMostNewTokens)
                            .Real("temperature", spec.temperature)
                            .Number("top_k", spec.top_k, 0, most)
                            .Real("top_p", spec.top_p)
                            .Number("seed", spec.seed)
                            .Number("priority", job.priority, -kMostPriority, kMostPriority)
                            .Number("time_limit_seconds", limit_seconds, 1, Api::kMostTimeLimit)
                            .Flag("trace", job.trace)
                            .Done();
  if (!status.ok()) return status;
  job.time_limit_ms = limit_seconds * 1000;
  const absl::StatusOr<Task> parsed = ParseTask(task);
  if (!parsed.ok()) return parsed.status();
  spec.task = *parsed;
  for (const char* needed : {"model", "input"}) {
    if (!fields->Has(needed)) return Bad(needed, "(none)", "given");
  }
  status = CheckFieldsGiven(
      spec, [&](const std::string& field) { return fields->Has(field.c_str()); },
      [&](const std::string& field) {
        return absl::StrCat(field, " ", fields->ValueOf(field.c_str()));
      });
  if (!status.ok()) return status;
  return job;
}

int64_t ColumnsOf(Task task, const ModelConfig& config) {
  switch (task) {
    case Task::kEmbed:
    case Task::kTransform:
      return config.d_model;
    case Task::kLogits:
      return config.vocab_size;
    default:
      return 0;
  }
}

boost::json::array JsonOf(const std::vector<int64_t>& shape) {
  return boost::json::array(shape.begin(), shape.end());
}

}  // namespace

boost::json::object ToJson(const Job& job, int64_t now_ms) {
  boost::json::object object = {{"id", job.id},
                                {"state", Name(job.state)},
                                {"tenant", job.tenant},
                                {"model", job.spec.model},
                                {"model_sha256", job.model_hash},
                                {"task", Name(job.spec.task)},
                                {"input", job.spec.input},
                                {"chunk", job.spec.chunk},
                                {"priority", job.priority},
                                {"created_ms", job.created_ms}};
  if (!job.created_by.empty()) object["created_by"] = ToUtf8(job.created_by);
  if (job.trace) object["trace"] = true;
  if (job.time_limit_ms > 0) object["time_limit_seconds"] = job.time_limit_ms / 1000;
  if (job.spec.task == Task::kEmbed && job.spec.window != JobSpec().window) {
    object["window"] = job.spec.window;
  }
  if (job.spec.task == Task::kLogits) object["max_logits_bytes"] = job.spec.max_logits_bytes;
  if (job.spec.task == Task::kGenerate) {
    object["max_new_tokens"] = job.spec.max_new_tokens;
    object["temperature"] = job.spec.temperature;
    object["top_k"] = job.spec.top_k;
    object["top_p"] = job.spec.top_p;
    object["seed"] = job.spec.seed;
  }
  if (job.sequences > 1) object["sequences"] = job.sequences;
  if (job.started_ms > 0) object["started_ms"] = job.started_ms;
  if (job.finished_ms > 0) object["finished_ms"] = job.finished_ms;
  if (!job.error.empty()) object["error"] = ToUtf8(job.error);
  boost::json::object progress = {{"tokens_done", job.tokens_done},
                                  {"chunks_done", job.committed},
                                  {"tokens_computed", job.computed}};
  if (job.length >= 0) {
    progress["tokens"] = job.length;
    progress["chunks"] = job.chunk_count;
    progress["chunk_states"] = boost::json::object{{"committed", job.committed},
                                                   {"leased", job.leases()},
                                                   {"waiting", job.chunk_count - job.next}};
  }
  const int64_t until = job.finished_ms > 0 ? job.finished_ms : now_ms;
  if (job.started_ms > 0 && until > job.started_ms && job.committed > 0) {
    const double speed = 1000.0 * job.tokens_done / (until - job.started_ms);
    progress["tokens_per_second"] = speed;
    if (job.state == JobState::kRunning) {
      progress["seconds_left"] = (job.length - job.tokens_done) / speed;
    }
  }
  object["progress"] = std::move(progress);
  if (job.state == JobState::kSucceeded) {
    boost::json::object output = {{"dtype", OutputType(job)}};
    if (OutputFilesOf(job) > 1) {
      output["files"] = OutputFilesOf(job);
    } else {
      output["shape"] = JsonOf(OutputShape(job, {"", 1, job.length / job.sequences}));
    }
    object["output"] = std::move(output);
  }
  return object;
}

// Of what is asked of it.
absl::StatusOr<ModelEntry> Api::FindModel(const JobSpec& job) {
  absl::StatusOr<ModelEntry> model = models_.Find(job.model);
  if (!model.ok()) return model.status();
  const bool signals = model->config.type == ModelConfig::Type::kS4d;
  if (signals == (job.task == Task::kTransform)) return model;
  return Bad(
      "task", Quoted(Name(job.task)),
      absl::StrCat(signals ? "transform" : "one of score, embed, logits, generate", " with model ",
                   job.model, ", which is a ", signals ? "stack of S4D layers" : "language model"));
}

absl::StatusOr<ModelEntry> Api::FindLanguageModel(const std::string& name) {
  absl::StatusOr<ModelEntry> model = models_.Find(name);
  if (!model.ok()) return model.status();
  if (model->config.type != ModelConfig::Type::kH3) {
    return Bad("model", Quoted(name), "a language model: this one is a stack of S4D layers");
  }
  if (!model->config.attn_layer_idx.empty()) {
    return Bad(
        "model", Quoted(name),
        absl::StrCat("one without attention: this one has ", model->config.attn_layer_idx.size(),
                     " such layers, whose caches no boundary holds"));
  }
  return model;
}

Api::Answer Api::CreateJob(const Call& call) {
  absl::StatusOr<NewJob> parsed = ParseJob(call.request.body);
  if (!parsed.ok()) return parsed.status();
  NewJob& job = *parsed;
  const std::string& key = call.request.idempotency_key;
  if (key.size() > kMostKey || !IsPlainText(key)) {
    return Bad("Idempotency-Key", Quoted(key),
               absl::StrCat("text of at most ", kMostKey, " bytes, this has ", key.size()));
  }
  job.idempotency_key = key;
  const absl::StatusOr<ModelEntry> model = FindModel(job.spec);
  if (!model.ok()) return model.status();
  const absl::StatusOr<StoredFile> input = FindFile(call, job.spec.input);
  if (absl::IsNotFound(input.status())) {
    return Bad("input", Quoted(job.spec.input), "an uploaded file's id");
  }
  if (!input.ok()) return input.status();
  job.id = NewId();
  job.tenant = call.who.tenant;
  job.created_by = call.who.name;
  job.model_hash = model->hash;
  job.columns = ColumnsOf(job.spec.task, model->config);
  job.serial = job.spec.task == Task::kGenerate || !model->config.attn_layer_idx.empty();
  const absl::StatusOr<Job> created = jobs_.Create(job, call.now_ms);
  if (!created.ok()) return created.status();
  if (hooks_.job_created) hooks_.job_created();
  ApiResponse response =
      JsonResponse(created->id == job.id ? 201 : 200, ToJson(*created, call.now_ms));
  response.headers.emplace_back("Location", absl::StrCat("/v1/jobs/", created->id));
  return response;
}

Api::Answer Api::ListJobs(const Call& call) {
  JobFilter filter;
  if (const std::string state = QueryText(call.query, "state"); !state.empty()) {
    const absl::StatusOr<JobState> parsed = ParseJobState(state);
    if (!parsed.ok()) return parsed.status();
    filter.state = *parsed;
  }
  if (const std::string task = QueryText(call.query, "task"); !task.empty()) {
    const absl::StatusOr<Task> parsed = ParseTask(task);
    if (!parsed.ok()) return parsed.status();
    filter.task = *parsed;
  }
  filter.model = QueryText(call.query, "model");
  if (!filter.model.empty() && !CouldBeId(filter.model)) {
    return Bad("model", Quoted(filter.model), "a model's name");
  }
  const absl::StatusOr<Page> page = AskedPage(call, "jobs");
  if (!page.ok()) return page.status();
  filter.tenant = page->tenant;
  const absl::StatusOr<std::vector<Job>> jobs = jobs_.List(filter, page->before, page->limit);
  if (!jobs.ok()) return jobs.status();
  boost::json::array list;
  for (const Job& job : *jobs) list.push_back(ToJson(job, call.now_ms));
  return page->Answer(std::move(list), jobs->empty() ? 0 : jobs->back().number);
}

absl::StatusOr<Job> Api::FindJob(const Call& call) {
  const std::string& id = call.ids[0];
  if (CouldBeId(id)) {
    absl::StatusOr<Job> job = jobs_.Get(id);
    if (!absl::IsNotFound(job.status()) && (!job.ok() || call.who.MaySee(job->tenant))) return job;
  }
  return absl::NotFoundError(absl::StrCat("there is no job ", Quoted(id)));
}

Api::Answer Api::GetJob(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  if (!job.ok()) return job.status();
  return JsonResponse(200, ToJson(*job, call.now_ms));
}

Api::Answer Api::ListSequences(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  const absl::StatusOr<int64_t> from =
      QueryNumber(call.query, "from", 0, std::numeric_limits<int64_t>::max(), 0);
  const absl::StatusOr<int64_t> limit = QueryNumber(call.query, "limit", 1, kMostListed, 100);
  if (!job.ok()) return job.status();
  if (!from.ok()) return from.status();
  if (!limit.ok()) return limit.status();
  if (job->length < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", job->id, " is ", Name(job->state), ": its input was not read yet"));
  }
  const absl::StatusOr<std::vector<SequenceRow>> rows = jobs_.Sequences(*job, *from, *limit);
  if (!rows.ok()) return rows.status();
  boost::json::array list;
  for (const SequenceRow& row : *rows) {
    for (int64_t number = std::max(row.number, *from); number < row.number + row.repeats;
         ++number) {
      if (static_cast<int64_t>(list.size()) == *limit) break;
      boost::json::object sequence = {{"number", number}, {"tokens", row.given}};
      if (job->batch == 0) {
        if (!row.name.empty()) sequence["name"] = row.name;
        sequence["shape"] = JsonOf(OutputShape(*job, row));
      }
      list.push_back(std::move(sequence));
    }
  }
  const int64_t end = *from + static_cast<int64_t>(list.size());
  boost::json::object answer = {{"sequences", std::move(list)}};
  if (end < job->sequences) answer["next"] = end;
  return JsonResponse(200, answer);
}

Api::Answer Api::CancelJob(const Call& call) {
  const absl::StatusOr<Job> found = FindJob(call);
  if (!found.ok()) return found.status();
  const absl::StatusOr<Job> job = jobs_.Cancel(found->id, call.now_ms);
  if (!job.ok()) return job.status();
  LeftOver(RemoveObjects(*job, false, jobs_, objects_));
  return JsonResponse(200, ToJson(*job, call.now_ms));
}

Api::Answer Api::DeleteJob(const Call& call) {
  const absl::StatusOr<Job> job = FindJob(call);
  if (!job.ok()) return job.status();
  absl::Status status = jobs_.Delete(job->id);
  if (absl::IsUnavailable(status) && IsOver(job->state) && !jobs_.database().shared()) {
    // Where the objects are on the database's disk, and that is full, they make room for the
    // change.
    LeftOver(RemoveObjects(*job, false, jobs_, objects_));
    status = jobs_.Delete(job->id);
  }
  if (!status.ok()) return status;
  LeftOver(RemoveObjects(*job, false, jobs_, objects_));
  ApiResponse response;
  response.status = 204;
  return response;
}

}  // namespace longwave

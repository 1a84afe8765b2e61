// Sessions: streams of tokens under a name, whose state is kept between requests.
//
// A session keeps the boundary after all of its tokens but the last, and that last one, `pending`:
// the score of a token needs the hidden state of the token before, which no boundary holds. An
// append is a job over `pending` and the new tokens, cut before its last token. So the boundary
// after its first chunk is the session's next one, and its output are the scores of the new tokens.
// The session's row changes by compare-and-set once the job has succeeded: a server that dies in
// between leaves the session as it was, and of two appends at a time one is refused.
#include <cmath>
#include <cstring>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "formats/boundary.h"
#include "formats/npy.h"
#include "scheduler/finish_job.h"
#include "scheduler/protocol/messages.h"
#include "services/cluster/api.h"
#include "services/cluster/planner.h"

namespace longwave {
namespace {

constexpr int64_t kMostWait = 300;  // seconds

int64_t TokensOf(const Session& session) {
  return session.position + static_cast<int64_t>(!session.pending.empty());
}

// A session's id is its tenant and its name: TENANT/NAME. Neither has a '/'.
std::string SessionId(const std::string& tenant, const std::string& name) {
  return absl::StrCat(tenant, "/", name);
}
std::string NameOf(const Session& session) { return session.id.substr(session.tenant.size() + 1); }

boost::json::object ToJson(const Session& session) {
  return {{"name", NameOf(session)},         {"tenant", session.tenant},
          {"model", session.model},          {"model_sha256", session.model_hash},
          {"tokens", TokensOf(session)},     {"created_ms", session.created_ms},
          {"updated_ms", session.updated_ms}};
}

struct AppendRequest {
  std::vector<int32_t> tokens;
  int64_t at = -1, seconds = 60;
};

absl::StatusOr<AppendRequest> ParseAppend(const std::string& body, const Session& session,
                                          const ModelConfig& config) {
  absl::StatusOr<Fields> fields = Fields::Parse(body);
  if (!fields.ok()) return fields.status();
  AppendRequest append;
  std::string text;
  std::optional<std::vector<int32_t>> tokens;
  absl::Status status = fields->AnyText("text", text, Api::kMostAppended)
                            .Numbers("tokens", tokens, Api::kMostAppended)
                            .Number("at", append.at, 0, INT64_MAX)
                            .Number("timeout_seconds", append.seconds, 1, kMostWait)
                            .Done();
  if (!status.ok()) return status;
  if (fields->Has("text") == tokens.has_value()) {
    return Bad("text, tokens", tokens.has_value() ? "(both)" : "(none)", "given, one of them");
  }
  if (tokens.has_value()) {
    append.tokens = *std::move(tokens);
  } else if (config.tokenizer == "bytes") {
    for (const char byte : text) append.tokens.push_back(static_cast<uint8_t>(byte));
  } else {
    return Bad("text", Quoted(text),
               absl::StrCat("left out: model ", session.model, " has no tokenizer; give tokens"));
  }
  if (append.tokens.empty()) return Bad("tokens", "[]", "at least one");
  for (size_t i = 0; i < append.tokens.size(); ++i) {
    if (append.tokens[i] >= config.vocab_size) {
      return Bad(absl::StrCat("tokens[", i, "]"), absl::StrCat(append.tokens[i]),
                 absl::StrCat("below the vocabulary, ", config.vocab_size));
    }
  }
  return append;
}

// The tokens as the .npy file that a job takes.
absl::StatusOr<std::string> TokenFile(const std::vector<int32_t>& tokens) {
  absl::StatusOr<std::string> bytes =
      FormatNpyHeader(NpyType::kInt32, {static_cast<int64_t>(tokens.size())}, kWrittenNpyHeader);
  if (!bytes.ok()) return bytes.status();
  bytes->append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t));
  return bytes;
}

}  // namespace

Api::Answer Api::CreateSession(const Call& call) {
  absl::StatusOr<Fields> fields = Fields::Parse(call.request.body);
  if (!fields.ok()) return fields.status();
  Session session;
  std::string name;
  absl::Status status = fields->Text("name", name).Text("model", session.model).Done();
  if (!status.ok()) return status;
  if (!IsName(name)) {
    return Bad("name", Quoted(name), "1 to 63 of [A-Za-z0-9._-], a letter or digit first");
  }
  const absl::StatusOr<ModelEntry> model = FindLanguageModel(session.model);
  if (!model.ok()) return model.status();
  session.tenant = call.who.tenant;
  session.model_hash = model->hash;
  session.created_ms = session.updated_ms = call.now_ms;
  session.id = SessionId(session.tenant, name);
  status = sessions_.Create(session).status();
  if (absl::IsAlreadyExists(status)) {
    return absl::AlreadyExistsError(absl::StrCat("there is a session ", Quoted(name), " already"));
  }
  if (!status.ok()) return status;
  ApiResponse response = JsonResponse(201, ToJson(session));
  response.headers.emplace_back("Location", absl::StrCat("/v1/sessions/", name));
  return response;
}

Api::Answer Api::ListSessions(const Call& call) {
  const absl::StatusOr<Page> page = AskedPage(call, "sessions");
  if (!page.ok()) return page.status();
  const absl::StatusOr<std::vector<Session>> sessions =
      sessions_.List(page->tenant, page->before, page->limit);
  if (!sessions.ok()) return sessions.status();
  boost::json::array list;
  for (const Session& session : *sessions) list.push_back(ToJson(session));
  return page->Answer(std::move(list), sessions->empty() ? 0 : sessions->back().number);
}

absl::StatusOr<Session> Api::FindSession(const Call& call) {
  if (IsName(call.ids[0])) {
    absl::StatusOr<Session> session = sessions_.Get(SessionId(call.who.tenant, call.ids[0]));
    if (!absl::IsNotFound(session.status())) return session;
  }
  return absl::NotFoundError(absl::StrCat("there is no session ", Quoted(call.ids[0])));
}

Api::Answer Api::GetSession(const Call& call) {
  const absl::StatusOr<Session> session = FindSession(call);
  if (!session.ok()) return session.status();
  return JsonResponse(200, ToJson(*session));
}

Api::Answer Api::DeleteSession(const Call& call) {
  const absl::StatusOr<Session> session = FindSession(call);
  if (!session.ok()) return session.status();
  absl::Status status = sessions_.Delete(session->id);
  if (!status.ok()) return status;
  if (!session->boundary.empty()) LeftOver(objects_.Delete(session->boundary));
  ApiResponse response;
  response.status = 204;
  return response;
}

// An append under way.
struct Api::Append {
  Session session;
  std::string name;
  std::vector<int32_t> tokens;  // the new ones
  std::string job, file;
  int64_t until_ms = 0;
};

Api::Answer Api::AppendToSession(const Call& call) {
  auto append = std::make_shared<Append>();
  absl::StatusOr<Session> session = FindSession(call);
  if (!session.ok()) return session.status();
  append->session = *std::move(session);
  const Session& old = append->session;
  const absl::StatusOr<ModelEntry> model = FindLanguageModel(old.model);
  if (!model.ok()) return model.status();
  if (model->hash != old.model_hash) {
    return absl::FailedPreconditionError(absl::StrCat("session ", NameOf(old), ": model ",
                                                      old.model, " is ", model->hash,
                                                      " now, its state is of ", old.model_hash));
  }
  absl::StatusOr<AppendRequest> request = ParseAppend(call.request.body, old, model->config);
  if (!request.ok()) return request.status();
  if (request->at >= 0 && request->at != TokensOf(old)) {
    return absl::FailedPreconditionError(absl::StrCat("at ", request->at, ": session ", NameOf(old),
                                                      " has ", TokensOf(old), " tokens"));
  }
  append->tokens = std::move(request->tokens);
  append->until_ms = call.now_ms + request->seconds * 1000;
  std::vector<int32_t> all = append->tokens;
  int32_t pending = 0;
  if (absl::SimpleAtoi(old.pending, &pending)) all.insert(all.begin(), pending);
  if (all.size() == 1) return EndAppend(*append, {}, "");  // nothing to compute yet

  const absl::StatusOr<std::string> bytes = TokenFile(all);
  if (!bytes.ok()) return bytes.status();
  StoredFile file;
  file.id = append->file = NewId();
  const absl::StatusOr<ObjectInfo> written = objects_.Write(FileName(file.id), *bytes);
  if (!written.ok()) return OfObjects(written.status());
  file.name = absl::StrCat(NameOf(old), ".npy");
  file.bytes = written->bytes;
  file.sha256 = written->sha256;
  file.created_ms = call.now_ms;
  file.tenant = old.tenant;
  absl::Status added = jobs_.AddFile(file);
  if (!added.ok()) {
    LeftOver(objects_.Delete(FileName(file.id)));
    return added;
  }
  NewJob job;
  job.id = append->job = NewId();
  job.spec.model = old.model;
  job.spec.input = file.id;
  job.spec.chunk = static_cast<int64_t>(all.size()) - 1;
  job.model_hash = old.model_hash;
  job.tenant = old.tenant;
  job.created_by = call.who.name;
  job.priority = kMostPriority;  // somebody waits
  job.time_limit_ms = request->seconds * 1000;
  // At position 0 there is no such object, and none is read.
  job.start_boundary = old.boundary.empty() ? "sessions/none" : old.boundary;
  job.start_position = old.position;
  const absl::StatusOr<Job> created = jobs_.Create(job, call.now_ms);
  if (!created.ok()) {
    jobs_.DeleteFile(file.id).IgnoreError();
    LeftOver(objects_.Delete(FileName(file.id)));
    return created.status();
  }
  if (hooks_.job_created) hooks_.job_created();
  ApiResponse response;
  response.later = [this, append]() -> std::optional<ApiResponse> {
    absl::StatusOr<Job> found = jobs_.Get(append->job);
    const bool late = WallClockMs() >= append->until_ms;
    if (found.ok() && !IsOver(found->state) && !late) return std::nullopt;
    Answer answer = found.ok() ? FinishAppend(*append, *found) : Answer(found.status());
    return answer.ok() ? *std::move(answer) : Problem(answer.status());
  };
  return response;
}

Api::Answer Api::FinishAppend(const Append& append, const Job& job) {
  Answer answer = absl::DeadlineExceededError(absl::StrCat(
      "session ", NameOf(append.session), ": no answer in time; nothing was appended"));
  if (!IsOver(job.state)) {
    jobs_.Cancel(job.id, WallClockMs()).IgnoreError();
  } else if (job.state != JobState::kSucceeded) {
    answer = absl::UnavailableError(absl::StrCat("session ", NameOf(append.session), ": job ",
                                                 Name(job.state), ": ", job.error));
  } else {
    answer = TakeScores(append, job);
  }
  // Nobody needs them any more; what fails here is only left over.
  if (jobs_.Delete(job.id).ok()) {
    LeftOver(RemoveObjects(job, false, jobs_, objects_));
    if (jobs_.DeleteFile(append.file).ok()) {
      LeftOver(objects_.Delete(FileName(append.file)));
    }
  }
  return answer;
}

Api::Answer Api::TakeScores(const Append& append, const Job& job) {
  const absl::StatusOr<std::vector<CommittedChunk>> chunks = jobs_.Committed(job.id);
  if (!chunks.ok()) return chunks.status();
  std::string bytes;
  for (const CommittedChunk& chunk : *chunks) {
    const absl::StatusOr<std::string> part = objects_.ReadAll(
        OutputName(job.id, chunk.epoch, chunk.chunk), chunk.output_bytes, chunk.output_sha256);
    if (!part.ok()) return OfObjects(part.status());
    bytes += *part;
  }
  std::vector<float> scores(append.tokens.size());
  // At the start of a sequence the first entry is that of `pending`, and none.
  const size_t skip =
      append.session.position == 0 && !append.session.pending.empty() ? sizeof(float) : 0;
  if (chunks->empty() || bytes.size() != skip + scores.size() * sizeof(float)) {
    return absl::DataLossError(
        absl::StrCat("job ", job.id, ": ", bytes.size(), " bytes of ", scores.size(), " scores"));
  }
  std::memcpy(scores.data(), bytes.data() + skip, bytes.size() - skip);
  const CommittedChunk& first = chunks->front();
  const absl::StatusOr<std::string> boundary = objects_.ReadAll(
      BoundaryName(job.id, first.epoch, first.chunk), kMostBoundary, first.boundary_sha256);
  if (!boundary.ok()) return OfObjects(boundary.status());
  const std::string name = absl::StrCat("sessions/", append.session.tenant, "/",
                                        NameOf(append.session), "/", job.id, ".boundary");
  const absl::StatusOr<ObjectInfo> written = objects_.Write(name, *boundary);
  if (!written.ok()) return OfObjects(written.status());
  return EndAppend(append, scores, name);
}

Api::Answer Api::EndAppend(const Append& append, const std::vector<float>& scores,
                           const std::string& boundary) {
  Session session = append.session;
  session.pending = absl::StrCat(append.tokens.back());
  session.updated_ms = WallClockMs();
  if (!boundary.empty()) {
    session.position = TokensOf(append.session) + static_cast<int64_t>(append.tokens.size()) - 1;
    session.boundary = boundary;
  }
  const absl::Status changed = sessions_.CompareAndSet(session).status();
  if (!changed.ok()) {
    if (!boundary.empty()) LeftOver(objects_.Delete(boundary));
    if (!absl::IsAborted(changed)) return changed;
    return absl::AbortedError(absl::StrCat("session ", NameOf(session),
                                           ": another request appended to it meanwhile; nothing "
                                           "was appended"));
  }
  if (!boundary.empty() && !append.session.boundary.empty()) {
    LeftOver(objects_.Delete(append.session.boundary));
  }
  boost::json::array list;
  for (const float score : scores) {
    list.push_back(std::isnan(score) ? boost::json::value(nullptr) : boost::json::value(score));
  }
  if (scores.empty()) list.push_back(nullptr);
  return JsonResponse(
      200, {{"name", NameOf(session)}, {"tokens", TokensOf(session)}, {"scores", std::move(list)}});
}

}  // namespace longwave

// The HTTP API: any method, target, headers and body, over a real database in memory and a folder.
//
// An input is lines, METHOD, TARGET, then the headers' values in the order of ApiRequest, then the
// body; what is missing is empty.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "boost/json/parse.hpp"
#include "scheduler/finish_job.h"
#include "scheduler/protocol/messages.h"
#include "services/cluster/api.h"
#include "tests/fuzz/fuzz_check.h"

namespace longwave {
namespace {

constexpr char kToken[] = "an-admins-token-of-some-length";

// One for the process: what an input makes is removed after it, so that inputs stay independent.
class Fuzzed {
 public:
  Fuzzed() {
    char folder[] = "/tmp/fuzz_api_XXXXXX";
    FUZZ_CHECK(mkdtemp(folder) != nullptr);
    folder_ = folder;
    std::filesystem::create_directories(folder_ + "/models");
    jobs_ = *JobStore::Open(*OpenSqlite(":memory:"));
    tokens_ = std::make_unique<TokenStore>(jobs_->database());
    sessions_ = std::make_unique<SessionStore>(jobs_->database());
    objects_ = *ObjectStore::Open("file://" + folder_ + "/objects");
    models_ = std::make_unique<ModelCatalog>(folder_ + "/models");
    WriteModel();
    Restore();
    const Api::Stores stores{*jobs_, *tokens_, *sessions_, *objects_, *models_};
    open_ = std::make_unique<Api>(stores, Authenticator::Options{});
    guarded_ = std::make_unique<Api>(stores, Authenticator::Options{true, kToken});
  }
  ~Fuzzed() { std::filesystem::remove_all(folder_); }

  // Puts back what is always there, and takes away all else: file f, job j, which succeeded, and
  // session s.
  void Restore() {
    const absl::StatusOr<std::vector<Job>> jobs = jobs_->List({}, INT64_MAX, 100);
    FUZZ_CHECK(jobs.ok());
    for (const Job& job : *jobs) {
      if (job.id == "j") continue;
      if (!IsOver(job.state)) FUZZ_CHECK(jobs_->Cancel(job.id, 1).ok());
      FUZZ_CHECK(jobs_->Delete(job.id).ok());
      if (job.spec.input != "f") FUZZ_CHECK(jobs_->DeleteFile(job.spec.input).ok());
    }
    if (!jobs_->GetFile("f").ok()) {
      FUZZ_CHECK(jobs_->AddFile({"f", "a.txt", std::string(64, '0'), 4, 1}).ok());
    }
    if (!jobs_->Get("j").ok()) MakeJob();
    const absl::StatusOr<Session> session = sessions_->Get("default/s");
    if (session.ok() && session->version == 1) return;
    if (session.ok()) FUZZ_CHECK(sessions_->Delete("default/s").ok());
    Session fresh;
    fresh.id = "default/s";
    fresh.tenant = kDefaultTenant;
    fresh.model = "tiny";
    fresh.model_hash = models_->Find("tiny")->hash;
    fresh.created_ms = fresh.updated_ms = 1;
    fresh.pending = "65";
    FUZZ_CHECK(sessions_->Create(fresh).ok());
  }

  ApiResponse Ask(ApiRequest request, bool guarded) {
    Api& api = guarded ? *guarded_ : *open_;
    if (Api::IsUpload(request)) {
      absl::StatusOr<Upload> upload =
          api.StartUpload(request, static_cast<int64_t>(request.body.size()));
      if (!upload.ok()) return Problem(upload.status());
      const absl::Status kept = upload->Append(request.body);
      return kept.ok() ? api.FinishUpload(*std::move(upload)) : Problem(kept);
    }
    return api.Handle(request);
  }

  // What was made goes by the door that it came through.
  void Remove(const std::string& location) {
    if (location.rfind("/v1/jobs/", 0) == 0) Ask(Simple("POST", location + "/cancel"), false);
    FUZZ_CHECK(Ask(Simple("DELETE", location), false).status == 204);
  }
  void RemoveTokens() {
    const absl::StatusOr<std::vector<Token>> tokens = tokens_->List("");
    for (const Token& token : *tokens) FUZZ_CHECK(tokens_->Revoke(token.id).ok());
  }

  static ApiRequest Simple(const std::string& method, const std::string& target) {
    ApiRequest request;
    request.method = method;
    request.target = target;
    return request;
  }

 private:
  void MakeJob() {
    NewJob job;
    job.id = "j";
    job.spec.model = "tiny";
    job.spec.input = "f";
    FUZZ_CHECK(jobs_->Create(job, 1).ok());
    FUZZ_CHECK(jobs_->SetPlan("j", {4, 1}, 1).ok());
    const auto leases = jobs_->LeaseChunks({{"w", 1 << 20}}, 1);
    FUZZ_CHECK(leases.ok() && leases->at(0).has_value());
    const ChunkKey key = leases->at(0)->key;
    const auto output = objects_->Write(OutputName("j", key.epoch, 0), std::string(16, 'x'));
    FUZZ_CHECK(output.ok());
    FUZZ_CHECK(jobs_->CommitChunks({{key, {0, key.epoch, 16, output->sha256, ""}}}, 1)->at(0).ok());
    FUZZ_CHECK(FinishJob(*jobs_->Get("j"), *jobs_, *objects_, 1).ok());
  }

  void WriteModel() {
    const std::string folder = folder_ + "/models/tiny";
    std::filesystem::create_directories(folder);
    FILE* config = std::fopen((folder + "/config.json").c_str(), "w");
    FUZZ_CHECK(config != nullptr);
    std::fputs(R"({"model_type":"h3","d_model":8,"n_layer":1,"d_inner":16,"vocab_size":256,)"
               R"("d_state":4,"head_dim":1,"attn_layer_idx":[],"tokenizer":"bytes"})",
               config);
    std::fclose(config);
    FILE* weights = std::fopen((folder + "/model.safetensors").c_str(), "w");
    FUZZ_CHECK(weights != nullptr && std::fclose(weights) == 0);
    const absl::StatusOr<ModelEntry> entry = models_->Find("tiny");
    if (!entry.ok()) std::fprintf(stderr, "%s\n", entry.status().ToString().c_str());
    FUZZ_CHECK(entry.ok());
  }

  std::string folder_;
  std::unique_ptr<JobStore> jobs_;
  std::unique_ptr<TokenStore> tokens_;
  std::unique_ptr<SessionStore> sessions_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<ModelCatalog> models_;
  std::unique_ptr<Api> open_, guarded_;
};

void CheckResponse(const ApiResponse& response) {
  static const auto* known = new std::set<int>{200, 201, 204, 206, 304, 400, 401, 403,
                                               404, 405, 409, 413, 416, 429, 503, 504};
  if (!known->contains(response.status)) {
    std::fprintf(stderr, "%d %s\n", response.status, response.body.c_str());
  }
  FUZZ_CHECK(known->contains(response.status));
  for (const auto& [name, value] : response.headers) {
    for (const char letter : name + value) FUZZ_CHECK(letter >= ' ' && letter < 127);
  }
  if (!response.stream && response.content_type.find("json") != std::string::npos &&
      !response.body.empty()) {
    boost::system::error_code code;
    const boost::json::value value = boost::json::parse(response.body, code);
    FUZZ_CHECK(!code && value.is_object());
    if (response.status >= 400) {
      FUZZ_CHECK(response.content_type == "application/problem+json");
      FUZZ_CHECK(value.at("detail").as_string().size() < 2000);
      FUZZ_CHECK(value.at("status").as_int64() == response.status);
    }
  }
}

std::string Line(std::string& text) {
  const size_t end = text.find('\n');
  std::string line = text.substr(0, end);
  text = end == std::string::npos ? "" : text.substr(end + 1);
  return line;
}

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longwave;
  static Fuzzed fuzzed;
  std::string rest(reinterpret_cast<const char*>(data), size);
  ApiRequest request;
  request.method = Line(rest);
  request.target = Line(rest);
  request.authorization = Line(rest);
  request.idempotency_key = Line(rest);
  request.range = Line(rest);
  request.if_range = Line(rest);
  request.if_none_match = Line(rest);
  request.last_event_id = Line(rest);
  request.body = rest;
  const bool guarded = !request.authorization.empty();
  ApiResponse response = fuzzed.Ask(request, guarded);
  if (response.later) {
    response.later();  // no worker will ever end it
    fuzzed.Restore();
    return 0;
  }
  CheckResponse(response);
  if (response.stream) response.stream().IgnoreError();
  // A wrong token opens nothing.
  const bool admitted = request.authorization.find(kToken) != std::string::npos;
  if (guarded && !admitted && request.target.rfind("/v1/", 0) == 0) {
    FUZZ_CHECK(response.status >= 400);
  }
  if (response.status == 201) {
    for (const auto& [name, value] : response.headers) {
      if (name == "Location") fuzzed.Remove(value);
    }
    fuzzed.RemoveTokens();
  }
  fuzzed.Restore();
  return 0;
}

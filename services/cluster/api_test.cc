#include "services/cluster/api.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "boost/json/array.hpp"
#include "boost/json/parse.hpp"
#include "formats/sha256.h"
#include "services/cluster/openapi.h"

namespace longwave {
namespace {

namespace json = boost::json;

std::string Lower(std::string text) {
  for (char& letter : text) letter = absl::ascii_tolower(letter);
  return text;
}

// A server's stores without the server.
class ApiTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/api_test_" + NewId();
    std::filesystem::create_directories(folder_);
    jobs_ = *JobStore::Open(*OpenSqlite(":memory:"));
    tokens_ = std::make_unique<TokenStore>(jobs_->database());
    sessions_ = std::make_unique<SessionStore>(jobs_->database());
    objects_ = *ObjectStore::Open("file://" + folder_);
    models_ = std::make_unique<ModelCatalog>(std::string(LONGWAVE_SOURCE_DIR) + "/examples");
    Open({});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Open(Authenticator::Options auth) {
    ApiHooks hooks;
    hooks.workers = [] {
      return std::vector<WorkerInfo>{{"w1", "cpu", 2, {{"j", 2, 3}}, 5, 1000, 100.0}};
    };
    hooks.metrics = [] { return "longwave_up 1\n"; };
    hooks.observe = [this](absl::string_view route, int status, double seconds) {
      observed_.push_back(absl::StrCat(route, " ", status));
    };
    api_ = std::make_unique<Api>(Api::Stores{*jobs_, *tokens_, *sessions_, *objects_, *models_},
                                 auth, hooks);
    api_->SetReady(absl::OkStatus());
  }

  ApiResponse Ask(const std::string& method, const std::string& target,
                  const std::string& body = "", const std::string& token = "") {
    ApiRequest request;
    request.method = method;
    request.target = target;
    request.body = body;
    if (!token.empty()) request.authorization = "Bearer " + token;
    return api_->Handle(request);
  }
  json::object Json(const ApiResponse& response, int status = 200) {
    EXPECT_EQ(response.status, status) << response.body;
    return json::parse(response.body).as_object();
  }
  std::string Detail(const ApiResponse& response, int status) {
    EXPECT_EQ(response.content_type, "application/problem+json");
    return std::string(Json(response, status).at("detail").as_string());
  }

  std::string UploadFile(const std::string& token = "") {
    ApiRequest request;
    request.method = "POST";
    request.target = "/v1/files?name=a.txt";
    if (!token.empty()) request.authorization = "Bearer " + token;
    absl::StatusOr<Upload> upload = api_->StartUpload(request, std::nullopt);
    EXPECT_TRUE(upload.ok()) << upload.status();
    EXPECT_TRUE(upload->Append("ACGTACGT").ok());
    return std::string(Json(api_->FinishUpload(*std::move(upload)), 201).at("id").as_string());
  }
  std::string NewJobOf(const std::string& token = "") {
    const std::string file = UploadFile(token);
    return std::string(
        Json(Ask("POST", "/v1/jobs", R"({"model":"h3-dna","input":")" + file + "\"}", token), 201)
            .at("id")
            .as_string());
  }
  std::string TokenOf(const std::string& tenant, Role role, const std::string& admin) {
    const std::string body =
        absl::StrCat(R"({"name":"t","tenant":")", tenant, R"(","role":")", Name(role), "\"}");
    return std::string(Json(Ask("POST", "/v1/tokens", body, admin), 201).at("token").as_string());
  }

  std::string folder_;
  std::unique_ptr<JobStore> jobs_;
  std::unique_ptr<TokenStore> tokens_;
  std::unique_ptr<SessionStore> sessions_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<ModelCatalog> models_;
  std::unique_ptr<Api> api_;
  std::vector<std::string> observed_;
};

// What a path's or an operation's parameters are, "$ref"s followed.
std::set<std::string> Parameters(const json::object& document, const json::object& owner,
                                 const std::string& in) {
  std::set<std::string> names;
  const auto* list = owner.if_contains("parameters");
  if (list == nullptr) return names;
  for (const json::value& entry : list->as_array()) {
    const json::object* parameter = &entry.as_object();
    if (const auto* reference = parameter->if_contains("$ref")) {
      const std::string path(reference->as_string());
      const std::string name = path.substr(path.rfind('/') + 1);
      parameter = &document.at("components").at("parameters").at(name).as_object();
    }
    if (parameter->at("in").as_string() == in) {
      names.insert(std::string(parameter->at("name").as_string()));
    }
  }
  return names;
}

TEST(OpenApi, HasEveryRouteAndNoOther) {
  const json::object document = json::parse(kOpenApi).as_object();
  const json::object& paths = document.at("paths").as_object();
  std::set<std::string> routes, described;
  for (const Api::Route& route : Api::Routes()) {
    const std::string name = absl::StrCat(route.method, " ", route.path);
    EXPECT_TRUE(routes.insert(name).second) << name << " is there twice";
    ASSERT_TRUE(paths.contains(route.path)) << name;
    const json::object& path = paths.at(route.path).as_object();
    ASSERT_TRUE(path.contains(Lower(route.method))) << name;
    const json::object& operation = path.at(Lower(route.method)).as_object();
    EXPECT_EQ(Parameters(document, operation, "query"),
              std::set<std::string>(route.query.begin(), route.query.end()))
        << name;
    std::set<std::string> braces;
    const std::string text = route.path;
    for (size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
      braces.insert(text.substr(at + 1, text.find('}', at) - at - 1));
    }
    EXPECT_EQ(Parameters(document, path, "path"), braces) << name;
    EXPECT_EQ(operation.contains("security"), !route.least.has_value()) << name;
    // Whoever takes a body says which, and that it may be too large.
    const bool body = (text != "/v1/files") && operation.contains("requestBody");
    EXPECT_EQ(operation.at("responses").as_object().contains("413"), body) << name;
    const bool forbids = route.least.value_or(Role::kReader) > Role::kReader;
    EXPECT_TRUE(!forbids || operation.at("responses").as_object().contains("403")) << name;
  }
  for (const auto& path : paths) {
    for (const auto& operation : path.value().as_object()) {
      if (operation.key() == "parameters") continue;
      std::string method(operation.key());
      for (char& letter : method) letter = absl::ascii_toupper(letter);
      described.insert(absl::StrCat(method, " ", std::string(path.key())));
    }
  }
  EXPECT_EQ(routes, described);
}

TEST_F(ApiTest, ServesItsDescription) {
  EXPECT_EQ(Ask("GET", "/openapi.json").body, kOpenApi);
  EXPECT_EQ(Ask("GET", "/metrics").body, "longwave_up 1\n");
}

TEST_F(ApiTest, ObservesRoutesNotTargets) {
  Ask("GET", "/v1/jobs/abc");
  Ask("GET", "/nothing/here");
  Ask("PUT", "/v1/jobs");
  EXPECT_EQ(observed_,
            (std::vector<std::string>{"GET /v1/jobs/{job} 404", "none 404", "none 405"}));
}

TEST_F(ApiTest, ReadyWhenTold) {
  EXPECT_EQ(Ask("GET", "/readyz").status, 200);
  api_->SetReady(absl::UnavailableError("the server drains"));
  EXPECT_EQ(Detail(Ask("GET", "/readyz"), 503), "the server drains");
  EXPECT_EQ(Ask("GET", "/healthz").status, 200);
}

TEST_F(ApiTest, TokensOpenWhatTheirRoleMay) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  const std::string user = TokenOf("red", Role::kUser, admin);
  const std::string reader = TokenOf("red", Role::kReader, admin);
  for (const Api::Route& route : Api::Routes()) {
    if (absl::StrContains(route.path, "{") || std::string(route.path) == "/v1/files") continue;
    const std::string name = absl::StrCat(route.method, " ", route.path);
    EXPECT_EQ(Ask(route.method, route.path).status == 401, route.least.has_value()) << name;
    EXPECT_EQ(Ask(route.method, route.path, "", reader).status == 403,
              route.least.value_or(Role::kReader) > Role::kReader)
        << name;
    EXPECT_EQ(Ask(route.method, route.path, "", user).status == 403,
              route.least.value_or(Role::kReader) > Role::kUser)
        << name;
    EXPECT_NE(Ask(route.method, route.path, "", admin).status, 403) << name;
  }
}

TEST_F(ApiTest, WhatIsWrongWithAToken) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  ApiRequest request;
  request.method = "GET";
  request.target = "/v1/jobs";
  for (const auto& [header, said] : std::vector<std::pair<std::string, std::string>>{
           {"", "none was given"},
           {"Basic YTpi", "must be \"Bearer TOKEN\""},
           {"Bearer", "must be \"Bearer TOKEN\""},
           {"Bearer short", "of 5 bytes"},
           {"Bearer " + std::string(600, 'x'), "of 600 bytes"},
           {"Bearer an-admins-token-of-some-lengtH", "not known"},
           {"Bearer " + NewToken(), "not known"}}) {
    request.authorization = header;
    const ApiResponse response = api_->Handle(request);
    EXPECT_TRUE(absl::StrContains(Detail(response, 401), said)) << response.body;
    EXPECT_EQ(response.headers[0].first, "WWW-Authenticate");
  }
  request.authorization = "bearer " + admin;
  EXPECT_EQ(api_->Handle(request).status, 200);
}

TEST_F(ApiTest, ARevokedOrExpiredTokenIsRefused) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  const json::object made =
      Json(Ask("POST", "/v1/tokens", R"({"name":"joe","days":1})", admin), 201);
  const std::string secret(made.at("token").as_string()), id(made.at("id").as_string());
  EXPECT_EQ(Ask("GET", "/v1/jobs", "", secret).status, 200);
  const std::string listed = Ask("GET", "/v1/tokens", "", admin).body;
  EXPECT_TRUE(absl::StrContains(listed, id));
  EXPECT_FALSE(absl::StrContains(listed, secret));
  EXPECT_FALSE(absl::StrContains(listed, HexSha256(secret)));
  EXPECT_EQ(Ask("DELETE", "/v1/tokens/" + id, "", admin).status, 204);
  EXPECT_TRUE(absl::StrContains(Detail(Ask("GET", "/v1/jobs", "", secret), 401), "revoked"));
  EXPECT_EQ(Ask("DELETE", "/v1/tokens/" + id, "", admin).status, 404);

  const std::string old = NewToken();
  ASSERT_TRUE(
      tokens_->Create({"old", HexSha256(old), "default", "ann", Role::kUser, 1, 2, 0}).ok());
  EXPECT_TRUE(absl::StrContains(Detail(Ask("GET", "/v1/jobs", "", old), 401), "has expired"));
}

TEST_F(ApiTest, AnotherTenantsThingsAreNotThere) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  const std::string red = TokenOf("red", Role::kUser, admin);
  const std::string blue = TokenOf("blue", Role::kUser, admin);
  const std::string job = NewJobOf(red), file = UploadFile(red);
  const std::string session = "0123456789abcdee";
  Json(Ask("POST", "/v1/sessions", R"({"name":")" + session + R"(","model":"h3-dna"})", red), 201);
  const std::string append = "/v1/sessions/" + session + "/append";
  for (const auto& [method, target] :
       std::vector<std::pair<std::string, std::string>>{{"GET", "/v1/jobs/" + job},
                                                        {"DELETE", "/v1/jobs/" + job},
                                                        {"POST", "/v1/jobs/" + job + "/cancel"},
                                                        {"GET", "/v1/jobs/" + job + "/output"},
                                                        {"GET", "/v1/jobs/" + job + "/trace"},
                                                        {"GET", "/v1/jobs/" + job + "/events"},
                                                        {"GET", "/v1/sessions/" + session},
                                                        {"DELETE", "/v1/sessions/" + session},
                                                        {"POST", append},
                                                        {"GET", "/v1/files/" + file},
                                                        {"DELETE", "/v1/files/" + file}}) {
    const std::string said = Detail(Ask(method, target, R"({"text":"A"})", blue), 404);
    EXPECT_TRUE(absl::StrContains(said, "there is no ")) << method << " " << target;
    // Word for word what is said where there really is none.
    const std::string none = "0123456789abcdef", id = target.substr(target.find('/', 4) + 1, 16);
    const auto of_none = [&](const std::string& text) {
      return absl::StrReplaceAll(text, {{id, none}});
    };
    EXPECT_EQ(Detail(Ask(method, of_none(target), R"({"text":"A"})", blue), 404), of_none(said));
  }
  EXPECT_EQ(Ask("GET", "/v1/sessions/" + session, "", red).status, 200);
  EXPECT_TRUE(Json(Ask("GET", "/v1/files", "", blue)).at("files").as_array().empty());
  EXPECT_TRUE(Json(Ask("GET", "/v1/sessions", "", blue)).at("sessions").as_array().empty());
  const std::string taken =
      Detail(Ask("POST", "/v1/jobs", R"({"model":"h3-dna","input":")" + file + "\"}", blue), 400);
  EXPECT_TRUE(absl::StrContains(taken, "input \"" + file + "\": must be an uploaded file's id"));
  EXPECT_TRUE(Json(Ask("GET", "/v1/jobs", "", blue)).at("jobs").as_array().empty());
  EXPECT_EQ(Json(Ask("GET", "/v1/jobs", "", red)).at("jobs").as_array().size(), 1u);
  EXPECT_EQ(Json(Ask("GET", "/v1/jobs?tenant=red", "", admin)).at("jobs").as_array().size(), 1u);
  EXPECT_EQ(Ask("GET", "/v1/jobs?tenant=red", "", blue).status, 403);
  EXPECT_EQ(Ask("GET", "/v1/jobs/" + job, "", admin).status, 200);
  EXPECT_FALSE(absl::StrContains(Ask("GET", "/v1/workers", "", red).body, "chunks"));
  EXPECT_TRUE(absl::StrContains(Ask("GET", "/v1/workers", "", admin).body, "chunks"));
}

TEST_F(ApiTest, AKeyIsOfItsTenant) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  std::set<std::string> ids;
  for (const char* tenant : {"red", "blue"}) {
    const std::string token = TokenOf(tenant, Role::kUser, admin);
    ApiRequest request;
    request.method = "POST";
    request.target = "/v1/jobs";
    request.authorization = "Bearer " + token;
    request.idempotency_key = "same";
    request.body = R"({"model":"h3-dna","input":")" + UploadFile(token) + "\"}";
    const std::string id(Json(api_->Handle(request), 201).at("id").as_string());
    EXPECT_EQ(Json(api_->Handle(request), 200).at("id").as_string(), id);
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 2u);
}

TEST_F(ApiTest, AnEventStreamGoesOnWhereItWas) {
  const std::string job = NewJobOf();
  ApiRequest request;
  request.method = "GET";
  request.target = "/v1/jobs/" + job + "/events";
  ApiResponse response = api_->Handle(request);
  ASSERT_TRUE(response.stream) << response.body;
  EXPECT_EQ(response.content_type, "text/event-stream");
  const std::string first = *response.stream();
  EXPECT_TRUE(absl::StrContains(first, "event: created\ndata: {\"job\":\"" + job)) << first;
  EXPECT_EQ(*response.stream(), "");
  const std::string id = first.substr(4, first.find('\n') - 4);
  ASSERT_TRUE(jobs_->Cancel(job, WallClockMs()).ok());

  request.last_event_id = id;
  response = api_->Handle(request);
  std::string second;
  for (int i = 0; i < 100 && second.empty(); ++i) {
    absl::SleepFor(absl::Milliseconds(20));  // streams share a look at the log
    second = *response.stream();
  }
  EXPECT_TRUE(absl::StrContains(second, "event: cancelled\n")) << second;
  EXPECT_FALSE(absl::StrContains(second, "created"));
  EXPECT_FALSE(response.stream().ok());  // the job is over
  request.last_event_id = "x1";
  EXPECT_TRUE(absl::StrContains(Detail(api_->Handle(request), 400), "Last-Event-ID \"x1\""));
}

TEST_F(ApiTest, QuotasRefuse) {
  const std::string admin = "an-admins-token-of-some-length";
  Open({true, admin});
  const std::string red = TokenOf("red", Role::kUser, admin);
  Json(Ask("PUT", "/v1/tenants/red", R"({"most_queued_jobs":1,"most_bytes":20})", admin));
  NewJobOf(red);
  const std::string file = UploadFile(red);
  Detail(Ask("POST", "/v1/jobs", R"({"model":"h3-dna","input":")" + file + "\"}", red), 429);
  ApiRequest request;
  request.method = "POST";
  request.target = "/v1/files?name=a.txt";
  request.authorization = "Bearer " + red;
  EXPECT_EQ(api_->StartUpload(request, 21).status().code(), absl::StatusCode::kResourceExhausted);
  absl::StatusOr<Upload> upload = api_->StartUpload(request, std::nullopt);
  ASSERT_TRUE(upload.ok());
  EXPECT_EQ(upload->Append(std::string(21, 'A')).code(), absl::StatusCode::kResourceExhausted);
  for (const char* body : {R"({"weight":0})", R"({"most_bytes":-1})", R"({"x":1})"}) {
    Detail(Ask("PUT", "/v1/tenants/red", body, admin), 400);
  }
  Detail(Ask("PUT", "/v1/tenants/..%2fx", "{}", admin), 400);
}

TEST(Problems, OfTheObjectStoreAreNotTheClients) {
  EXPECT_EQ(Problem(absl::ResourceExhaustedError("quota")).status, 429);
  const ApiResponse full = Problem(OfObjects(absl::ResourceExhaustedError("no room")));
  EXPECT_EQ(full.status, 507);
  EXPECT_TRUE(absl::StrContains(full.body, "\"the object store is full\"")) << full.body;
  EXPECT_EQ(Problem(OfObjects(absl::PermissionDeniedError("keys"))).status, 503);
  EXPECT_EQ(Problem(OfObjects(absl::DataLossError("hash"))).status, 500);
  const ApiResponse away = Problem(OfObjects(absl::UnavailableError("away")));
  EXPECT_EQ(away.status, 503);
  EXPECT_EQ(away.headers, (std::vector<std::pair<std::string, std::string>>{{"Retry-After", "5"}}));
  EXPECT_TRUE(OfObjects(absl::OkStatus()).ok());
}

TEST(Problems, SayNothingOfTheServersInside) {
  for (const absl::Status& status :
       {OfObjects(absl::ResourceExhaustedError("/srv/data/objects/files/a: No space left")),
        OfObjects(absl::UnavailableError("/srv/data/objects")),
        OfObjects(absl::PermissionDeniedError("/srv/data/objects")),
        OfObjects(absl::NotFoundError("/srv/data/objects")),
        SqlError(absl::StatusCode::kUnavailable, "/srv/data/jobs.sqlite (SELECT)", "it is away"),
        SqlError(absl::StatusCode::kInternal, "/srv/data/jobs.sqlite (SELECT)", "it failed")}) {
    const ApiResponse problem = Problem(status);
    EXPECT_GE(problem.status, 500) << problem.body;
    EXPECT_FALSE(absl::StrContains(problem.body, "/srv")) << problem.body;
    EXPECT_FALSE(absl::StrContains(problem.body, "SELECT")) << problem.body;
  }
}

TEST_F(ApiTest, ADatabaseThatFailsIsToldPlainly) {
  const std::string path = folder_ + "/jobs.sqlite";
  jobs_ = *JobStore::Open(*OpenSqlite(path));
  tokens_ = std::make_unique<TokenStore>(jobs_->database());
  sessions_ = std::make_unique<SessionStore>(jobs_->database());
  Open({});
  ASSERT_TRUE(jobs_->database()
                  .Write([](SqlConnection& connection) {
                    absl::Status gone = connection.Run("DROP TABLE jobs", {}).status();
                    if (!gone.ok()) return gone;
                    return connection.Run("DROP TABLE sessions", {}).status();
                  })
                  .ok());
  EXPECT_EQ(Detail(Ask("GET", "/v1/jobs"), 500), "the database failed");
  EXPECT_EQ(Detail(Ask("POST", "/v1/sessions", R"({"name":"s","model":"h3-dna"})"), 500),
            "the database failed");
}

TEST_F(ApiTest, ASessionMadeTwice) {
  const std::string session = R"({"name":"c1","model":"h3-dna"})";
  Json(Ask("POST", "/v1/sessions", session), 201);
  EXPECT_EQ(Detail(Ask("POST", "/v1/sessions", session), 409), "there is a session \"c1\" already");
}

// So that an object store that is away holds up nothing else.
TEST(Problems, WhatNeedsTheObjectStore) {
  const auto needs = [](const char* method, const char* target) {
    ApiRequest request;
    request.method = method;
    request.target = target;
    return Api::NeedsObjects(request);
  };
  EXPECT_TRUE(needs("POST", "/v1/files?name=x"));
  EXPECT_TRUE(needs("POST", "/v1/jobs/x/cancel"));
  EXPECT_TRUE(needs("POST", "/v1/sessions/x/append"));
  EXPECT_FALSE(needs("POST", "/v1/jobs"));
  EXPECT_FALSE(needs("GET", "/v1/jobs/x"));
  EXPECT_FALSE(needs("GET", "/none"));
}

// Whatever stands where an id is expected: there is none, and no path, query or log is led astray.
TEST_F(ApiTest, OddIdsAreOfNothing) {
  const std::vector<std::string> odd = {"..",
                                        "%2e%2e",
                                        "..%2f..%2fetc%2fpasswd",
                                        "%00",
                                        "a%00b",
                                        "%0d%0aSet-Cookie:%20x",
                                        "%ff%fe",
                                        "'%20OR%201=1--",
                                        "%25s%25n",
                                        std::string(5000, 'x')};
  int asked = 0;
  for (const Api::Route& route : Api::Routes()) {
    const std::string path = route.path;
    const size_t open = path.find('{');
    if (open == std::string::npos) continue;
    for (const std::string& id : odd) {
      std::string target = path;
      target.replace(open, path.find('}') - open + 1, id);
      const ApiResponse response = Ask(route.method, target, R"({"text":"A"})");
      // A tenant's name is not looked up but given; ".." takes the path's own last part away.
      const bool other = route.method == std::string("PUT") || id == ".." || id == "%2e%2e";
      EXPECT_TRUE(response.status == 404 || (other && response.status < 500))
          << route.method << " " << target << ": " << response.status << " " << response.body;
      if (response.status < 300) continue;
      const std::string said = Detail(response, response.status);
      EXPECT_LT(said.size(), 500u);
      EXPECT_EQ(said.find_first_of(std::string("\n\r\0", 3)), std::string::npos) << said;
      ++asked;
    }
  }
  EXPECT_GT(asked, 100);
  const absl::StatusOr<std::vector<Tenant>> tenants = jobs_->ListTenants();
  ASSERT_TRUE(tenants.ok());
  for (const Tenant& tenant : *tenants) EXPECT_TRUE(IsName(tenant.name)) << tenant.name;
}

TEST_F(ApiTest, EveryBodyIsAnObjectOfKnownFields) {
  Json(Ask("POST", "/v1/sessions", R"({"name":"s","model":"h3-dna"})"), 201);
  int asked = 0;
  for (const Api::Route& route : Api::Routes()) {
    const std::string method = route.method;
    const bool takes_json = (method == "PUT" || method == "POST") &&
                            !absl::EndsWith(route.path, "/cancel") &&
                            !absl::EndsWith(route.path, "/files");
    if (!takes_json) continue;
    const std::string target =
        absl::StrReplaceAll(route.path, {{"{session}", "s"}, {"{tenant}", "red"}});
    for (const auto& [body, said] : std::vector<std::pair<std::string, std::string>>{
             {"", "body: not JSON"},
             {"{\"name\":", "body: not JSON"},
             {"[1]", "body [1]: must be a JSON object"},
             {"null", "body null: must be a JSON object"},
             {"\"x\"", "body \"x\": must be a JSON object"},
             {R"({"odd":1})", "field \"odd\": must be one of "}}) {
      const std::string detail = Detail(Ask(method, target, body), 400);
      EXPECT_TRUE(absl::StrContains(detail, said)) << method << " " << target << ": " << detail;
      ++asked;
    }
    EXPECT_TRUE(absl::StrContains(Detail(Ask(method, target + "?odd=1", "{}"), 400),
                                  "query \"odd\": must be "));
  }
  EXPECT_EQ(asked, 5 * 6);
}

// What is too long is cut where it is said again, and nowhere else.
TEST_F(ApiTest, WrongTypesAreNamed) {
  for (const auto& [target, body, said] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"/v1/jobs", R"({"model":{"a":1}})", R"(model {"a":1}: must be a string)"},
           {"/v1/jobs", R"({"trace":"yes"})", R"(trace "yes": must be true or false)"},
           {"/v1/jobs", R"({"trace":1})", "trace 1: must be true or false"},
           {"/v1/jobs", R"({"priority":"1"})", R"(priority "1": must be a whole number)"},
           {"/v1/jobs", R"({"model":"m","model":5})", "model 5: must be a string"},
           {"/v1/sessions", R"({"name":7})", "name 7: must be a string"},
           {"/v1/sessions", R"({"name":"../x","model":"h3-dna"})",
            R"(name "../x": must be 1 to 63)"},
           {"/v1/sessions", R"({"name":"s","model":"none"})", R"(model "none": must be one of)"},
           {"/v1/tokens", R"({"name":"t","tenant":"a/b"})", R"(tenant "a/b")"},
           {"/v1/tokens", R"({"name":"t","days":0})", "days 0: must be a whole number"},
           {"/v1/tokens", R"({"name":"t","role":"root"})", R"(role "root")"}}) {
    const std::string detail = Detail(Ask("POST", target, body), 400);
    EXPECT_TRUE(absl::StrContains(detail, said)) << target << " " << body << ": " << detail;
  }
}

TEST_F(ApiTest, JsonHasLimits) {
  for (const auto& [body, said] : std::vector<std::pair<std::string, std::string>>{
           {R"({"model":)" + std::string(20, '[') + std::string(20, ']') + "}", "not JSON"},
           {R"({"model":")" + std::string(5000, 'm') + "\"}", "of at most 4096 bytes"},
           {R"({"model":"a\u0000b"})", "without control characters"},
           {R"({"priority":101})", "priority 101: must be a whole number, -100 to 100"},
           {R"({"time_limit_seconds":0})", "time_limit_seconds 0"},
           {R"({"chunk":1e3})", "chunk 1E3"},
           {R"({"model":"h3-dna"})", "input (none): must be given"},
           {"{} {}", "not JSON"}}) {
    const std::string detail = Detail(Ask("POST", "/v1/jobs", body), 400);
    EXPECT_TRUE(absl::StrContains(detail, said)) << detail;
    EXPECT_LT(detail.size(), 600u);
  }
}

TEST_F(ApiTest, Models) {
  const json::object model = Json(Ask("GET", "/v1/models/h3-dna"));
  EXPECT_EQ(model.at("tokenizer").as_string(), "bytes");
  EXPECT_TRUE(model.at("sessions").as_bool());
  EXPECT_EQ(model.at("sha256").as_string().size(), 64u);
  EXPECT_EQ(Json(Ask("GET", "/v1/models")).at("models").as_array().size(), 2u);
  for (const char* odd : {"..", "%2e%2e", "..%2fexamples", "h3-dna%00", "x"}) {
    Detail(Ask("GET", std::string("/v1/models/") + odd), 404);
  }
}

TEST_F(ApiTest, AServerWithoutModelsSaysSo) {
  models_ = std::make_unique<ModelCatalog>(folder_ + "/none");
  Open({});
  const std::string body = R"({"model":"h3-dna","input":"x"})";
  EXPECT_EQ(Detail(Ask("POST", "/v1/jobs", body), 400),
            "model \"h3-dna\": the server has no models");
}

TEST(Parse, Ranges) {
  using Range = std::optional<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(*ParseRange("", 10), Range());
  EXPECT_EQ(*ParseRange("bytes=2-5", 10), Range({2, 4}));
  EXPECT_EQ(*ParseRange("bytes=2-", 10), Range({2, 8}));
  EXPECT_EQ(*ParseRange("bytes=-3", 10), Range({7, 3}));
  EXPECT_EQ(*ParseRange("bytes=-30", 10), Range({0, 10}));
  EXPECT_EQ(*ParseRange("Bytes=2-5", 10), Range({2, 4}));
  EXPECT_EQ(*ParseRange("bytes=1-99999999999999999999", 10), Range({1, 9}));
  EXPECT_EQ(*ParseRange("bytes=-99999999999999999999", 10), Range({0, 10}));
  EXPECT_TRUE(absl::IsOutOfRange(ParseRange("bytes=99999999999999999999-", 10).status()));
  EXPECT_TRUE(IsOfOtherUnit("items=0-3"));
  for (const char* bytes : {"", "bytes=0-3", "BYTES=0-3", "0-3"})
    EXPECT_FALSE(IsOfOtherUnit(bytes));
  for (const char* behind : {"bytes=10-", "bytes=10-20", "bytes=-0"}) {
    EXPECT_TRUE(absl::IsOutOfRange(ParseRange(behind, 10).status())) << behind;
  }
  for (const char* odd :
       {"bytes=5-2", "bytes=-", "bytes=1-2,4-5", "bytes= 1-2", "bytes=+1-2", "1-2"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseRange(odd, 10).status())) << odd;
  }
}

TEST(Parse, CursorsAreOfTheirList) {
  const std::string cursor = MakeCursor("jobs", 17);
  EXPECT_EQ(*ParseCursor({{"cursor", cursor}}, "jobs"), 17);
  EXPECT_FALSE(ParseCursor({{"cursor", cursor}}, "files").ok());
  EXPECT_FALSE(ParseCursor({{"cursor", "17"}}, "jobs").ok());
  EXPECT_FALSE(ParseCursor({{"cursor", ""}}, "jobs").ok());
}

}  // namespace
}  // namespace longwave

// What the job store keeps beside jobs, and the stores of tokens and sessions.
#include <map>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/job_store.h"
#include "scheduler/session_store.h"
#include "scheduler/testing/test_database.h"
#include "scheduler/token_store.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMost = int64_t{1} << 40;

class StoresTest : public ::testing::TestWithParam<DatabaseKind> {
 protected:
  void SetUp() override {
    if (IsSkipped() || HasFailure()) return;
    auto store = JobStore::Open(*OpenDatabase(database_.uri()));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  NewJob SomeJob(const std::string& id, const std::string& tenant = kDefaultTenant) {
    NewJob job;
    job.id = id;
    job.tenant = tenant;
    job.spec.model = "m";
    job.spec.input = "f";
    job.spec.chunk = 10;
    return job;
  }
  void Add(const NewJob& job, int64_t chunks) {
    const auto created = store_->Create(job, 1);
    ASSERT_TRUE(created.ok()) << created.status();
    ASSERT_TRUE(store_->SetPlan(job.id, {10 * chunks, 1}, 2).ok());
  }
  std::vector<std::string> Ids(const JobFilter& filter) {
    const auto jobs = store_->List(filter, kMost, 100);
    EXPECT_TRUE(jobs.ok()) << jobs.status();
    std::vector<std::string> ids;
    for (const Job& job : *jobs) ids.push_back(job.id);
    return ids;
  }

  TestDatabase database_{GetParam()};
  std::unique_ptr<JobStore> store_;
};

INSTANTIATE_TEST_SUITE_P(On, StoresTest,
                         ::testing::Values(DatabaseKind::kSqlite, DatabaseKind::kPostgres),
                         [](const auto& info) { return Name(info.param); });

TEST_P(StoresTest, AJobKeepsWhatItWasMadeWith) {
  NewJob job = SomeJob("a", "lab");
  job.created_by = "ann";
  job.priority = -100;
  job.time_limit_ms = 7;
  job.start_boundary = "sessions/s/3";
  job.start_position = 12345678901;
  job.trace = true;
  job.serial = true;
  job.spec.task = Task::kGenerate;
  job.spec.max_new_tokens = 12;
  job.spec.temperature = 0.1;
  job.spec.top_k = 3;
  job.spec.top_p = 1.0 / 3;
  job.spec.seed = ~uint64_t{0};
  ASSERT_TRUE(store_->Create(job, 1).ok());
  const auto kept = store_->Get("a");
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->tenant, "lab");
  EXPECT_EQ(kept->created_by, "ann");
  EXPECT_EQ(kept->priority, -100);
  EXPECT_EQ(kept->time_limit_ms, 7);
  EXPECT_EQ(kept->start_boundary, "sessions/s/3");
  EXPECT_EQ(kept->start_position, 12345678901);
  EXPECT_TRUE(kept->trace);
  EXPECT_TRUE(kept->serial);
  EXPECT_EQ(kept->spec.ToString(), job.spec.ToString());
  EXPECT_EQ(kept->spec.temperature, 0.1);
  EXPECT_EQ(kept->spec.top_p, 1.0 / 3);
  EXPECT_TRUE(store_->GetTenant("lab").ok());
  job.priority = 101;
  EXPECT_EQ(store_->Create(job, 1).status().message(), "priority 101: must be from -100 to 100");
}

TEST_P(StoresTest, KeysAreATenantsOwn) {
  for (const char* tenant : {"x", "y"}) {
    NewJob job = SomeJob(tenant, tenant);
    job.idempotency_key = "key";
    EXPECT_EQ(store_->Create(job, 1)->id, tenant);
    job.id = "again";
    EXPECT_EQ(store_->Create(job, 1)->id, tenant);
    job.priority = 1;
    EXPECT_TRUE(absl::IsFailedPrecondition(store_->Create(job, 1).status()));
  }
}

TEST_P(StoresTest, ListsByAnyFilter) {
  Add(SomeJob("a", "x"), 1);
  NewJob b = SomeJob("b", "y");
  b.spec.model = "n";
  b.spec.task = Task::kEmbed;
  Add(b, 1);
  Add(SomeJob("c", "y"), 1);
  ASSERT_TRUE(store_->Cancel("a", 3).ok());
  EXPECT_THAT(Ids({}), ElementsAre("c", "b", "a"));
  EXPECT_THAT(Ids({JobState::kCancelled, "", "", {}}), ElementsAre("a"));
  EXPECT_THAT(Ids({{}, "y", "", {}}), ElementsAre("c", "b"));
  EXPECT_THAT(Ids({JobState::kQueued, "y", "n", Task::kEmbed}), ElementsAre("b"));
  EXPECT_THAT(Ids({{}, "x", "n", {}}), ElementsAre());
}

TEST_P(StoresTest, TheQueueIsCounted) {
  EXPECT_EQ(store_->Queue()->jobs_queued, 0);
  ASSERT_TRUE(store_->Create(SomeJob("unplanned"), 1).ok());
  Add(SomeJob("a"), 5);
  ASSERT_TRUE(store_->Create(SomeJob("b"), 1).ok());
  ASSERT_TRUE(store_->SetPlan("b", {15, 1}, 2).ok());
  const auto leases = store_->LeaseChunks({{"v", kMost, true}, {"w", kMost, false}}, 9);
  ASSERT_TRUE(store_->CommitChunks({{leases->at(0)->key, {}}}, 10)->front().ok());
  const auto queue = store_->Queue();
  ASSERT_TRUE(queue.ok()) << queue.status();
  EXPECT_EQ(queue->jobs_queued, 1);
  EXPECT_EQ(queue->jobs_running, 2);
  EXPECT_EQ(queue->tokens, 40 + 15);
  EXPECT_EQ(queue->chunks_waiting, 4 + 1);
  EXPECT_EQ(queue->chunks_leased, 1);
  EXPECT_EQ(queue->chunks_committed, 1);
}

TEST_P(StoresTest, EventsAreReadFromWhereOneStopped) {
  Add(SomeJob("a", "x"), 1);
  Add(SomeJob("b", "y"), 1);
  const auto all = store_->Events({}, 0, 100);
  ASSERT_EQ(all->size(), 4u);
  EXPECT_EQ(store_->Events({}, all->at(1).number, 1)->front().number, all->at(2).number);
  EXPECT_EQ(store_->Events({"", "y"}, 0, 100)->size(), 2u);
  const Event planned = store_->Events({"a", ""}, 0, 100)->at(1);
  EXPECT_EQ(planned.kind, "planned");
  EXPECT_EQ(planned.tenant, "x");
  EXPECT_EQ(planned.at_ms, 2);
  EXPECT_EQ(planned.data, "{\"tokens\":10,\"chunks\":1,\"sequences\":1}");
  // A number is not given twice, whatever is deleted.
  ASSERT_TRUE(store_->Cancel("b", 3).ok());
  const int64_t last = *store_->LastEvent();
  ASSERT_TRUE(store_->Delete("b").ok());
  Add(SomeJob("c"), 1);
  EXPECT_EQ(store_->Events({"c", ""}, 0, 100)->front().number, last + 1);
}

TEST_P(StoresTest, QuotasAreKept) {
  ASSERT_TRUE(store_->PutTenant({"t", 1, 2, 3, 100}).ok());
  Add(SomeJob("a", "t"), 10);
  Add(SomeJob("b", "t"), 10);
  const auto refused = store_->Create(SomeJob("c", "t"), 1);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_EQ(refused.status().message(),
            "tenant \"t\" has 2 queued jobs, as many as its quota allows");
  const std::vector<LeaseRequest> five(5, {"w", kMost, true});
  const auto leases = store_->LeaseChunks(five, 9);
  EXPECT_TRUE(leases->at(2).has_value());
  EXPECT_FALSE(leases->at(3).has_value());                 // 3 leases at most
  EXPECT_TRUE(store_->Create(SomeJob("c", "t"), 1).ok());  // now none is queued
  StoredFile file{"f", "n", "s", 60, 5, "t"};
  ASSERT_TRUE(store_->AddFile(file).ok());
  file.id = "g";
  file.bytes = 41;
  EXPECT_EQ(store_->AddFile(file).message(),
            "tenant \"t\" has files of 60 bytes; 41 more pass its quota of 100");
  file.bytes = 40;
  EXPECT_TRUE(store_->AddFile(file).ok());
}

TEST_P(StoresTest, TenantsAreChecked) {
  EXPECT_TRUE(absl::IsInvalidArgument(store_->PutTenant({"a/b", 1, 0, 0, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->PutTenant({"", 1, 0, 0, 0})));
  EXPECT_EQ(store_->PutTenant({"a", 0, 0, 0, 0}).message(), "weight 0: must be from 1 to 1000000");
  EXPECT_THAT(store_->PutTenant({"a", 1, 0, -1, 0}).message(), HasSubstr("most_leases -1"));
  ASSERT_TRUE(store_->PutTenant({"a", 1, 2, 3, 4}).ok());
  ASSERT_TRUE(store_->PutTenant({"a", 5, 6, 7, 8}).ok());
  EXPECT_EQ(store_->GetTenant("a")->weight, 5);
  EXPECT_EQ(store_->GetTenant("a")->most_bytes, 8);
  EXPECT_EQ(store_->ListTenants()->size(), 2u);
  EXPECT_TRUE(absl::IsNotFound(store_->GetTenant("b").status()));
}

// One worker: there are no leases to compare when it asks, only what was given before.
TEST_P(StoresTest, OneWorkerIsSharedByWeight) {
  ASSERT_TRUE(store_->PutTenant({"big", 3, 0, 0, 0}).ok());
  Add(SomeJob("a", "big"), 100);
  Add(SomeJob("b", "small"), 100);
  std::map<std::string, int> given;
  for (int i = 0; i < 40; ++i) {
    const auto lease = store_->LeaseChunks({{"w", kMost, true}}, 9);
    const ChunkKey key = lease->front()->key;
    ++given[key.job];
    ASSERT_TRUE(store_->CommitChunks({{key, {}}}, 10)->front().ok());
  }
  EXPECT_EQ(given["a"], 30);
  EXPECT_EQ(given["b"], 10);
  // Who comes late does not get all that it did not ask for before.
  Add(SomeJob("c", "late"), 100);
  given.clear();
  for (int i = 0; i < 10; ++i) {
    const auto lease = store_->LeaseChunks({{"w", kMost, true}}, 9);
    const ChunkKey key = lease->front()->key;
    ++given[key.job];
    ASSERT_TRUE(store_->CommitChunks({{key, {}}}, 10)->front().ok());
  }
  EXPECT_EQ(given["a"], 6);
  EXPECT_EQ(given["c"], 2);
}

TEST_P(StoresTest, AFileGoesWhenNoJobReadsIt) {
  for (const char* id : {"e", "f", "g"}) {
    ASSERT_TRUE(store_->AddFile({id, "n", "s", 1, 5, id[0] == 'g' ? "t" : kDefaultTenant}).ok());
  }
  EXPECT_EQ(store_->ListFiles("", kMost, 2)->front().id, "g");
  EXPECT_EQ(store_->ListFiles("t", kMost, 9)->size(), 1u);
  EXPECT_EQ(store_->ListFiles(kDefaultTenant, 2, 9)->front().id, "e");
  Add(SomeJob("a"), 1);
  EXPECT_EQ(store_->DeleteFile("f").message(), "file f is the input of job a, which is queued");
  ASSERT_TRUE(store_->Cancel("a", 3).ok());
  EXPECT_TRUE(store_->DeleteFile("f").ok());
  EXPECT_TRUE(absl::IsNotFound(store_->DeleteFile("f")));
  EXPECT_TRUE(absl::IsNotFound(store_->GetFile("f").status()));
}

TEST_P(StoresTest, ATokenIsFoundByItsHashUntilItEnds) {
  TokenStore tokens(store_->database());
  EXPECT_FALSE(*tokens.Any());
  ASSERT_TRUE(tokens.Create({"a", "hash-a", "x", "ci", Role::kUser, 5, 0, 0}).ok());
  ASSERT_TRUE(tokens.Create({"b", "hash-b", "y", "root", Role::kAdmin, 6, 1000000, 0}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(tokens.Create({"c", "hash-a", "x", "", Role::kUser, 5, 0, 0})));
  EXPECT_TRUE(*tokens.Any());
  const auto found = tokens.Find("hash-b", 999999);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->tenant, "y");
  EXPECT_EQ(found->role, Role::kAdmin);
  EXPECT_EQ(tokens.List("y")->front().last_used_ms, 999999);
  EXPECT_THAT(tokens.Find("hash-b", 1000000).status().message(), HasSubstr("expired"));
  EXPECT_TRUE(absl::IsNotFound(tokens.Find("hash", 1).status()));
  EXPECT_EQ(tokens.List("")->size(), 2u);
  EXPECT_TRUE(tokens.Revoke("a").ok());
  EXPECT_TRUE(absl::IsNotFound(tokens.Revoke("a")));
  EXPECT_TRUE(absl::IsNotFound(tokens.Find("hash-a", 1).status()));
  EXPECT_FALSE(ParseRole("root").ok());
}

TEST_P(StoresTest, TheNextExpiryOfEachTenant) {
  TokenStore tokens(store_->database());
  ASSERT_TRUE(tokens.Create({"a", "hash-a", "x", "", Role::kUser, 5, 300, 0}).ok());
  ASSERT_TRUE(tokens.Create({"b", "hash-b", "x", "", Role::kUser, 5, 200, 0}).ok());
  ASSERT_TRUE(tokens.Create({"c", "hash-c", "y", "", Role::kUser, 5, 100, 0}).ok());
  ASSERT_TRUE(tokens.Create({"d", "hash-d", "z", "", Role::kUser, 5, 0, 0}).ok());
  using Expiries = std::vector<std::pair<std::string, int64_t>>;
  EXPECT_EQ(*tokens.NextExpiries(99, 10), (Expiries{{"y", 100}, {"x", 200}}));
  EXPECT_EQ(*tokens.NextExpiries(99, 1), (Expiries{{"y", 100}}));
  EXPECT_EQ(*tokens.NextExpiries(200, 10), (Expiries{{"x", 300}}));
}

TEST_P(StoresTest, OfTwoThatChangeASessionOneIsRefused) {
  SessionStore sessions(store_->database());
  Session session;
  session.id = "s";
  session.tenant = "t";
  session.model = "m";
  session.model_hash = "h";
  session.created_ms = 5;
  const auto created = sessions.Create(session);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->version, 1);
  EXPECT_EQ(sessions.Create(session).status(),
            absl::AlreadyExistsError("there is a session \"s\" already"));
  Session one = *created, other = *created;
  one.pending = "job";
  one.position = 77;
  one.boundary = "sessions/s/1";
  one.updated_ms = 9;
  EXPECT_EQ(sessions.CompareAndSet(one)->version, 2);
  EXPECT_EQ(sessions.CompareAndSet(other).status().message(), "session s has version 2, not 1");
  const auto kept = sessions.Get("s");
  EXPECT_EQ(kept->pending, "job");
  EXPECT_EQ(kept->position, 77);
  EXPECT_EQ(kept->boundary, "sessions/s/1");
  EXPECT_EQ(kept->created_ms, 5);
  EXPECT_EQ(kept->updated_ms, 9);
  EXPECT_EQ(sessions.List("t", kMost, 9)->size(), 1u);
  EXPECT_EQ(sessions.List("", kept->number, 9)->size(), 0u);
  EXPECT_TRUE(sessions.Delete("s").ok());
  EXPECT_TRUE(absl::IsNotFound(sessions.Delete("s")));
  EXPECT_TRUE(absl::IsNotFound(sessions.CompareAndSet(one).status()));

  // The version that another session of this name had says nothing of this one.
  Session again = one;
  again.created_ms = 6;
  const auto made = sessions.Create(again);
  ASSERT_TRUE(made.ok());
  one.version = made->version;
  EXPECT_EQ(sessions.CompareAndSet(one).status().message(), "session s was made again since");
}

}  // namespace
}  // namespace longwave

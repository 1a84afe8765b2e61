#include "scheduler/job_store.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMost = int64_t{1} << 40;

std::unique_ptr<JobStore> Open(const std::string& path = ":memory:") {
  auto database = OpenSqlite(path);
  EXPECT_TRUE(database.ok()) << database.status();
  auto store = JobStore::Open(*std::move(database));
  EXPECT_TRUE(store.ok()) << store.status();
  return *std::move(store);
}

NewJob SomeJob(const std::string& id, int64_t chunk = 10) {
  NewJob job;
  job.id = id;
  job.spec.model = "h3-dna";
  job.spec.input = "file";
  job.spec.chunk = chunk;
  job.model_hash = "hash";
  return job;
}

// A planned job of `chunks` chunks of 10 tokens.
void Add(JobStore& store, const std::string& id, int64_t chunks) {
  ASSERT_TRUE(store.Create(SomeJob(id), 1).ok());
  ASSERT_TRUE(store.SetPlan(id, {10 * chunks - 3, 1}, 2).ok());
}

std::optional<Lease> Next(JobStore& store, const std::string& worker, int64_t now,
                          int64_t most_bytes = kMost, bool spread = true) {
  auto leases = store.LeaseChunks({{worker, most_bytes, spread}}, now);
  EXPECT_TRUE(leases.ok()) << leases.status();
  return leases.ok() ? leases->at(0) : std::nullopt;
}

ChunkKey LeaseOne(JobStore& store, const std::string& worker = "w", int64_t now = 100000) {
  const auto lease = Next(store, worker, now);
  EXPECT_TRUE(lease.has_value());
  return lease.has_value() ? lease->key : ChunkKey();
}

absl::StatusOr<Job> CommitOne(JobStore& store, const ChunkKey& key,
                              const CommittedChunk& result = {}) {
  const auto answers = store.CommitChunks({{key, result}}, 50);
  return answers.ok() ? answers->at(0) : answers.status();
}

std::vector<std::string> Kinds(JobStore& store, const std::string& job) {
  std::vector<std::string> kinds;
  const auto events = store.Events({job, ""}, 0, 1000);
  EXPECT_TRUE(events.ok()) << events.status();
  for (const Event& event : *events) kinds.push_back(event.kind);
  return kinds;
}

TEST(JobStore, AJobFromItsCreationToItsEnd) {
  auto store = Open();
  ASSERT_TRUE(store->Create(SomeJob("a"), 5).ok());
  EXPECT_FALSE(Next(*store, "w", 6).has_value());  // not planned
  EXPECT_EQ(store->Unplanned(10)->size(), 1u);
  ASSERT_TRUE(store->SetPlan("a", {25, 4}, 6).ok());
  EXPECT_TRUE(absl::IsAborted(store->SetPlan("a", {25, 4}, 6)));
  EXPECT_FALSE(Next(*store, "w", 6, 43).has_value());  // (10 + 1) tokens of 4 bytes
  for (int64_t k = 0; k < 3; ++k) {
    const auto lease = Next(*store, "w", 7 + k, 44);
    ASSERT_TRUE(lease.has_value());
    EXPECT_EQ(lease->key, (ChunkKey{"a", k, k + 1}));
    EXPECT_EQ(lease->before_epoch, k);
    EXPECT_EQ(lease->before_worker, "");
    EXPECT_FALSE(Next(*store, "v", 7, kMost, false).has_value());  // it would have to spread
    EXPECT_TRUE(absl::IsFailedPrecondition(store->Succeed("a", 9)));
    ASSERT_TRUE(CommitOne(*store, lease->key, {k, k + 1, 100, "out", "in"}).ok());
  }
  EXPECT_FALSE(Next(*store, "w", 99).has_value());
  ASSERT_EQ(store->Complete(10)->size(), 1u);
  ASSERT_TRUE(store->Succeed("a", 20).ok());
  const auto job = store->Get("a");
  EXPECT_EQ(job->state, JobState::kSucceeded);
  EXPECT_EQ(job->tokens_committed(), 25);
  EXPECT_EQ(job->computed, 25);
  EXPECT_EQ(job->output_bytes, 300);
  EXPECT_EQ(job->started_ms, 7);
  EXPECT_EQ(job->finished_ms, 20);
  EXPECT_EQ(store->Committed("a")->size(), 3u);
  EXPECT_THAT(Kinds(*store, "a"), ElementsAre("created", "planned", "started", "committed",
                                              "committed", "committed", "succeeded"));
  EXPECT_TRUE(absl::IsAborted(store->Cancel("a", 30).status()));
  EXPECT_TRUE(store->Delete("a").ok());
  EXPECT_TRUE(absl::IsNotFound(store->Get("a").status()));
  EXPECT_TRUE(store->Committed("a")->empty());
  EXPECT_TRUE(store->Events({}, 0, 10)->empty());
  EXPECT_EQ(*store->LastEvent(), 7);
}

TEST(JobStore, OneKeyOneJob) {
  auto store = Open();
  NewJob job = SomeJob("a");
  job.idempotency_key = "key";
  ASSERT_TRUE(store->Create(job, 1).ok());
  job.id = "b";
  EXPECT_EQ(store->Create(job, 2)->id, "a");
  job.spec.chunk = 11;
  const auto other = store->Create(job, 2);
  EXPECT_TRUE(absl::IsFailedPrecondition(other.status()));
  EXPECT_THAT(other.status().message(), HasSubstr("key"));
  EXPECT_EQ(store->List({}, kMost, 10)->size(), 1u);
}

TEST(JobStore, AnOlderEpochIsRefused) {
  auto store = Open();
  Add(*store, "a", 2);
  const ChunkKey old = LeaseOne(*store, "slow");
  ASSERT_TRUE(store->Lose(old, true, 10).ok());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, old).status()));
  const ChunkKey now = LeaseOne(*store, "quick");
  EXPECT_GT(now.epoch, old.epoch);
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, old).status()));
  EXPECT_TRUE(absl::IsAborted(store->Lose(old, true, 10).status()));
  EXPECT_TRUE(absl::IsAborted(store->HandBack(old).status()));
  EXPECT_TRUE(absl::IsAborted(store->Fail(old, "x", true, 10).status()));
  ASSERT_TRUE(CommitOne(*store, now).ok());
  EXPECT_TRUE(CommitOne(*store, now).ok());  // its answer may have been lost
  EXPECT_EQ(store->Get("a")->committed, 1);
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, old).status()));
  const ChunkKey next = LeaseOne(*store);
  ASSERT_TRUE(store->Cancel("a", 11).ok());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, next).status()));
  EXPECT_TRUE(store->Leased()->empty());
}

TEST(JobStore, AChunkThatLosesThreeWorkersParksItsJob) {
  auto store = Open();
  Add(*store, "poison", 2);
  Add(*store, "good", 1);
  for (const char* worker : {"w1", "w2", "w3"}) {
    const ChunkKey key = LeaseOne(*store, worker);
    ASSERT_EQ(key.job, "poison");
    ASSERT_TRUE(store->Lose(key, true, 10).ok());
  }
  const auto job = store->Get("poison");
  EXPECT_EQ(job->state, JobState::kFailed);
  EXPECT_EQ(job->error,
            "chunk 0 lost its worker 3 times (workers w1, w2, w3): it is not tried again");
  EXPECT_EQ(LeaseOne(*store).job, "good");
}

TEST(JobStore, FailuresAreTriedAgainLaterAndNotForEver) {
  auto store = Open();
  Add(*store, "a", 1);
  int64_t now = 1000;
  for (int64_t wait : {500, 1000}) {
    ASSERT_TRUE(store->Fail(LeaseOne(*store, "w", now), "disk full", false, now).ok());
    EXPECT_FALSE(Next(*store, "w", now + wait - 1).has_value());
    now += wait;
  }
  ASSERT_TRUE(store->Fail(LeaseOne(*store, "w", now), "disk full", false, now).ok());
  EXPECT_EQ(store->Get("a")->error, "chunk 0 failed 3 times, at last: disk full");
  Add(*store, "b", 1);
  ASSERT_TRUE(store->Fail(LeaseOne(*store), "token id 300", true, now).ok());
  EXPECT_EQ(store->Get("b")->error, "token id 300");
  EXPECT_EQ(store->Get("b")->state, JobState::kFailed);
}

TEST(JobStore, ListsNewestFirstInPages) {
  auto store = Open();
  for (int i = 0; i < 5; ++i) Add(*store, absl::StrCat("j", i), 1);
  ASSERT_TRUE(store->Cancel("j3", 9).ok());
  const auto page = store->List({}, kMost, 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ((*page)[1].id, "j3");
  EXPECT_EQ(store->List({}, (*page)[1].number, 10)->front().id, "j2");
  EXPECT_EQ(store->List({JobState::kCancelled, "", "", {}}, kMost, 10)->size(), 1u);
}

TEST(JobStore, RefusesADatabaseOfALaterProgram) {
  auto database = OpenSqlite(":memory:");
  for (const char* sql :
       {"CREATE TABLE schema_version (version BIGINT)", "INSERT INTO schema_version VALUES (99)"}) {
    ASSERT_TRUE(
        (*database)
            ->Write([&](SqlConnection& connection) { return connection.Run(sql, {}).status(); })
            .ok());
  }
  EXPECT_THAT(JobStore::Open(*std::move(database)).status().message(), HasSubstr("99"));
}

TEST(JobStore, FilesAreKept) {
  auto store = Open();
  ASSERT_TRUE(store->AddFile({"f", "genome.fa", "sha", 12, 3}).ok());
  EXPECT_EQ(store->GetFile("f")->name, "genome.fa");
  EXPECT_TRUE(absl::IsNotFound(store->GetFile("g").status()));
}

TEST(JobStore, ChunksOfAJobAreLeasedTogetherAndCommittedInOrder) {
  auto store = Open();
  Add(*store, "a", 4);
  const auto leases = store->LeaseChunks({{"u", kMost, true}, {"v", kMost, true}, {"w", kMost}}, 9);
  ASSERT_TRUE(leases.ok()) << leases.status();
  std::vector<ChunkKey> keys;
  for (int64_t k = 0; k < 3; ++k) {
    const Lease& lease = *leases->at(k);
    EXPECT_EQ(lease.key, (ChunkKey{"a", k, k + 1}));
    EXPECT_EQ(lease.before_epoch, k);
    keys.push_back(lease.key);
  }
  EXPECT_EQ(leases->at(0)->before_worker, "");
  EXPECT_EQ(leases->at(2)->before_worker, "v");
  EXPECT_EQ(store->Get("a")->leases(), 3);
  const auto early = CommitOne(*store, keys[1]);
  EXPECT_TRUE(absl::IsUnavailable(early.status())) << early.status();
  const auto answers = store->CommitChunks(
      {{keys[2], {}}, {keys[0], {}}, {{"none", 0, 1}, {}}, {keys[1], {}}, {keys[1], {}}}, 10);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_TRUE(absl::IsUnavailable(answers->at(0).status()));
  EXPECT_EQ(answers->at(1)->committed, 1);
  EXPECT_TRUE(absl::IsNotFound(answers->at(2).status()));
  EXPECT_EQ(answers->at(3)->committed, 2);
  EXPECT_TRUE(answers->at(4).ok());
  EXPECT_EQ(store->Get("a")->leases(), 1);
  EXPECT_EQ(store->Leased("a")->front().worker, "w");
}

TEST(JobStore, WhatIsTakenBackCutsLaterLeases) {
  auto store = Open();
  Add(*store, "a", 5);
  std::vector<ChunkKey> keys;
  for (int i = 0; i < 5; ++i) keys.push_back(LeaseOne(*store, absl::StrCat("w", i)));
  EXPECT_EQ(store->Get("a")->computed, 47);
  EXPECT_THAT(*store->HandBack(keys[3]), ElementsAre(keys[4]));
  EXPECT_EQ(store->Get("a")->computed, 37);
  EXPECT_THAT(*store->Lose(keys[1], true, 10), ElementsAre(keys[2]));
  EXPECT_TRUE(absl::IsAborted(store->HandBack(keys[2]).status()));
  const auto again = Next(*store, "v", 11);
  EXPECT_EQ(again->key.chunk, 1);
  EXPECT_EQ(again->before_worker, "w0");
  LeaseOne(*store, "v");
  // A job that fails takes the earlier ones with it too.
  const auto others = store->Fail(again->key, "bad \xff token", true, 12);
  ASSERT_EQ(others->size(), 2u);
  EXPECT_EQ(others->front(), keys[0]);
  EXPECT_EQ(store->Get("a")->error, "bad ? token");
  EXPECT_TRUE(store->Leased()->empty());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, keys[0]).status()));
  EXPECT_THAT(Kinds(*store, "a"),
              ElementsAre("created", "planned", "started", "lost", "chunk_failed", "failed"));
}

TEST(JobStore, LossesWithoutBlameAreEndless_AlmostSo) {
  auto store = Open();
  Add(*store, "a", 1);
  for (int i = 1; i < JobStore::kMostUnblamedLosses; ++i) {
    ASSERT_TRUE(store->Lose(LeaseOne(*store), false, 10).ok());
  }
  EXPECT_EQ(store->Get("a")->state, JobState::kRunning);
  ASSERT_TRUE(store->Lose(LeaseOne(*store), false, 10).ok());
  EXPECT_THAT(store->Get("a")->error, HasSubstr("25 times"));
}

TEST(JobStore, ATermThatIsOverCannotWrite) {
  auto store = Open();
  Add(*store, "a", 2);
  const ChunkKey key = LeaseOne(*store);
  ASSERT_TRUE(
      store->database()
          .Write([](SqlConnection& connection) {
            return connection.Run("UPDATE leadership SET term = 7, server = 'other'", {}).status();
          })
          .ok());
  const auto refused = store->LeaseChunks({{"w", kMost, true}}, 9);
  EXPECT_TRUE(absl::IsAborted(refused.status()));
  EXPECT_EQ(refused.status().message(), "server other leads in term 7, this one's term is 0");
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, key).status()));
  EXPECT_TRUE(absl::IsAborted(store->Lose(key, true, 9).status()));
  EXPECT_TRUE(absl::IsAborted(store->Fail(key, "e", true, 9).status()));
  EXPECT_TRUE(absl::IsAborted(store->HandBack(key).status()));
  EXPECT_TRUE(absl::IsAborted(store->Succeed("a", 9)));
  store->SetTerm(7);
  EXPECT_TRUE(CommitOne(*store, key).ok());
}

TEST(JobStore, AJobThatRunsForTooLongFails) {
  auto store = Open();
  NewJob job = SomeJob("a");
  job.time_limit_ms = 1000;
  ASSERT_TRUE(store->Create(job, 1).ok());
  ASSERT_TRUE(store->SetPlan("a", {25, 1}, 2).ok());
  EXPECT_TRUE(store->ExpireJobs(5000)->empty());  // it only waits
  const ChunkKey key = LeaseOne(*store, "w", 6000);
  EXPECT_TRUE(store->ExpireJobs(6999)->empty());
  EXPECT_THAT(*store->ExpireJobs(7000), ElementsAre("a"));
  EXPECT_EQ(store->Get("a")->error,
            "it ran for longer than its time limit of 1000 ms: 0 of 3 chunks are done");
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store, key).status()));
  EXPECT_TRUE(store->ExpireJobs(8000)->empty());
}

// Random operations against the simplest model of what must hold; now and then the store is closed
// and opened again, as a server that was killed does.
class RandomOperations : public ::testing::TestWithParam<int> {
 protected:
  struct ModelChunk {
    int64_t losses = 0, unblamed = 0, failures = 0, epoch = 0;
  };
  struct ModelJob {
    JobState state = JobState::kQueued;
    std::string tenant;
    int64_t number = 0, priority = 0, chunks = 0, committed = 0, not_before = 0, computed = 0;
    std::vector<ChunkKey> leased;  // in order, from chunk `committed` on
    std::map<int64_t, ModelChunk> rows;

    int64_t next() const { return committed + static_cast<int64_t>(leased.size()); }
    int64_t Tokens(int64_t chunk) const { return chunk + 1 == chunks ? 7 : 10; }
    // How a tenant's jobs that wait are ordered.
    auto Order() const { return std::tuple(-priority, state == JobState::kQueued, number); }
    auto SpreadOrder() const { return std::tuple(leased.size(), -priority, number); }
  };

  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "/store-", getpid(), "-", GetParam());
    std::filesystem::remove(path_);
    store_ = Open(path_);
    for (const Tenant& tenant : tenants_) ASSERT_TRUE(store_->PutTenant(tenant).ok());
  }
  void TearDown() override {
    store_.reset();
    for (const char* end : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + end);
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % n); }

  bool Gives(const ModelJob& job, const LeaseRequest& request) const {
    const int64_t bytes = (job.chunks == 1 ? 7 : 10) + 1;
    return !IsOver(job.state) && job.next() < job.chunks && job.not_before <= now_ &&
           bytes <= request.most_bytes && !Full(job.tenant);
  }
  int64_t Leases(const std::string& tenant) const {
    int64_t leases = 0;
    for (const auto& [id, job] : jobs_) leases += job.tenant == tenant ? job.leased.size() : 0;
    return leases;
  }
  const Tenant& Find(const std::string& name) const {
    return *std::find_if(tenants_.begin(), tenants_.end(),
                         [&](const Tenant& tenant) { return tenant.name == name; });
  }
  bool Full(const std::string& name) const {
    return Find(name).most_leases > 0 && Leases(name) >= Find(name).most_leases;
  }
  double Share(const std::string& name) const {
    return static_cast<double>(Leases(name)) / static_cast<double>(Find(name).weight);
  }

  // Whether `lease` is what `request` should get.
  void CheckLease(const LeaseRequest& request, const std::optional<Lease>& lease);
  void TakeBack(const ChunkKey& key, const absl::StatusOr<std::vector<ChunkKey>>& cut);
  void AddJob();
  void LeaseSome();
  void CommitSome();
  void Report(int64_t what);
  void CheckAll();

  std::vector<Tenant> tenants_ = {{"a", 1, 0, 0, 0}, {"b", 2, 0, 5, 0}, {"c", 1, 0, 0, 0}};
  std::mt19937_64 random_{static_cast<uint64_t>(GetParam())};
  std::string path_;
  std::unique_ptr<JobStore> store_;
  std::map<std::string, ModelJob> jobs_;
  std::vector<ChunkKey> given_;  // every key there ever was: most are stale
  int64_t now_ = 1000;
};

void RandomOperations::AddJob() {
  NewJob job = SomeJob(absl::StrCat("job", jobs_.size()));
  job.tenant = tenants_[Below(3)].name;
  job.priority = Below(3) - 1;
  ModelJob& model = jobs_[job.id];
  model.tenant = job.tenant;
  model.priority = job.priority;
  model.number = static_cast<int64_t>(jobs_.size());
  model.chunks = 1 + Below(8);
  ASSERT_TRUE(store_->Create(job, now_).ok());
  ASSERT_TRUE(store_->SetPlan(job.id, {10 * model.chunks - 3, 1}, now_).ok());
}

void RandomOperations::CheckLease(const LeaseRequest& request, const std::optional<Lease>& lease) {
  const ModelJob* best = nullptr;
  bool waits = false;
  for (const auto& [id, job] : jobs_) {
    if (!Gives(job, request)) continue;
    const bool job_waits = job.leased.empty();
    if (!job_waits && (waits || !request.spread)) continue;
    bool better = best == nullptr || (job_waits && !waits);
    if (!better && job_waits) {
      better = job.tenant == best->tenant ? job.Order() < best->Order()
                                          : Share(job.tenant) < Share(best->tenant);
    } else if (!better) {
      better = job.SpreadOrder() < best->SpreadOrder();
    }
    if (better) best = &job;
    waits = waits || job_waits;
  }
  ASSERT_EQ(lease.has_value(), best != nullptr);
  if (best == nullptr) return;
  const ChunkKey& key = lease->key;
  ModelJob& job = jobs_[key.job];
  ASSERT_TRUE(Gives(job, request));
  ASSERT_EQ(job.leased.empty(), waits);
  if (!waits) {
    ASSERT_EQ(&job, best);
  } else if (job.tenant == best->tenant) {
    ASSERT_EQ(job.number, best->number);
  } else {  // tenants may be even; but of its own tenant's it is the first
    ASSERT_EQ(Share(job.tenant), Share(best->tenant));
    for (const auto& [id, other] : jobs_) {
      const bool before = Gives(other, request) && other.leased.empty() &&
                          other.tenant == job.tenant && other.Order() < job.Order();
      ASSERT_FALSE(before) << id << " goes before " << key.job;
    }
  }
  ASSERT_EQ(key.chunk, job.next());
  ASSERT_EQ(lease->before_epoch, key.chunk == 0 ? 0 : job.rows[key.chunk - 1].epoch);
  ASSERT_EQ(lease->before_worker.empty(), job.leased.empty());
  for (const ChunkKey& before : given_) {
    ASSERT_TRUE(before.job != key.job || key.epoch > before.epoch);
  }
  job.state = JobState::kRunning;
  job.computed += job.Tokens(key.chunk);
  job.rows[key.chunk].epoch = key.epoch;
  job.leased.push_back(key);
  given_.push_back(key);
}

void RandomOperations::LeaseSome() {
  std::vector<LeaseRequest> requests;
  for (int64_t i = 0, n = 1 + Below(4); i < n; ++i) {
    requests.push_back({absl::StrCat("w", Below(100)), Below(4) == 0 ? 9 : kMost, Below(3) > 0});
  }
  const auto leases = store_->LeaseChunks(requests, now_);
  ASSERT_TRUE(leases.ok()) << leases.status();
  ASSERT_EQ(leases->size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_NO_FATAL_FAILURE(CheckLease(requests[i], leases->at(i)));
  }
}

void RandomOperations::CommitSome() {
  std::vector<Commit> commits;
  for (int64_t i = 0, n = 1 + Below(4); i < n; ++i) {
    const size_t recent = std::min<size_t>(given_.size(), 8);
    const ChunkKey& key =
        Below(3) ? given_[given_.size() - 1 - Below(recent)] : given_[Below(given_.size())];
    commits.push_back({key, {key.chunk, key.epoch, 7, "", ""}});
  }
  const auto answers = store_->CommitChunks(commits, now_);
  ASSERT_TRUE(answers.ok()) << answers.status();
  for (size_t i = 0; i < commits.size(); ++i) {
    const ChunkKey& key = commits[i].key;
    ModelJob& job = jobs_[key.job];
    const absl::Status status = answers->at(i).status();
    const auto at = std::find(job.leased.begin(), job.leased.end(), key);
    if (at == job.leased.end()) {
      const bool again = key.chunk < job.committed && job.rows[key.chunk].epoch == key.epoch;
      ASSERT_EQ(status.code(), again ? absl::StatusCode::kOk : absl::StatusCode::kAborted);
    } else if (at != job.leased.begin()) {
      ASSERT_TRUE(absl::IsUnavailable(status));
    } else {
      ASSERT_TRUE(status.ok()) << status;
      job.leased.erase(at);
      ASSERT_EQ(answers->at(i)->committed, ++job.committed);
    }
  }
}

void RandomOperations::TakeBack(const ChunkKey& key,
                                const absl::StatusOr<std::vector<ChunkKey>>& cut) {
  ModelJob& job = jobs_[key.job];
  ASSERT_TRUE(cut.ok()) << cut.status();
  std::vector<ChunkKey> others;
  for (const ChunkKey& leased : job.leased) {
    if (leased.chunk > key.chunk || (IsOver(job.state) && leased.chunk < key.chunk)) {
      others.push_back(leased);
    }
  }
  ASSERT_EQ(*cut, others);
  job.leased.resize(IsOver(job.state) ? 0 : key.chunk - job.committed);
}

// Lost, failed or handed back.
void RandomOperations::Report(int64_t what) {
  const ChunkKey key = Below(2) ? given_.back() : given_[Below(given_.size())];
  ModelJob& job = jobs_[key.job];
  const bool current = std::find(job.leased.begin(), job.leased.end(), key) != job.leased.end();
  ModelChunk& chunk = job.rows[key.chunk];
  absl::StatusOr<std::vector<ChunkKey>> cut;
  if (what < 3) {
    const bool blame = what == 0;
    cut = store_->Lose(key, blame, now_);
    if (current && ++(blame ? chunk.losses : chunk.unblamed) ==
                       (blame ? JobStore::kMostLosses : JobStore::kMostUnblamedLosses)) {
      job.state = JobState::kFailed;
    }
  } else if (what == 3) {
    cut = store_->Fail(key, "e", false, now_);
    if (current && ++chunk.failures == JobStore::kMostFailures) {
      job.state = JobState::kFailed;
    } else if (current) {
      job.not_before = now_ + (JobStore::kRetryMs << (chunk.failures - 1));
    }
  } else {
    cut = store_->HandBack(key);
    if (current) job.computed -= job.Tokens(key.chunk);
  }
  if (current) {
    TakeBack(key, cut);
  } else {
    ASSERT_TRUE(absl::IsAborted(cut.status())) << cut.status();
  }
}

void RandomOperations::CheckAll() {
  const auto leased = store_->Leased();
  ASSERT_TRUE(leased.ok());
  std::vector<ChunkKey> stored;
  for (const LeasedChunk& chunk : *leased) stored.push_back(chunk.key);
  std::vector<ChunkKey> expected;
  for (const auto& [id, job] : jobs_) {
    expected.insert(expected.end(), job.leased.begin(), job.leased.end());
    const auto now = store_->Get(id);
    ASSERT_TRUE(now.ok());
    ASSERT_EQ(now->state, job.state) << id;
    ASSERT_EQ(now->committed, job.committed);
    ASSERT_EQ(now->next, job.next());
    ASSERT_EQ(now->computed, job.computed);
    ASSERT_EQ(static_cast<int64_t>(store_->Committed(id)->size()), job.committed);
  }
  ASSERT_EQ(stored, expected);
}

TEST_P(RandomOperations, AgreeWithAModel) {
  for (int step = 0; step < 500; ++step) {
    now_ += Below(400);
    const int64_t what = Below(100);
    if (what < 10 && jobs_.size() < 10) {
      AddJob();
    } else if (what < 45) {
      LeaseSome();
    } else if (what < 75 && !given_.empty()) {
      CommitSome();
    } else if (what < 90 && !given_.empty()) {
      Report(Below(5));
    } else if (what < 93 && !jobs_.empty()) {
      auto& [id, job] = *std::next(jobs_.begin(), Below(jobs_.size()));
      ASSERT_EQ(store_->Cancel(id, now_).ok(), !IsOver(job.state));
      if (!IsOver(job.state)) job.state = JobState::kCancelled;
      job.leased.clear();
    } else if (what < 97) {
      const auto complete = store_->Complete(1);
      ASSERT_TRUE(complete.ok());
      if (complete->empty()) continue;
      ModelJob& job = jobs_[complete->front().id];
      ASSERT_EQ(job.committed, job.chunks);
      ASSERT_TRUE(store_->Succeed(complete->front().id, now_).ok());
      job.state = JobState::kSucceeded;
    } else {
      store_.reset();
      store_ = Open(path_);
    }
    ASSERT_NO_FATAL_FAILURE(CheckAll());
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations, ::testing::Range(1, 9));

}  // namespace
}  // namespace longwave

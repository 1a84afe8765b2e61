#include "scheduler/job_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/testing/test_database.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kMost = int64_t{1} << 40;

std::unique_ptr<JobStore> Open(const std::string& uri, ServerProbe* probe = nullptr) {
  auto database = OpenDatabase(uri);
  EXPECT_TRUE(database.ok()) << database.status();
  auto store = JobStore::Open(*std::move(database), probe);
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

std::string KindName(const ::testing::TestParamInfo<DatabaseKind>& info) {
  return Name(info.param);
}

class JobStoreTest : public ::testing::TestWithParam<DatabaseKind> {
 protected:
  void SetUp() override {
    if (!IsSkipped() && !HasFailure()) store_ = Open(database_.uri(), &probe_);
  }
  absl::Status Change(const char* sql) {
    return store_->database().Write(
        [&](SqlConnection& connection) { return connection.Run(sql, {}).status(); });
  }

  bool Told(const std::string& line) {  // of the probe's text
    return absl::StrContains(probe_.Text(), "\n" + line + "\n");
  }

  ServerProbe probe_;
  TestDatabase database_{GetParam()};
  std::unique_ptr<JobStore> store_;
};

INSTANTIATE_TEST_SUITE_P(On, JobStoreTest,
                         ::testing::Values(DatabaseKind::kSqlite, DatabaseKind::kPostgres),
                         KindName);

TEST_P(JobStoreTest, AJobFromItsCreationToItsEnd) {
  ASSERT_TRUE(store_->Create(SomeJob("a"), 5).ok());
  EXPECT_FALSE(Next(*store_, "w", 6).has_value());  // not planned
  EXPECT_EQ(store_->Unplanned(10)->size(), 1u);
  ASSERT_TRUE(store_->SetPlan("a", {25, 4}, 6).ok());
  EXPECT_TRUE(absl::IsAborted(store_->SetPlan("a", {25, 4}, 6)));
  EXPECT_FALSE(Next(*store_, "w", 6, 43).has_value());  // (10 + 1) tokens of 4 bytes
  for (int64_t k = 0; k < 3; ++k) {
    const auto lease = Next(*store_, "w", 7 + k, 44);
    ASSERT_TRUE(lease.has_value());
    EXPECT_EQ(lease->key, (ChunkKey{"a", k, k + 1}));
    EXPECT_EQ(lease->before_epoch, k);
    EXPECT_EQ(lease->before_worker, "");
    EXPECT_FALSE(Next(*store_, "v", 7, kMost, false).has_value());  // it would have to spread
    EXPECT_TRUE(absl::IsFailedPrecondition(store_->Succeed("a", 9)));
    ASSERT_TRUE(CommitOne(*store_, lease->key, {k, k + 1, 100, "out", "in"}).ok());
  }
  EXPECT_FALSE(Next(*store_, "w", 99).has_value());
  ASSERT_EQ(store_->Complete(10)->size(), 1u);
  ASSERT_TRUE(store_->Succeed("a", 20).ok());
  const auto job = store_->Get("a");
  EXPECT_EQ(job->state, JobState::kSucceeded);
  EXPECT_EQ(job->tokens_done, 25);
  EXPECT_EQ(job->computed, 25);
  EXPECT_EQ(job->output_bytes, 300);
  EXPECT_EQ(job->started_ms, 7);
  EXPECT_EQ(job->finished_ms, 20);
  EXPECT_EQ(store_->Committed("a")->size(), 3u);
  EXPECT_THAT(Kinds(*store_, "a"), ElementsAre("created", "planned", "started", "committed",
                                               "committed", "committed", "succeeded"));
  EXPECT_TRUE(absl::IsAborted(store_->Cancel("a", 30).status()));
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Get("a").status()));
  EXPECT_TRUE(store_->Committed("a")->empty());
  EXPECT_TRUE(store_->Events({}, 0, 10)->empty());
  EXPECT_EQ(*store_->LastEvent(), 7);
}

TEST_P(JobStoreTest, SequencesHaveChunksOfTheirOwn) {
  ASSERT_TRUE(store_->Create(SomeJob("a"), 1).ok());
  Plan plan{25 + 3 * 12 + 10, 1, 0, {{"x", 1, 25, 25}, {"", 3, 12, 12}, {"y", 1, 10, 10}}};
  ASSERT_TRUE(store_->SetPlan("a", plan, 2).ok());
  const std::vector<int64_t> tokens = {10, 10, 5, 10, 2, 10, 2, 10, 2, 10};
  const std::vector<int64_t> numbers = {0, 0, 0, 1, 1, 2, 2, 3, 3, 4};
  int64_t done = 0;
  for (int64_t k = 0; k < 10; ++k) {
    auto lease = Next(*store_, "w", 7);
    ASSERT_TRUE(lease.has_value());
    if (k == 4) {  // computed again
      ASSERT_TRUE(store_->HandBack(lease->key).ok());
      EXPECT_EQ(store_->Get("a")->computed, done);
      lease = Next(*store_, "w", 8);
    }
    EXPECT_EQ(lease->place.tokens, tokens[k]) << k;
    EXPECT_EQ(lease->place.sequence, numbers[k]) << k;
    EXPECT_EQ(lease->before_epoch == 0, lease->place.first == 0) << k;
    done += tokens[k];
    EXPECT_EQ(lease->job.computed, done);
    const auto job = CommitOne(*store_, lease->key);
    ASSERT_TRUE(job.ok()) << job.status();
    EXPECT_EQ(job->tokens_done, done);
  }
  EXPECT_FALSE(Next(*store_, "w", 9).has_value());
  const auto job = store_->Get("a");
  EXPECT_EQ(job->sequences, 5);
  EXPECT_EQ(job->chunk_count, 10);
  const auto rows = store_->Sequences(*job, 3, 10);
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ(rows->at(0), (SequenceRow{"", 3, 12, 12, 1, 3, 25}));
  EXPECT_EQ(rows->at(1), (SequenceRow{"y", 1, 10, 10, 4, 9, 61}));
  EXPECT_EQ(store_->Committed("a", 3, 6)->size(), 6u);
  EXPECT_EQ(store_->Complete(10)->size(), 1u);
  ASSERT_TRUE(store_->Succeed("a", 20).ok());
  ASSERT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(store_->Sequences(*job, 0, 10)->empty());
}

TEST_P(JobStoreTest, ASerialJobSpreadsOverSequencesAlone) {
  NewJob job = SomeJob("a");
  job.serial = true;
  ASSERT_TRUE(store_->Create(job, 1).ok());
  ASSERT_TRUE(store_->SetPlan("a", {60, 1, 3, {{"", 3, 20, 20}}}, 2).ok());
  const auto first = Next(*store_, "u", 3);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(Next(*store_, "v", 3).has_value());
  ASSERT_TRUE(CommitOne(*store_, first->key).ok());
  // One transaction: the job's second chunk, and the next sequence's first, and no more.
  const auto leases = store_->LeaseChunks({{"u", kMost}, {"v", kMost}, {"w", kMost}}, 4);
  ASSERT_TRUE(leases.ok()) << leases.status();
  EXPECT_EQ(leases->at(0)->key.chunk, 1);
  EXPECT_EQ(leases->at(1)->key.chunk, 2);
  EXPECT_FALSE(leases->at(2).has_value());
  ASSERT_TRUE(store_->Create(SomeJob("b"), 1).ok());
  ASSERT_TRUE(store_->SetPlan("b", {20, 1}, 2).ok());
  EXPECT_EQ(Next(*store_, "w", 5)->key.job, "b");
}

TEST_P(JobStoreTest, OneKeyOneJob) {
  NewJob job = SomeJob("a");
  job.idempotency_key = "key";
  ASSERT_TRUE(store_->Create(job, 1).ok());
  job.id = "b";
  EXPECT_EQ(store_->Create(job, 2)->id, "a");
  job.spec.chunk = 11;
  const auto other = store_->Create(job, 2);
  EXPECT_TRUE(absl::IsFailedPrecondition(other.status()));
  EXPECT_THAT(other.status().message(), HasSubstr("key"));
  EXPECT_EQ(store_->List({}, kMost, 10)->size(), 1u);
}

TEST_P(JobStoreTest, AnOlderEpochIsRefused) {
  Add(*store_, "a", 2);
  const ChunkKey old = LeaseOne(*store_, "slow");
  ASSERT_TRUE(store_->Lose(old, true, 10).ok());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, old).status()));
  const ChunkKey now = LeaseOne(*store_, "quick");
  EXPECT_GT(now.epoch, old.epoch);
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, old).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Lose(old, true, 10).status()));
  EXPECT_TRUE(absl::IsAborted(store_->HandBack(old).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Fail(old, "x", true, 10).status()));
  ASSERT_TRUE(CommitOne(*store_, now).ok());
  EXPECT_TRUE(CommitOne(*store_, now).ok());  // its answer may have been lost
  EXPECT_EQ(store_->Get("a")->committed, 1);
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, old).status()));
  const ChunkKey next = LeaseOne(*store_);
  ASSERT_TRUE(store_->Cancel("a", 11).ok());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, next).status()));
  EXPECT_TRUE(store_->Leased()->empty());
}

TEST_P(JobStoreTest, AChunkThatLosesThreeWorkersParksItsJob) {
  Add(*store_, "poison", 2);
  Add(*store_, "good", 1);
  for (const char* worker : {"w1", "w2", "w3"}) {
    const ChunkKey key = LeaseOne(*store_, worker);
    ASSERT_EQ(key.job, "poison");
    ASSERT_TRUE(store_->Lose(key, true, 10).ok());
  }
  const auto job = store_->Get("poison");
  EXPECT_EQ(job->state, JobState::kFailed);
  EXPECT_EQ(job->error,
            "chunk 0 lost its worker 3 times (workers w1, w2, w3): it is not tried again");
  EXPECT_EQ(LeaseOne(*store_).job, "good");
  EXPECT_TRUE(Told("longwave_jobs_poisoned_total 1"));
  EXPECT_TRUE(Told("longwave_jobs_over_total{state=\"failed\"} 1"));
}

TEST_P(JobStoreTest, TheEndOfAJobIsCountedOnce) {
  Add(*store_, "failed", 1);
  Add(*store_, "cancelled", 1);
  EXPECT_TRUE(store_->Fail(LeaseOne(*store_), "a bad token", true, 10).ok());
  EXPECT_TRUE(store_->Cancel("cancelled", 11).ok());
  EXPECT_FALSE(store_->Cancel("cancelled", 11).ok());
  EXPECT_TRUE(Told("longwave_jobs_poisoned_total 0"));
  EXPECT_TRUE(Told("longwave_jobs_over_total{state=\"failed\"} 1"));
  EXPECT_TRUE(Told("longwave_jobs_over_total{state=\"cancelled\"} 1"));
  EXPECT_TRUE(Told("longwave_store_errors_total 0"));
  EXPECT_FALSE(Told("longwave_store_seconds_count 0"));
}

TEST_P(JobStoreTest, FailuresAreTriedAgainLaterAndNotForEver) {
  Add(*store_, "a", 1);
  int64_t now = 1000;
  for (int64_t wait : {500, 1000}) {
    ASSERT_TRUE(store_->Fail(LeaseOne(*store_, "w", now), "disk full", false, now).ok());
    EXPECT_FALSE(Next(*store_, "w", now + wait - 1).has_value());
    now += wait;
  }
  ASSERT_TRUE(store_->Fail(LeaseOne(*store_, "w", now), "disk full", false, now).ok());
  EXPECT_EQ(store_->Get("a")->error, "chunk 0 failed 3 times, at last: disk full");
  Add(*store_, "b", 1);
  ASSERT_TRUE(store_->Fail(LeaseOne(*store_), "token id 300", true, now).ok());
  EXPECT_EQ(store_->Get("b")->error, "token id 300");
  EXPECT_EQ(store_->Get("b")->state, JobState::kFailed);
}

TEST_P(JobStoreTest, ListsNewestFirstInPages) {
  for (int i = 0; i < 5; ++i) Add(*store_, absl::StrCat("j", i), 1);
  ASSERT_TRUE(store_->Cancel("j3", 9).ok());
  const auto page = store_->List({}, kMost, 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ((*page)[1].id, "j3");
  EXPECT_EQ(store_->List({}, (*page)[1].number, 10)->front().id, "j2");
  EXPECT_EQ(store_->List({JobState::kCancelled, "", "", {}}, kMost, 10)->size(), 1u);
}

TEST_P(JobStoreTest, RefusesADatabaseOfALaterProgram) {
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

TEST_P(JobStoreTest, FilesAreKept) {
  ASSERT_TRUE(store_->AddFile({"f", "genome.fa", "sha", 12, 3}).ok());
  EXPECT_EQ(store_->GetFile("f")->name, "genome.fa");
  EXPECT_TRUE(absl::IsNotFound(store_->GetFile("g").status()));
}

TEST_P(JobStoreTest, ChunksOfAJobAreLeasedTogetherAndCommittedInOrder) {
  Add(*store_, "a", 4);
  const auto leases =
      store_->LeaseChunks({{"u", kMost, true}, {"v", kMost, true}, {"w", kMost}}, 9);
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
  EXPECT_EQ(store_->Get("a")->leases(), 3);
  const auto early = CommitOne(*store_, keys[1]);
  EXPECT_TRUE(absl::IsUnavailable(early.status())) << early.status();
  const auto answers = store_->CommitChunks(
      {{keys[2], {}}, {keys[0], {}}, {{"none", 0, 1}, {}}, {keys[1], {}}, {keys[1], {}}}, 10);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_TRUE(absl::IsUnavailable(answers->at(0).status()));
  EXPECT_EQ(answers->at(1)->committed, 1);
  EXPECT_TRUE(absl::IsNotFound(answers->at(2).status()));
  EXPECT_EQ(answers->at(3)->committed, 2);
  EXPECT_TRUE(answers->at(4).ok());
  EXPECT_EQ(store_->Get("a")->leases(), 1);
  EXPECT_EQ(store_->Leased("a")->front().worker, "w");
}

TEST_P(JobStoreTest, WhatIsTakenBackCutsLaterLeases) {
  Add(*store_, "a", 5);
  std::vector<ChunkKey> keys;
  for (int i = 0; i < 5; ++i) keys.push_back(LeaseOne(*store_, absl::StrCat("w", i)));
  EXPECT_EQ(store_->Get("a")->computed, 47);
  EXPECT_THAT(*store_->HandBack(keys[3]), ElementsAre(keys[4]));
  EXPECT_EQ(store_->Get("a")->computed, 37);
  EXPECT_THAT(*store_->Lose(keys[1], true, 10), ElementsAre(keys[2]));
  EXPECT_TRUE(absl::IsAborted(store_->HandBack(keys[2]).status()));
  const auto again = Next(*store_, "v", 11);
  EXPECT_EQ(again->key.chunk, 1);
  EXPECT_EQ(again->before_worker, "w0");
  LeaseOne(*store_, "v");
  // A job that fails takes the earlier ones with it too.
  const auto others = store_->Fail(again->key, "bad \xff token", true, 12);
  ASSERT_EQ(others->size(), 2u);
  EXPECT_EQ(others->front(), keys[0]);
  EXPECT_EQ(store_->Get("a")->error, "bad ? token");
  EXPECT_TRUE(store_->Leased()->empty());
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, keys[0]).status()));
  EXPECT_THAT(Kinds(*store_, "a"),
              ElementsAre("created", "planned", "started", "lost", "chunk_failed", "failed"));
}

TEST_P(JobStoreTest, LossesWithoutBlameAreEndless_AlmostSo) {
  Add(*store_, "a", 1);
  for (int i = 1; i < JobStore::kMostUnblamedLosses; ++i) {
    ASSERT_TRUE(store_->Lose(LeaseOne(*store_), false, 10).ok());
  }
  EXPECT_EQ(store_->Get("a")->state, JobState::kRunning);
  ASSERT_TRUE(store_->Lose(LeaseOne(*store_), false, 10).ok());
  EXPECT_THAT(store_->Get("a")->error, HasSubstr("25 times"));
}

TEST_P(JobStoreTest, ATermThatIsOverCannotWrite) {
  Add(*store_, "a", 2);
  const ChunkKey key = LeaseOne(*store_);
  ASSERT_TRUE(
      store_->database()
          .Write([](SqlConnection& connection) {
            return connection.Run("UPDATE leadership SET term = 7, server = 'other'", {}).status();
          })
          .ok());
  const auto refused = store_->LeaseChunks({{"w", kMost, true}}, 9);
  EXPECT_TRUE(absl::IsAborted(refused.status()));
  EXPECT_EQ(refused.status().message(), "server other leads in term 7, this one's term is 0");
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, key).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Lose(key, true, 9).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Fail(key, "e", true, 9).status()));
  EXPECT_TRUE(absl::IsAborted(store_->HandBack(key).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Succeed("a", 9)));
  store_->SetTerm(7);
  EXPECT_TRUE(CommitOne(*store_, key).ok());
}

TEST_P(JobStoreTest, AJobThatRunsForTooLongFails) {
  NewJob job = SomeJob("a");
  job.time_limit_ms = 1000;
  ASSERT_TRUE(store_->Create(job, 1).ok());
  ASSERT_TRUE(store_->SetPlan("a", {25, 1}, 2).ok());
  EXPECT_TRUE(store_->ExpireJobs(5000)->empty());  // it only waits
  const ChunkKey key = LeaseOne(*store_, "w", 6000);
  EXPECT_TRUE(store_->ExpireJobs(6999)->empty());
  EXPECT_THAT(*store_->ExpireJobs(7000), ElementsAre("a"));
  EXPECT_EQ(store_->Get("a")->error,
            "it ran for longer than its time limit of 1000 ms: 0 of 3 chunks are done");
  EXPECT_TRUE(absl::IsAborted(CommitOne(*store_, key).status()));
  EXPECT_TRUE(store_->ExpireJobs(8000)->empty());
}

}  // namespace
}  // namespace longwave

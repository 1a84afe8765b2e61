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
  ASSERT_TRUE(store.SetPlan(id, {10 * chunks - 3, 1}).ok());
}

ChunkKey LeaseOne(JobStore& store, const std::string& worker = "w", int64_t now = 100000) {
  const auto lease = store.LeaseNext(worker, kMost, now);
  EXPECT_TRUE(lease.ok() && lease->has_value()) << lease.status();
  return lease.ok() && lease->has_value() ? (*lease)->key : ChunkKey();
}

TEST(JobStore, AJobFromItsCreationToItsEnd) {
  auto store = Open();
  ASSERT_TRUE(store->Create(SomeJob("a"), 5).ok());
  EXPECT_FALSE(store->LeaseNext("w", kMost, 6)->has_value());  // not planned
  EXPECT_EQ(store->Unplanned(10)->size(), 1u);
  ASSERT_TRUE(store->SetPlan("a", {25, 4}).ok());
  EXPECT_TRUE(absl::IsAborted(store->SetPlan("a", {25, 4})));
  EXPECT_FALSE(store->LeaseNext("w", 43, 6)->has_value());  // (10 + 1) tokens of 4 bytes
  for (int64_t k = 0; k < 3; ++k) {
    const auto lease = store->LeaseNext("w", 44, 7 + k);
    ASSERT_TRUE(lease.ok() && lease->has_value());
    EXPECT_EQ((*lease)->key, (ChunkKey{"a", k, k + 1}));
    EXPECT_EQ((*lease)->boundary_epoch, k);
    EXPECT_FALSE(store->LeaseNext("v", kMost, 7)->has_value());  // one at a time
    EXPECT_TRUE(absl::IsFailedPrecondition(store->Succeed("a", 9)));
    ASSERT_TRUE(store->Commit((*lease)->key, {k, k + 1, 100, "out", "in"}).ok());
  }
  EXPECT_FALSE(store->LeaseNext("w", kMost, 99)->has_value());
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
  EXPECT_TRUE(absl::IsAborted(store->Cancel("a", 30).status()));
  EXPECT_TRUE(store->Delete("a").ok());
  EXPECT_TRUE(absl::IsNotFound(store->Get("a").status()));
  EXPECT_TRUE(store->Committed("a")->empty());
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
  EXPECT_EQ(store->List(std::nullopt, kMost, 10)->size(), 1u);
}

TEST(JobStore, AnOlderEpochIsRefused) {
  auto store = Open();
  Add(*store, "a", 2);
  const ChunkKey old = LeaseOne(*store, "slow");
  ASSERT_TRUE(store->Lose(old, 10).ok());
  EXPECT_TRUE(absl::IsAborted(store->Commit(old, {}).status()));
  const ChunkKey now = LeaseOne(*store, "quick");
  EXPECT_GT(now.epoch, old.epoch);
  EXPECT_TRUE(absl::IsAborted(store->Commit(old, {}).status()));
  EXPECT_TRUE(absl::IsAborted(store->Lose(old, 10)));
  EXPECT_TRUE(absl::IsAborted(store->HandBack(old)));
  EXPECT_TRUE(absl::IsAborted(store->Fail(old, "x", true, 10)));
  ASSERT_TRUE(store->Commit(now, {}).ok());
  EXPECT_TRUE(store->Commit(now, {}).ok());  // its answer may have been lost
  EXPECT_EQ(store->Get("a")->committed, 1);
  EXPECT_TRUE(absl::IsAborted(store->Commit(old, {}).status()));
  const ChunkKey next = LeaseOne(*store);
  ASSERT_TRUE(store->Cancel("a", 11).ok());
  EXPECT_TRUE(absl::IsAborted(store->Commit(next, {}).status()));
  EXPECT_TRUE(store->Leased()->empty());
}

TEST(JobStore, AChunkThatLosesThreeWorkersParksItsJob) {
  auto store = Open();
  Add(*store, "poison", 2);
  Add(*store, "good", 1);
  for (const char* worker : {"w1", "w2", "w3"}) {
    const ChunkKey key = LeaseOne(*store, worker);
    ASSERT_EQ(key.job, "poison");
    ASSERT_TRUE(store->Lose(key, 10).ok());
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
    EXPECT_FALSE(store->LeaseNext("w", kMost, now + wait - 1)->has_value());
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
  const auto page = store->List(std::nullopt, kMost, 2);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ((*page)[1].id, "j3");
  EXPECT_EQ(store->List(std::nullopt, (*page)[1].number, 10)->front().id, "j2");
  EXPECT_EQ(store->List(JobState::kCancelled, kMost, 10)->size(), 1u);
}

TEST(JobStore, RefusesADatabaseOfALaterProgram) {
  auto database = OpenSqlite(":memory:");
  ASSERT_TRUE((*database)->Run("CREATE TABLE schema_version (version BIGINT)", {}).ok());
  ASSERT_TRUE((*database)->Run("INSERT INTO schema_version VALUES (99)", {}).ok());
  EXPECT_THAT(JobStore::Open(*std::move(database)).status().message(), HasSubstr("99"));
}

TEST(JobStore, FilesAreKept) {
  auto store = Open();
  ASSERT_TRUE(store->AddFile({"f", "genome.fa", "sha", 12, 3}).ok());
  EXPECT_EQ(store->GetFile("f")->name, "genome.fa");
  EXPECT_TRUE(absl::IsNotFound(store->GetFile("g").status()));
}

// Random operations against the simplest model of what must hold; now and then the store is closed
// and opened again, as a server that was killed does.
class RandomOperations : public ::testing::TestWithParam<int> {};

TEST_P(RandomOperations, AgreeWithAModel) {
  struct ModelJob {
    JobState state = JobState::kQueued;
    int64_t chunks = 0, committed = 0, losses = 0, failures = 0;
    std::optional<ChunkKey> leased;
    std::map<int64_t, int64_t> epochs;  // of committed chunks
  };
  const std::string path = absl::StrCat(::testing::TempDir(), "/store-", getpid(), "-", GetParam());
  std::filesystem::remove(path);
  std::mt19937_64 random(GetParam());
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  auto store = Open(path);
  std::map<std::string, ModelJob> jobs;
  std::vector<ChunkKey> given;  // every key there ever was: most are stale
  int64_t now = 1000;
  for (int step = 0; step < 400; ++step) {
    now += below(5000);
    const int64_t what = below(100);
    if (what < 8 && jobs.size() < 8) {
      const std::string id = absl::StrCat("job", jobs.size());
      jobs[id].chunks = 1 + below(5);
      Add(*store, id, jobs[id].chunks);
    } else if (what < 45) {
      const auto lease = store->LeaseNext(absl::StrCat("w", step), kMost, now + 100000);
      ASSERT_TRUE(lease.ok()) << lease.status();
      const bool any = std::any_of(jobs.begin(), jobs.end(), [](const auto& entry) {
        const ModelJob& job = entry.second;
        return !IsOver(job.state) && !job.leased && job.committed < job.chunks;
      });
      ASSERT_EQ(lease->has_value(), any);
      if (!any) continue;
      const ChunkKey key = (*lease)->key;
      ModelJob& job = jobs[key.job];
      ASSERT_FALSE(IsOver(job.state) || job.leased);
      ASSERT_EQ(key.chunk, job.committed);
      ASSERT_EQ((*lease)->boundary_epoch, key.chunk == 0 ? 0 : job.epochs[key.chunk - 1]);
      for (const ChunkKey& before : given) {
        ASSERT_TRUE(before.job != key.job || key.epoch > before.epoch);
      }
      job.state = JobState::kRunning;
      job.leased = key;
      given.push_back(key);
    } else if (what < 93 && !given.empty()) {
      const ChunkKey key = below(2) ? given.back() : given[below(given.size())];
      ModelJob& job = jobs[key.job];
      const bool current = job.leased == key;
      if (what < 75) {
        const bool again = job.epochs.count(key.chunk) && job.epochs[key.chunk] == key.epoch;
        const auto committed = store->Commit(key, {key.chunk, key.epoch, 7, "", ""});
        ASSERT_EQ(committed.ok(), current || again) << committed.status();
        if (!current) continue;
        job.epochs[key.chunk] = key.epoch;
        job.committed++;
        job.losses = job.failures = 0;
      } else if (what < 83) {
        ASSERT_EQ(store->Lose(key, now).ok(), current);
        if (current && ++job.losses == JobStore::kMostLosses) job.state = JobState::kFailed;
      } else if (what < 89) {
        ASSERT_EQ(store->Fail(key, "e", false, now).ok(), current);
        if (current && ++job.failures == JobStore::kMostFailures) job.state = JobState::kFailed;
      } else {
        ASSERT_EQ(store->HandBack(key).ok(), current);
      }
      if (current) job.leased.reset();
    } else if (what < 95 && !jobs.empty()) {
      auto& [id, job] = *std::next(jobs.begin(), below(jobs.size()));
      ASSERT_EQ(store->Cancel(id, now).ok(), !IsOver(job.state));
      if (!IsOver(job.state)) job.state = JobState::kCancelled;
      job.leased.reset();
    } else if (what < 98) {
      const auto complete = store->Complete(1);
      ASSERT_TRUE(complete.ok());
      if (complete->empty()) continue;
      ModelJob& job = jobs[complete->front().id];
      ASSERT_EQ(job.committed, job.chunks);
      ASSERT_TRUE(store->Succeed(complete->front().id, now).ok());
      job.state = JobState::kSucceeded;
    } else {
      store.reset();
      store = Open(path);
    }
    std::set<std::string> leased;
    const auto now_leased = store->Leased();
    ASSERT_TRUE(now_leased.ok());
    for (const LeasedChunk& chunk : *now_leased) {
      ASSERT_TRUE(jobs[chunk.key.job].leased == chunk.key);
      leased.insert(chunk.key.job);
    }
    for (const auto& [id, job] : jobs) {
      ASSERT_EQ(leased.count(id) > 0, job.leased.has_value());
      const auto stored = store->Get(id);
      ASSERT_TRUE(stored.ok());
      ASSERT_EQ(stored->state, job.state) << id;
      ASSERT_EQ(stored->committed, job.committed);
      ASSERT_EQ(store->Committed(id)->size(), job.epochs.size());
    }
  }
  store.reset();
  for (const char* end : {"", "-wal", "-shm"}) std::filesystem::remove(path + end);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations, ::testing::Range(1, 9));

}  // namespace
}  // namespace longwave

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "scheduler/job_store.h"
#include "scheduler/testing/test_database.h"

namespace longwave {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;

std::unique_ptr<JobStore> Open(const std::string& uri) {
  auto database = OpenDatabase(uri);
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

// Random operations against the simplest model of what must hold; now and then the store is closed
// and opened again, as a server that was killed does.
class RandomOperations : public ::testing::TestWithParam<std::tuple<DatabaseKind, int>> {
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
    if (IsSkipped() || HasFailure()) return;
    store_ = Open(database_.uri());
    for (const Tenant& tenant : tenants_) ASSERT_TRUE(store_->PutTenant(tenant).ok());
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
  std::mt19937_64 random_{static_cast<uint64_t>(std::get<1>(GetParam()))};
  TestDatabase database_{std::get<0>(GetParam())};
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
  stored.reserve(leased->size());
  for (const LeasedChunk& chunk : *leased) stored.push_back(chunk.key);
  std::vector<ChunkKey> expected;
  for (const auto& [id, job] : jobs_) {
    expected.insert(expected.end(), job.leased.begin(), job.leased.end());
  }
  ASSERT_EQ(stored, expected);
  const auto jobs = store_->List({}, kMost, 100);
  ASSERT_TRUE(jobs.ok());
  ASSERT_EQ(jobs->size(), jobs_.size());
  for (const Job& now : *jobs) {
    const ModelJob& job = jobs_[now.id];
    ASSERT_EQ(now.state, job.state) << now.id;
    ASSERT_EQ(now.committed, job.committed);
    ASSERT_EQ(now.next, job.next());
    ASSERT_EQ(now.computed, job.computed);
  }
  if (given_.empty()) return;
  const ModelJob& job = jobs_[given_.back().job];
  const auto committed = store_->Committed(given_.back().job);
  ASSERT_EQ(static_cast<int64_t>(committed->size()), job.committed);
  for (const CommittedChunk& chunk : *committed) {
    ASSERT_EQ(chunk.epoch, job.rows.at(chunk.chunk).epoch);
  }
}

TEST_P(RandomOperations, AgreeWithAModel) {
  for (int step = 0; step < 500; ++step) {
    now_ += Below(400);
    const int64_t what = Below(100);
    if (what < 10 && jobs_.size() < 10) {
      AddJob();
    } else if (what < 45 && !jobs_.empty()) {
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
      store_ = Open(database_.uri());
    }
    ASSERT_NO_FATAL_FAILURE(CheckAll());
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations,
                         ::testing::Combine(::testing::Values(DatabaseKind::kSqlite,
                                                              DatabaseKind::kPostgres),
                                            ::testing::Range(1, 9)),
                         [](const auto& info) {
                           return absl::StrCat(Name(std::get<0>(info.param)),
                                               std::get<1>(info.param));
                         });

}  // namespace
}  // namespace longwave

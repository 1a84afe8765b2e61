#include "scheduler/dispatcher.h"

#include <unistd.h>

#include <deque>
#include <filesystem>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kLease = 6000;
constexpr int64_t kChunk = 8;

// A store, a dispatcher over a fake clock, and what it sent.
class DispatcherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/dispatcher-", getpid());
    std::filesystem::remove_all(folder_);
    objects_ = *ObjectStore::Open("file://" + folder_);
    Restart();
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  // A new scheduler over the same database.
  void Restart() {
    dispatcher_.reset();
    store_.reset();
    store_ = *JobStore::Open(*OpenSqlite(folder_ + "/db"));
    dispatcher_ =
        std::make_unique<Dispatcher>(*store_, *objects_, DispatcherOptions{kLease, "/models"},
                                     [this](const std::string& worker, const Message& message) {
                                       if (unreachable_ == worker) return false;
                                       sent_.push_back({worker, message});
                                       return true;
                                     });
    ASSERT_TRUE(dispatcher_->Start(now_).ok());
  }

  void Add(const std::string& id, int64_t chunks) {
    NewJob job;
    job.id = id;
    job.spec.model = "m";
    job.spec.input = "f";
    job.spec.chunk = kChunk;
    job.model_hash = "hash";
    ASSERT_TRUE(store_->Create(job, now_).ok());
    ASSERT_TRUE(store_->SetPlan(id, {chunks * kChunk - 3, 1}, now_).ok());
  }

  void Say(const std::string& worker, const Message& message) {
    dispatcher_->Receive(worker, message, now_);
  }
  void Tick(int64_t ms = 0) {
    now_ += ms;
    const absl::Status status = dispatcher_->Tick(now_);
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<std::string> Sent() {
    std::vector<std::string> names;
    for (const auto& [worker, message] : sent_) {
      names.push_back(absl::StrCat(worker, " ", Name(message)));
    }
    sent_.clear();
    return names;
  }
  void Join(const std::string& worker) {
    Say(worker, Hello{1, "cpu"});
    Say(worker, Ready{1 << 20});
  }

  std::string folder_, unreachable_;
  int64_t now_ = 1000;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::pair<std::string, Message>> sent_;
};

TEST_F(DispatcherTest, ARegisteredWorkerGetsAChunk) {
  Say("w", Ready{1 << 20});
  EXPECT_THAT(Sent(), ElementsAre("w Unknown"));
  Join("w");
  EXPECT_THAT(Sent(), ElementsAre("w Welcome"));
  Add("a", 2);
  Tick();
  ASSERT_EQ(sent_.size(), 1u);
  const Assign assign = std::get<Assign>(sent_[0].second);
  EXPECT_EQ(assign.key, (ChunkKey{"a", 0, 1}));
  EXPECT_EQ(assign.chunk_tokens, kChunk);
  EXPECT_EQ(assign.length, 13);
  Sent();
  Tick();
  Say("w", Ready{1 << 20});  // the assignment was lost on its way
  EXPECT_THAT(Sent(), ElementsAre("w Assign"));
  Say("w", Done{assign.key, 32, "a", "b"});
  Say("w", Done{assign.key, 32, "a", "b"});  // the answer was lost
  EXPECT_THAT(Sent(), ElementsAre("w Committed", "w Committed"));
  Tick();
  EXPECT_THAT(Sent(), ElementsAre());  // no credit
}

TEST_F(DispatcherTest, ALeaseLivesAsLongAsItsWorkerSpeaks) {
  Join("w");
  Join("v");
  Add("a", 1);
  Tick();
  ASSERT_EQ(sent_.back().first, "v");  // by name
  const ChunkKey key = std::get<Assign>(sent_.back().second).key;
  for (int i = 0; i < 10; ++i) {
    Say("v", Progress{key});
    Say("w", Ready{1 << 20});
    Tick(kLease - 1);
  }
  Sent();
  Say("w", Ready{1 << 20});
  Tick(1);
  Tick(kLease - 1);
  EXPECT_EQ(std::get<Assign>(sent_.back().second).key, (ChunkKey{"a", 0, 2}));
  Sent();
  Say("v", Hello{1, "cpu"});
  Say("v", Progress{key});
  Say("v", Done{key, 20, "a", "b"});
  EXPECT_THAT(Sent(), ElementsAre("v Welcome", "v Dropped", "v Dropped"));
}

TEST_F(DispatcherTest, ANewSchedulerBelievesInLeasesThatItFinds) {
  Join("w");
  Add("a", 1);
  Tick();
  const ChunkKey key = std::get<Assign>(sent_.back().second).key;
  Restart();
  Join("other");
  Tick(kLease - 1);
  Sent();
  Say("w", Progress{key});
  Say("w", Hello{1, "cpu"});
  Say("w", Progress{key});
  Tick(kLease - 1);
  EXPECT_THAT(Sent(), ElementsAre("w Unknown", "w Welcome"));
  Say("w", Done{key, 20, "a", "b"});
  EXPECT_THAT(Sent(), ElementsAre("w Committed"));
  Tick();
  EXPECT_EQ(store_->Get("a")->state, JobState::kSucceeded);
}

TEST_F(DispatcherTest, AnAssignmentThatNeverLeftIsNoLoss) {
  Join("w");
  Add("a", 1);
  unreachable_ = "w";
  Tick();
  EXPECT_TRUE(store_->Leased()->empty());
  unreachable_ = "";
  Say("w", Ready{1 << 20});
  Tick();
  Restart();  // and this one was lost with the scheduler
  Join("w");
  Sent();
  Tick();
  EXPECT_THAT(Sent(), ElementsAre("w Assign"));
}

TEST_F(DispatcherTest, AnEndedWorkerIsLostAtOnceAndOneThatLeavesIsNot) {
  Join("w");
  Add("a", 1);
  for (const char* worker : {"w1", "w2"}) {
    Tick();
    Say(sent_.back().first, Goodbye{});
    Join(worker);
  }
  Tick();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(dispatcher_->WorkerEnded(absl::StrCat("w", i + 2), now_).ok());
    Join(absl::StrCat("w", i + 3));
    Tick();
  }
  const auto job = store_->Get("a");
  EXPECT_EQ(job->state, JobState::kFailed);
  EXPECT_THAT(job->error, HasSubstr("workers w2, w3, w4"));
}

TEST_F(DispatcherTest, ADrainGivesOutNothing) {
  Join("w");
  dispatcher_->StartDrain();
  Add("a", 1);
  Tick();
  Join("late");
  EXPECT_THAT(Sent(), ElementsAre("w Welcome", "w Drain", "late Welcome", "late Drain"));
  Say("old", Hello{99, "cpu"});
  EXPECT_THAT(Sent(), ElementsAre("old Drain"));
}

TEST_F(DispatcherTest, AFinishedJobKeepsItsOutputsAndManifestAlone) {
  Join("w");
  Add("a", 1);
  Tick();
  const ChunkKey key = std::get<Assign>(sent_.back().second).key;
  const std::string values(5 * sizeof(float), 'v');
  for (const std::string& name :
       {OutputName("a", 1, 0), BoundaryName("a", 1, 0), TokensName("a"), OutputName("a", 0, 0)}) {
    ASSERT_TRUE(objects_->Write(name, values).ok());
  }
  Say("w", Done{key, 20, HexSha256(values), "b"});
  Tick();
  EXPECT_THAT(*objects_->List("jobs/a"), ElementsAre("jobs/a/1/0.output", "jobs/a/manifest.json"));
  EXPECT_THAT(*objects_->ReadAll(ManifestName("a"), 10000),
              AllOf(HasSubstr(HexSha256(values)), HasSubstr("\"shape\":[5]")));
}

// Workers that compute a chain, die, freeze and lose messages; schedulers that are killed. In the
// end every job has the output of an undisturbed run, or was parked by three losses.
class Storm : public DispatcherTest, public ::testing::WithParamInterface<int> {};

TEST_P(Storm, LosesNothing) {
  struct SimWorker {
    bool known = false;
    std::optional<Assign> work;
    std::optional<Message> result;
    int64_t ready_at = 0, frozen_until = 0;
    std::deque<Message> inbox;
  };
  std::mt19937_64 random(GetParam());
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  std::map<std::string, SimWorker> workers;
  int names = 0;
  const auto value = [](const std::string& job, int64_t chunk, const std::string& before,
                        int64_t tokens) {
    const std::string hash = HexSha256(absl::StrCat(job, chunk, before));
    return std::pair(hash, hash.substr(0, tokens * 4));
  };
  const int64_t jobs = 4;
  for (int64_t i = 0; i < jobs; ++i) Add(absl::StrCat("job", i), 1 + below(6));
  int64_t granted = 0;
  for (int step = 0; step < 4000; ++step) {
    now_ += below(400);
    while (workers.size() < 3) workers[absl::StrCat("w", ++names)];
    for (auto& [worker, message] : sent_) {
      if (below(20) > 0 && workers.contains(worker)) workers[worker].inbox.push_back(message);
    }
    sent_.clear();
    for (auto& [name, worker] : workers) {
      if (worker.frozen_until > now_) continue;
      for (const Message& message : worker.inbox) {
        if (std::holds_alternative<Welcome>(message)) worker.known = true;
        if (std::holds_alternative<Unknown>(message)) worker.known = false;
        if (const Assign* assign = std::get_if<Assign>(&message)) {
          if (worker.work.has_value()) continue;
          ++granted;
          worker.work = *assign;
          worker.ready_at = now_ + below(3000);
        }
        const ChunkKey* over = nullptr;
        if (const auto* done = std::get_if<Committed>(&message)) over = &done->key;
        if (const auto* drop = std::get_if<Dropped>(&message)) over = &drop->key;
        if (over != nullptr && worker.work.has_value() && worker.work->key == *over) {
          worker.work.reset();
          worker.result.reset();
        }
      }
      worker.inbox.clear();
      if (worker.work.has_value() && !worker.result.has_value() && worker.ready_at <= now_) {
        const ChunkKey& key = worker.work->key;
        std::string before;
        if (key.chunk > 0) {
          const auto boundary = objects_->ReadAll(
              BoundaryName(key.job, worker.work->boundary_epoch, key.chunk - 1), 1000);
          if (!boundary.ok()) continue;  // its job is over
          before = *boundary;
        }
        const int64_t tokens = std::min(kChunk, worker.work->length - key.chunk * kChunk);
        const auto [state, output] = value(key.job, key.chunk, before, tokens);
        ASSERT_TRUE(objects_->Write(BoundaryName(key.job, key.epoch, key.chunk), state).ok());
        ASSERT_TRUE(objects_->Write(OutputName(key.job, key.epoch, key.chunk), output).ok());
        worker.result = Done{key, static_cast<int64_t>(output.size()), HexSha256(output), ""};
        if (below(15) == 0) worker.result = Failed{key, false, "bad luck"};
      }
      if (below(20) == 0) continue;  // what it says is lost
      if (!worker.known) {
        Say(name, Hello{1, "sim"});
      } else if (worker.result.has_value()) {
        Say(name, *worker.result);
      } else if (worker.work.has_value()) {
        Say(name, Progress{worker.work->key});
      } else {
        Say(name, Ready{1 << 20});
      }
    }
    const int64_t what = below(400);
    if (what < 4) workers.erase(std::next(workers.begin(), below(workers.size())));
    if (what == 4)
      std::next(workers.begin(), below(workers.size()))->second.frozen_until = now_ + 20000;
    if (what == 5) Restart();
    Tick();
    if (store_->List({JobState::kQueued, "", "", {}}, 1 << 30, 10)->empty() &&
        store_->List({JobState::kRunning, "", "", {}}, 1 << 30, 10)->empty()) {
      break;
    }
  }
  for (int64_t i = 0; i < jobs; ++i) {
    const auto job = store_->Get(absl::StrCat("job", i));
    if (job->state == JobState::kFailed) {
      EXPECT_TRUE(absl::StrContains(job->error, "lost its worker 3 times") ||
                  absl::StrContains(job->error, "bad luck"))
          << job->error;
      continue;
    }
    ASSERT_EQ(job->state, JobState::kSucceeded) << job->id;
    std::string before;
    const auto chunks = store_->Committed(job->id);
    ASSERT_EQ(static_cast<int64_t>(chunks->size()), job->chunks());
    for (const CommittedChunk& chunk : *chunks) {
      const auto [state, output] =
          value(job->id, chunk.chunk, before, job->ChunkTokens(chunk.chunk));
      EXPECT_EQ(*objects_->ReadAll(OutputName(job->id, chunk.epoch, chunk.chunk), 1000), output);
      before = state;
    }
  }
  EXPECT_GE(granted, jobs);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Storm, ::testing::Range(1, 11));

}  // namespace
}  // namespace longwave

#include "scheduler/dispatcher.h"

#include <unistd.h>

#include <deque>
#include <filesystem>
#include <map>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "formats/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/finish_job.h"
#include "scheduler/object_store.h"

namespace longwave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

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
    DispatcherOptions options;
    options.lease_ms = kLease;
    options.objects = objects_->uri();
    options.models = "/models";
    options.probe = &probe_;
    options.complete = [this] { ++complete_; };
    dispatcher_ = std::make_unique<Dispatcher>(
        *store_, options, [this](const std::string& worker, const Message& message) {
          if (unreachable_ == worker) return false;
          sent_.push_back({worker, message});
          return true;
        });
    ASSERT_TRUE(dispatcher_->Start(now_).ok());
  }

  void Add(const std::string& id, const Plan& plan, bool serial = false) {
    NewJob job;
    job.id = id;
    job.spec.model = "m";
    job.spec.input = "f";
    job.spec.chunk = kChunk;
    job.model_hash = "hash";
    job.serial = serial;
    ASSERT_TRUE(store_->Create(job, now_).ok());
    ASSERT_TRUE(store_->SetPlan(id, plan, now_).ok());
  }
  void Add(const std::string& id, int64_t chunks) { Add(id, Plan{chunks * kChunk - 3, 1}); }

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
  // What was assigned since the last call, by job and chunk: "a/0".
  std::map<std::string, std::pair<std::string, Assign>> Assigned() {
    std::map<std::string, std::pair<std::string, Assign>> assigned;
    for (const auto& [worker, message] : sent_) {
      if (const auto* assign = std::get_if<Assign>(&message)) {
        assigned[absl::StrCat(assign->key.job, "/", assign->key.chunk)] = {worker, *assign};
      }
    }
    sent_.clear();
    return assigned;
  }
  void Join(const std::string& worker, int64_t slots = 1) {
    Say(worker, Hello{kProtocolVersion, "cpu", "tcp://" + worker});
    Say(worker, Report{slots, 1 << 20, {}});
  }
  void FinishJobs() {
    const auto complete = store_->Complete(10);
    for (const Job& job : *complete) {
      ASSERT_TRUE(FinishJob(job, *store_, *objects_, now_).ok());
    }
  }
  void SayDone(const std::string& worker, const ChunkKey& key) {
    Say(worker, Done{key, 20, "a", "b", 1000});
  }

  std::string folder_, unreachable_;
  int64_t now_ = 1000;
  int complete_ = 0;
  ServerProbe probe_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::pair<std::string, Message>> sent_;
};

TEST_F(DispatcherTest, ARegisteredWorkerGetsAChunk) {
  Say("w", Report{1, 1 << 20, {}});
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
  EXPECT_EQ(assign.tokens, 8);
  EXPECT_EQ(assign.boundary.name + assign.before + assign.before_links, "");
  Sent();
  Tick();
  Say("w", Report{1, 1 << 20, {}});  // the assignment was lost on its way
  EXPECT_THAT(Sent(), ElementsAre("w Assign"));
  SayDone("w", assign.key);
  SayDone("w", assign.key);
  Say("w", Report{0, 1 << 20, {assign.key}});
  Tick();
  EXPECT_THAT(Sent(), ElementsAre("w Committed"));
  SayDone("w", assign.key);  // the answer was lost
  EXPECT_THAT(Sent(), ElementsAre("w Committed"));
  Tick();
  EXPECT_THAT(Sent(), ElementsAre());  // no slots
  Say("w", Report{1, 1 << 20, {}});
  Tick();
  const Assign next = std::get<Assign>(sent_.back().second);
  EXPECT_EQ(next.key, (ChunkKey{"a", 1, 2}));
  EXPECT_EQ(next.boundary, (BoundaryObject{BoundaryName("a", 1, 0), "b"}));
  EXPECT_FALSE(assign.last);
  EXPECT_TRUE(next.last);
  EXPECT_EQ(complete_, 0);
  SayDone("w", next.key);
  Tick();
  EXPECT_EQ(complete_, 1);
  EXPECT_EQ(dispatcher_->Workers()[0].tokens, 13);
  EXPECT_DOUBLE_EQ(dispatcher_->Workers()[0].tokens_per_second, 13 / 0.002);
}

TEST_F(DispatcherTest, AJobSpreadsOverThoseWhoAreIdleAndCommitsInOrder) {
  for (const char* worker : {"u", "v", "w"}) Join(worker, 2);
  Add("a", 5);
  Tick();
  auto given = Assigned();
  ASSERT_EQ(given.size(), 5u);  // nobody gets a second chunk while others have none
  EXPECT_EQ(given["a/0"].first, "u");
  EXPECT_EQ(given["a/1"].second.before, StreamName(given["a/0"].second.key));
  EXPECT_EQ(given["a/1"].second.before_links, "tcp://u");
  EXPECT_EQ(given["a/2"].second.before_links, "tcp://v");
  EXPECT_EQ(given["a/2"].second.boundary.name, "");
  EXPECT_EQ(given["a/3"].first, "u");  // and then one to go on with, without waiting for a tick
  EXPECT_EQ(given["a/3"].second.before_links, "tcp://w");
  SayDone("w", given["a/2"].second.key);
  SayDone("v", given["a/1"].second.key);
  Tick();
  EXPECT_EQ(store_->Get("a")->committed, 0);
  EXPECT_THAT(Sent(), ElementsAre());
  SayDone("u", given["a/0"].second.key);
  Tick();
  EXPECT_EQ(store_->Get("a")->committed, 3);
  EXPECT_EQ(std::get<BoundaryReady>(sent_[1].second),
            (BoundaryReady{given["a/1"].second.key, {BoundaryName("a", 1, 0), "b"}}));
  EXPECT_THAT(Sent(), ElementsAre("u Committed", "v BoundaryReady", "v Committed",
                                  "w BoundaryReady", "w Committed", "u BoundaryReady"));
}

// Its worker removes what it stored of a chunk that is dropped.
TEST_F(DispatcherTest, AChunkThatIsCommittedIsNotDropped) {
  Join("v");
  Add("a", 1);
  Tick();
  const ChunkKey key = Assigned()["a/0"].second.key;
  SayDone("v", key);
  Tick();
  EXPECT_EQ(store_->Get("a")->committed, 1);
  Sent();  // lost on its way
  Say("v", Report{0, 1 << 20, {key}});
  EXPECT_THAT(Sent(), ElementsAre("v Committed"));
  Restart();
  Join("v", 0);
  Sent();
  Say("v", Report{0, 1 << 20, {key}});
  EXPECT_THAT(Sent(), ElementsAre("v Committed"));
  Say("v", Report{0, 1 << 20, {{"a", 0, 7}, {"b", 0, 1}}});
  EXPECT_THAT(Sent(), ElementsAre("v Dropped", "v Dropped"));
}

// Round after round in the same order, so that nobody waits for the states of one who began later.
TEST_F(DispatcherTest, ChunksToGoOnWithAreGivenInTurn) {
  for (const char* worker : {"u", "v", "w"}) Join(worker, 2);
  Add("a", 20);
  Tick();
  auto first = Assigned();
  ASSERT_EQ(first.size(), 6u);
  SayDone("v", first["a/1"].second.key);
  Tick(10);
  EXPECT_EQ(Assigned().size(), 0u);  // v has work, and it is u's turn
  SayDone("u", first["a/0"].second.key);
  Tick(10);
  auto second = Assigned();
  ASSERT_EQ(second.size(), 2u);
  EXPECT_EQ(second["a/6"].first, "u");
  EXPECT_EQ(second["a/7"].first, "v");
  SayDone("u", {"a", 3, 4});
  Tick(10);
  EXPECT_EQ(Assigned().size(), 0u);
  Tick(60);  // w takes too long
  EXPECT_EQ(Assigned()["a/8"].first, "u");
}

TEST_F(DispatcherTest, WhereThereIsLittleWorkThoseHaveItWhoWouldBeRemovedLast) {
  now_ = 1'000'000;
  const std::pair<const char*, int64_t> ages[] = {{"young", 1000}, {"b", 400'000}, {"a", 300'000}};
  for (const auto& [name, age] : ages) {
    Say(name, Hello{kProtocolVersion, "cpu", "", age, name});
    Say(name, Report{1, 1 << 20, {}});
  }
  Add("x", 1);
  Add("y", 1);
  Tick();
  auto given = Assigned();
  EXPECT_EQ(given["x/0"].first, "b");
  EXPECT_EQ(given["y/0"].first, "a");
  SayDone("b", given["x/0"].second.key);
  Add("z", 1);
  Tick();
  EXPECT_EQ(Assigned()["z/0"].first, "b");  // which had a chunk already, as "young" had not
}

TEST_F(DispatcherTest, AJobShrinksWhereOthersWait) {
  Join("v");
  Join("w");
  Add("a", 4);
  Tick();
  auto given = Assigned();
  Add("b", 1);
  SayDone("v", given["a/0"].second.key);
  SayDone("w", given["a/1"].second.key);
  Tick();
  given = Assigned();
  ASSERT_EQ(given.size(), 2u);
  EXPECT_EQ(given.count("b/0"), 1u);
}

TEST_F(DispatcherTest, ALostChunkTakesThoseAfterItWithIt) {
  for (const char* worker : {"u", "v", "w"}) Join(worker);
  Add("a", 3);
  Tick();
  auto given = Assigned();
  SayDone("w", given["a/2"].second.key);
  ASSERT_TRUE(dispatcher_->WorkerEnded("v", now_).ok());
  EXPECT_THAT(Sent(), ElementsAre("w Dropped"));
  Tick();
  given = Assigned();
  EXPECT_EQ(given["a/1"].second.key, (ChunkKey{"a", 1, 4}));
  EXPECT_EQ(given["a/1"].second.before_links, "tcp://u");
  SayDone("w", ChunkKey{"a", 2, 3});  // of the epoch before
  EXPECT_THAT(Sent(), ElementsAre("w Dropped"));
}

TEST_F(DispatcherTest, AResultIsNotLostWithItsWorker) {
  Join("v");
  Join("w");
  Add("a", 2);
  Tick();
  auto given = Assigned();
  SayDone("w", given["a/1"].second.key);
  Say("w", Goodbye{});
  for (int i = 0; i < 5; ++i) {
    Say("v", Report{1, 1 << 20, {given["a/0"].second.key}});
    Tick(kLease - 1);
  }
  SayDone("v", given["a/0"].second.key);
  Tick();
  EXPECT_EQ(store_->Get("a")->committed, 2);
  EXPECT_EQ(store_->Get("a")->epoch, 2);
}

TEST_F(DispatcherTest, AFailureOrARefusalOfOneChunkIsToldToThoseAfterIt) {
  for (const char* worker : {"u", "v", "w"}) Join(worker);
  Add("a", 3);
  Tick();
  auto given = Assigned();
  Say("u", Failed{given["a/0"].second.key, false, "bad luck"});
  EXPECT_THAT(Sent(), UnorderedElementsAre("u Dropped", "v Dropped", "w Dropped"));
  Tick(10000);
  for (const char* worker : {"u", "v", "w"}) Join(worker);
  Tick();
  given = Assigned();
  ASSERT_EQ(given.size(), 3u);
  Say("v", HandBack{given["a/1"].second.key});
  EXPECT_THAT(Sent(), UnorderedElementsAre("v Dropped", "w Dropped"));
}

TEST_F(DispatcherTest, NothingCrossesFromOneSequenceToTheNext) {
  Add("a", Plan{20, 4, 0, {{"x", 1, 11, 11}, {"y", 1, 9, 9}}});
  for (const char* worker : {"u", "v", "w"}) Join(worker);
  Tick();
  auto given = Assigned();
  ASSERT_EQ(given.size(), 3u);
  const auto& [v, second] = given["a/1"];
  EXPECT_EQ(second.before, StreamName(given["a/0"].second.key));
  EXPECT_TRUE(second.last);  // of its sequence
  const auto& [w, third] = given["a/2"];
  EXPECT_EQ(third.boundary.name + third.before + third.before_links, "");
  EXPECT_EQ((std::vector<int64_t>{third.first, third.tokens, third.length, third.given,
                                  third.first_token}),
            (std::vector<int64_t>{0, 8, 9, 9, 11}));
  EXPECT_FALSE(third.last);
  for (const char* chunk : {"a/0", "a/1"}) {
    SayDone(given[chunk].first, given[chunk].second.key);
    Tick();
  }
  // Chunk 1 hears of chunk 0's boundary; chunk 2 would have no use for chunk 1's.
  EXPECT_THAT(Sent(), ElementsAre("u Committed", "v BoundaryReady", "u Assign", "v Committed"));
}

TEST_F(DispatcherTest, ASerialJobsNextChunkWaitsForTheOneBefore) {
  Add("a", Plan{20, 1, 0, {{"x", 1, 11, 11}, {"y", 1, 9, 9}}}, /*serial=*/true);
  for (const char* worker : {"u", "v"}) Join(worker, 2);
  Tick(1000);
  auto given = Assigned();
  ASSERT_EQ(given.size(), 1u);
  const auto [u, first] = given["a/0"];
  EXPECT_TRUE(first.serial);
  SayDone(u, first.key);
  Tick();
  given = Assigned();
  ASSERT_EQ(given.size(), 2u);  // and the next sequence's first
  EXPECT_EQ(given["a/1"].second.boundary.name, BoundaryName("a", first.key.epoch, 0));
  EXPECT_EQ(given["a/1"].second.before, "");
  EXPECT_EQ(given["a/2"].second.boundary.name, "");
  Tick(1000);
  EXPECT_EQ(Assigned().size(), 0u);
}

TEST_F(DispatcherTest, ACancelledJobsWorkersHearOfIt) {
  Join("v");
  Join("w");
  Add("a", 2);
  Tick();
  Sent();
  ASSERT_TRUE(store_->Cancel("a", now_).ok());
  Tick(1000);
  EXPECT_THAT(Sent(), ElementsAre("v Dropped", "w Dropped"));
}

TEST_F(DispatcherTest, ALeaseLivesAsLongAsItsWorkerSpeaks) {
  Join("v");
  Add("a", 1);
  Tick();
  const ChunkKey key = Assigned()["a/0"].second.key;
  Join("w");
  for (int i = 0; i < 10; ++i) {
    Say("v", Report{1, 1 << 20, {key}});
    Say("w", Report{1, 1 << 20, {}});
    Tick(kLease - 1);
  }
  Sent();
  Say("w", Report{1, 1 << 20, {}});
  Tick(1);
  EXPECT_EQ(Assigned()["a/0"].second.key, (ChunkKey{"a", 0, 2}));
  Say("v", Hello{kProtocolVersion, "cpu", ""});
  Say("v", Report{1, 1 << 20, {key}});
  SayDone("v", key);
  EXPECT_THAT(Sent(), ElementsAre("v Welcome", "v Dropped", "v Dropped"));
}

TEST_F(DispatcherTest, ANewSchedulerBelievesInLeasesThatItFinds) {
  Join("v");
  Join("w");
  Add("a", 2);
  Tick();
  auto given = Assigned();
  Restart();
  Join("other");
  Tick(kLease - 1);
  Sent();
  for (const char* worker : {"v", "w"}) {
    const ChunkKey key = given[worker == std::string("v") ? "a/0" : "a/1"].second.key;
    Say(worker, Report{1, 1 << 20, {key}});
    Say(worker, Hello{kProtocolVersion, "cpu", ""});
    Say(worker, Report{1, 1 << 20, {key}});
  }
  Tick(kLease - 1);
  EXPECT_THAT(Sent(), ElementsAre("v Unknown", "v Welcome", "w Unknown", "w Welcome"));
  SayDone("v", given["a/0"].second.key);
  SayDone("w", given["a/1"].second.key);
  Tick();
  EXPECT_EQ(store_->Get("a")->committed, 2);
  EXPECT_EQ(complete_, 1);
}

TEST_F(DispatcherTest, AnAssignmentThatNeverLeftIsNoLoss) {
  Join("w");
  Add("a", 1);
  unreachable_ = "w";
  Tick();
  EXPECT_TRUE(store_->Leased()->empty());
  unreachable_ = "";
  Say("w", Report{1, 1 << 20, {}});
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

TEST_F(DispatcherTest, ADeviceThatFailedIsCounted) {
  Join("v");
  Join("w");
  Say("v", Goodbye{});
  Say("w", Goodbye{true});
  Say("w", Goodbye{true});  // nobody knows it any more
  EXPECT_THAT(probe_.Text(), HasSubstr("\nlongwave_device_failures_total 1\n"));
}

TEST_F(DispatcherTest, WhereOthersAreLostTooTheChunkIsNotToBlame) {
  Join("idle0");
  Add("a", 1);
  for (int i = 0; i < 6; ++i) {
    Tick(100);
    ASSERT_TRUE(dispatcher_->WorkerEnded(Assigned()["a/0"].first, now_).ok());
    Join(absl::StrCat("w", i));
    Tick();
    Join(absl::StrCat("idle", i + 1));
    ASSERT_TRUE(dispatcher_->WorkerEnded(absl::StrCat("idle", i + 1), now_).ok());
  }
  EXPECT_EQ(store_->Get("a")->state, JobState::kRunning);
}

TEST_F(DispatcherTest, ADrainGivesOutNothing) {
  Join("w");
  dispatcher_->StartDrain();
  Add("a", 1);
  Tick();
  Join("late");
  EXPECT_THAT(Sent(), ElementsAre("w Welcome", "w Drain", "late Welcome", "late Drain"));
  Say("old", Hello{99, "cpu", ""});
  EXPECT_THAT(Sent(), ElementsAre("old Drain"));
}

TEST_F(DispatcherTest, AFinishedJobKeepsItsOutputsAndManifestAlone) {
  Join("w");
  Add("a", 1);
  Tick();
  const ChunkKey key = Assigned()["a/0"].second.key;
  const std::string values(5 * sizeof(float), 'v');
  for (const std::string& name :
       {OutputName("a", 1, 0), BoundaryName("a", 1, 0), TokensName("a"), OutputName("a", 0, 0)}) {
    ASSERT_TRUE(objects_->Write(name, values).ok());
  }
  Say("w", Done{key, 20, HexSha256(values), "b", 1});
  Tick();
  FinishJobs();
  EXPECT_THAT(*objects_->List("jobs/a"), ElementsAre("jobs/a/1/0.output", "jobs/a/manifest.json"));
  EXPECT_THAT(*objects_->ReadAll(ManifestName("a"), 10000),
              AllOf(HasSubstr(HexSha256(values)), HasSubstr("\"shape\":[5]")));
}

// Workers that compute chains side by side, die, freeze and lose messages; schedulers that are
// killed. In the end every job has the output of an undisturbed run, or was parked.
class Storm : public DispatcherTest, public ::testing::WithParamInterface<int> {};

TEST_P(Storm, LosesNothing) {
  struct Chunk {
    Assign assign;
    int64_t ready_at = 0;
    std::optional<Message> result;
  };
  struct SimWorker {
    bool known = false;
    std::map<std::string, Chunk> chunks;         // by stream
    std::map<std::string, std::string> streams;  // what it hands on
    int64_t frozen_until = 0;
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
  // What the chunk starts from, if it is there: the boundary, or another's stream.
  const auto before = [&](const Assign& assign) -> std::optional<std::string> {
    if (!assign.boundary.name.empty()) {
      const auto boundary = objects_->ReadAll(assign.boundary.name, 1000, assign.boundary.sha256);
      EXPECT_NE(assign.boundary.sha256, "");
      EXPECT_FALSE(absl::IsDataLoss(boundary.status())) << boundary.status();
      if (boundary.ok()) return *boundary;
      return std::nullopt;  // its job is over
    }
    if (assign.before.empty()) return "";
    for (auto& [name, worker] : workers) {
      if ("tcp://" + name != assign.before_links) continue;
      const auto found = worker.streams.find(assign.before);
      if (found != worker.streams.end()) return found->second;
    }
    return std::nullopt;
  };
  const int64_t jobs = 4;
  for (int64_t i = 0; i < jobs; ++i) Add(absl::StrCat("job", i), 1 + below(8));
  for (int step = 0; step < 6000; ++step) {
    now_ += below(400);
    while (workers.size() < 4) workers[absl::StrCat("w", ++names)];
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
          worker.chunks.try_emplace(StreamName(assign->key),
                                    Chunk{*assign, now_ + below(3000), {}});
        }
        if (const auto* ready = std::get_if<BoundaryReady>(&message)) {
          const auto found = worker.chunks.find(StreamName(ready->key));
          if (found != worker.chunks.end()) found->second.assign.boundary = ready->boundary;
        }
        if (const auto* done = std::get_if<Committed>(&message)) {
          worker.chunks.erase(StreamName(done->key));
        }
        if (const auto* drop = std::get_if<Dropped>(&message)) {
          worker.chunks.erase(StreamName(drop->key));
        }
      }
      worker.inbox.clear();
      for (auto& [stream, chunk] : worker.chunks) {
        if (chunk.result.has_value() || chunk.ready_at > now_) continue;
        const ChunkKey& key = chunk.assign.key;
        const std::optional<std::string> start = before(chunk.assign);
        if (!start.has_value()) continue;
        const auto [state, output] = value(key.job, key.chunk, *start, chunk.assign.tokens);
        worker.streams[stream] = state;
        ASSERT_TRUE(objects_->Write(BoundaryName(key.job, key.epoch, key.chunk), state).ok());
        ASSERT_TRUE(objects_->Write(OutputName(key.job, key.epoch, key.chunk), output).ok());
        chunk.result =
            Done{key, static_cast<int64_t>(output.size()), HexSha256(output), HexSha256(state), 1};
        if (below(25) == 0) chunk.result = Failed{key, false, "bad luck"};
      }
      if (below(20) == 0) continue;  // what it says is lost
      if (!worker.known) {
        Say(name, Hello{kProtocolVersion, "sim", "tcp://" + name});
        continue;
      }
      Report report{2, 1 << 20, {}};
      for (const auto& [stream, chunk] : worker.chunks) report.held.push_back(chunk.assign.key);
      Say(name, report);
      for (const auto& [stream, chunk] : worker.chunks) {
        if (chunk.result.has_value()) Say(name, *chunk.result);
      }
    }
    const int64_t what = below(400);
    if (what < 4) workers.erase(std::next(workers.begin(), below(workers.size())));
    if (what == 4)
      std::next(workers.begin(), below(workers.size()))->second.frozen_until = now_ + 20000;
    if (what == 5) Restart();
    Tick();
    FinishJobs();
    const auto all = store_->List({}, 1 << 30, 10);
    if (std::all_of(all->begin(), all->end(), [](const Job& job) { return IsOver(job.state); })) {
      break;
    }
  }
  for (int64_t i = 0; i < jobs; ++i) {
    const auto job = store_->Get(absl::StrCat("job", i));
    if (job->state == JobState::kFailed) {
      EXPECT_TRUE(absl::StrContains(job->error, "lost its worker") ||
                  absl::StrContains(job->error, "bad luck"))
          << job->error;
      continue;
    }
    ASSERT_EQ(job->state, JobState::kSucceeded) << job->id;
    std::string state_before;
    const auto chunks = store_->Committed(job->id);
    ASSERT_EQ(static_cast<int64_t>(chunks->size()), job->chunk_count);
    for (const CommittedChunk& chunk : *chunks) {
      const auto [state, output] = value(job->id, chunk.chunk, state_before,
                                         std::min(kChunk, job->length - chunk.chunk * kChunk));
      EXPECT_EQ(*objects_->ReadAll(OutputName(job->id, chunk.epoch, chunk.chunk), 1000), output);
      state_before = state;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Storm, ::testing::Range(1, 11));

}  // namespace
}  // namespace longwave

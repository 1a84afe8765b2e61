#include "scheduler/leadership.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/job_store.h"
#include "scheduler/testing/test_database.h"

namespace longwave {
namespace {

class LeadershipTest : public ::testing::TestWithParam<DatabaseKind> {
 protected:
  void SetUp() override {
    if (IsSkipped() || HasFailure()) return;
    auto store = JobStore::Open(*OpenDatabase(uri_.uri()));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  // As if so much time had passed since the last beat.
  void Pass(int64_t ms) {
    const absl::Status status = store_->database().Write([&](SqlConnection& connection) {
      return connection.Run("UPDATE leadership SET beat_ms = beat_ms - $1", {ms}).status();
    });
    ASSERT_TRUE(status.ok()) << status;
  }

  TestDatabase uri_{GetParam()};
  std::unique_ptr<JobStore> store_;
};

INSTANTIATE_TEST_SUITE_P(On, LeadershipTest,
                         ::testing::Values(DatabaseKind::kSqlite, DatabaseKind::kPostgres),
                         [](const auto& info) { return Name(info.param); });

TEST_P(LeadershipTest, OneLeadsAndAnotherFollows) {
  constexpr int64_t kStale = 60000;
  Leadership a(store_->database(), "a", "tcp://a:1", kStale);
  Leadership b(store_->database(), "b", "tcp://b:1", kStale);
  EXPECT_EQ(a.Beat()->term, 1);
  EXPECT_TRUE(a.Beat()->self);
  if (!store_->database().shared()) {
    EXPECT_EQ(b.Beat()->term, 2);  // it is alone: the other is gone
    return;
  }
  const auto seen = b.Beat();
  EXPECT_FALSE(seen->self);
  EXPECT_EQ(seen->endpoint, "tcp://a:1");
  Pass(kStale / 2);
  EXPECT_FALSE(b.Beat()->self);
  EXPECT_TRUE(a.Beat()->self);
  Pass(kStale);
  EXPECT_TRUE(b.Beat()->self);
  EXPECT_EQ(b.Beat()->term, 2);
  EXPECT_FALSE(a.Beat()->self);
  ASSERT_TRUE(a.Resign().ok());  // it does not lead
  EXPECT_FALSE(a.Beat()->self);
  ASSERT_TRUE(b.Resign().ok());
  EXPECT_EQ(a.Beat()->term, 3);
  Pass(-2 * kStale);  // the clock was set back
  EXPECT_EQ(b.Beat()->term, 4);
}

// A process that schedules whenever it leads, and says what came of it.
class Server {
 public:
  Server(const std::string& uri, const std::string& name, int64_t stale_ms) {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) abort();
    const pid_t parent = getpid();
    process_ = fork();
    if (process_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      close(pipe_ends[0]);
      Run(uri, name, stale_ms, pipe_ends[1]);
    }
    close(pipe_ends[1]);
    output_ = pipe_ends[0];
  }
  ~Server() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    close(output_);
  }
  // Stops it, SIGSTOP, between two rounds of its work.
  void Freeze() const {
    kill(process_, SIGUSR1);
    waitpid(process_, nullptr, WUNTRACED);
  }
  void Signal(int signal) const { kill(process_, signal); }
  // Reads on until a line has `part`; false if none does for a long time.
  bool Says(const std::string& part) {
    while (true) {
      const size_t end = text_.find('\n');
      if (end != std::string::npos) {
        const std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        if (line.find(part) != std::string::npos) return true;
        continue;
      }
      pollfd in = {output_, POLLIN, 0};
      char bytes[4096];
      ssize_t got = 0;
      if (poll(&in, 1, 60000) != 1 || (got = read(output_, bytes, sizeof(bytes))) <= 0) {
        return false;
      }
      text_.append(bytes, got);
    }
  }

 private:
  [[noreturn]] static void Run(const std::string& uri, const std::string& name, int64_t stale_ms,
                               int out) {
    auto store = *JobStore::Open(*OpenDatabase(uri));
    Leadership leadership(store->database(), name, "tcp://" + name, stale_ms);
    const auto say = [&](const std::string& line) {
      if (write(out, (line + "\n").c_str(), line.size() + 1) < 0) _exit(1);
    };
    static volatile sig_atomic_t freeze = 0;
    signal(SIGUSR1, [](int) { freeze = 1; });
    bool leads = false;
    ChunkKey held;
    while (true) {
      if (freeze == 1) {
        freeze = 0;
        raise(SIGSTOP);
      }
      if (leads) {  // before it looks whether it still does: what counts is the store's answer
        const auto committed = store->CommitChunks({{held, {}}}, 10);
        say(absl::StrCat("commit ", absl::StatusCodeToString(committed.status().code())));
        const auto leases = store->LeaseChunks({{name, 1 << 20, true}}, 10);
        say(absl::StrCat("lease ", absl::StatusCodeToString(leases.status().code()), " ",
                         leases.status().message()));
        if (leases.ok() && leases->front().has_value()) held = leases->front()->key;
      }
      const auto leader = leadership.Beat();
      if (leader.ok() && leader->self != leads) {
        leads = leader->self;
        if (leads) store->SetTerm(leader->term);
        say(leads ? absl::StrCat("leads in term ", leader->term)
                  : absl::StrCat("follows ", leader->server));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }

  pid_t process_ = 0;
  int output_ = -1;
  std::string text_;
};

TEST(LeadershipOnPostgres, AFrozenLeaderIsReplacedAndCannotWrite) {
  PostgresServer* postgres = SharedPostgres();
  if (postgres == nullptr) return;
  const std::string uri = *postgres->NewDatabase();
  auto store = *JobStore::Open(*OpenDatabase(uri));
  NewJob job;
  job.id = "a";
  job.spec.model = "m";
  job.spec.input = "f";
  job.spec.chunk = 1;
  ASSERT_TRUE(store->Create(job, 1).ok());
  ASSERT_TRUE(store->SetPlan("a", {100000, 1}, 2).ok());

  constexpr int64_t kStale = 2000;
  Server a(uri, "a", kStale);
  ASSERT_TRUE(a.Says("leads in term 1"));
  ASSERT_TRUE(a.Says("lease OK"));
  Server b(uri, "b", kStale);
  ASSERT_TRUE(a.Says("lease OK"));
  a.Freeze();
  const auto stopped = std::chrono::steady_clock::now();
  ASSERT_TRUE(b.Says("leads in term 2"));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - stopped;
  std::printf("taken over after %.1f s\n", taken.count());
  ASSERT_TRUE(b.Says("lease OK"));
  a.Signal(SIGCONT);
  ASSERT_TRUE(a.Says("ABORTED"));
  ASSERT_TRUE(a.Says("lease ABORTED server b leads in term 2, this one's term is 1"));
  ASSERT_TRUE(a.Says("follows b"));
  ASSERT_TRUE(b.Says("lease OK"));
  b.Signal(SIGKILL);
  ASSERT_TRUE(a.Says("leads in term 3"));
  ASSERT_TRUE(a.Says("lease OK"));
}

}  // namespace
}  // namespace longwave

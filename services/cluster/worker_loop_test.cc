#include "services/cluster/worker_loop.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/cluster/sim_executor.h"

namespace longwave {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(60);

// A server of which the test speaks the part.
class Server {
 public:
  Server() {
    auto socket = OpenRouter("tcp://127.0.0.1:0");
    EXPECT_TRUE(socket.ok()) << socket.status();
    socket_ = *std::move(socket);
  }
  const std::string& endpoint() const { return socket_->endpoint(); }

  // The next message of this kind; others are passed over.
  template <typename Kind>
  bool Hears(steady_clock::duration patience = kPatience) {
    const auto end = steady_clock::now() + patience;
    while (steady_clock::now() < end) {
      while (std::optional<Received> received = socket_->Receive()) {
        worker_ = received->peer;
        if (received->message.ok() && std::holds_alternative<Kind>(*received->message)) return true;
      }
      socket_->Wait(20);
    }
    return false;
  }
  bool Says(const Message& message) { return socket_->Send(worker_, message); }

 private:
  std::unique_ptr<MessageSocket> socket_;
  std::string worker_;
};

class WorkerLoopTest : public ::testing::Test {
 protected:
  void Start(int64_t silence_ms) {
    WorkerLoopOptions options;
    options.device = "sim";
    options.probe = &probe_;
    options.servers = {first_.endpoint(), second_.endpoint()};
    options.silence_ms = silence_ms;
    options.connect = [](const std::string& endpoint) { return OpenDealer(endpoint, "worker"); };
    auto socket = options.connect(first_.endpoint());
    ASSERT_TRUE(socket.ok()) << socket.status();
    loop_ = std::make_unique<WorkerLoop>(
        *std::move(socket), options,
        [this](const Welcome& welcome, ChunkPipeline::FinishedFn finished)
            -> absl::StatusOr<std::unique_ptr<ChunkPipeline>> {
          auto objects = ObjectStore::Open(welcome.objects);
          if (!objects.ok()) return objects.status();
          return std::make_unique<SimExecutor>(*std::move(objects), SimDevice(), nullptr, probe_,
                                               std::move(finished));
        });
    thread_ = std::thread([this] { status_ = loop_->Run([this] { return stop_.load(); }); });
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    EXPECT_TRUE(status_.ok()) << status_;
    std::filesystem::remove_all(folder_);
  }
  Welcome Greeting(int64_t heartbeat_ms, int64_t lease_ms) const {
    return {absl::StrCat("file://", folder_), "", heartbeat_ms, lease_ms};
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/worker-loop-objects-", getpid());
  Server first_, second_;
  WorkerProbe probe_{"sim"};
  std::unique_ptr<WorkerLoop> loop_;
  std::atomic<bool> stop_ = false;
  absl::Status status_;
  std::thread thread_;
};

TEST_F(WorkerLoopTest, ASilentServerIsLeftForTheNext) {
  Start(1200);
  EXPECT_TRUE(second_.Hears<Hello>());
  while (first_.Hears<Hello>(milliseconds(1))) {
  }
  EXPECT_TRUE(second_.Says(Greeting(50, 600)));
  EXPECT_TRUE(second_.Hears<Report>());
  // And back, where that one falls silent too.
  EXPECT_TRUE(first_.Hears<Hello>());
  EXPECT_TRUE(first_.Says(Greeting(50, 60000)));
  EXPECT_TRUE(first_.Hears<Report>());
}

TEST_F(WorkerLoopTest, AServerThatAnswersIsNotLeft) {
  Start(60000);
  ASSERT_TRUE(first_.Hears<Hello>());
  // A lease time that began with an answer is over: longer each time that this test was itself too
  // slow to answer within one.
  for (milliseconds lease(1000);; lease *= 2) {
    bool in_time = true;
    const auto began = steady_clock::now();
    do {
      const auto said = steady_clock::now();
      EXPECT_TRUE(first_.Says(Greeting(50, lease.count())));
      EXPECT_TRUE(first_.Hears<Report>());
      ASSERT_TRUE(first_.Hears<Hello>());  // the worker asks, for it heard nothing
      in_time = in_time && steady_clock::now() < said + lease * 3 / 4;
    } while (steady_clock::now() < began + 3 * lease);
    bool left = false;
    while (second_.Hears<Hello>(milliseconds(1))) left = true;
    if (!left) break;
    ASSERT_FALSE(in_time);
  }
}

TEST_F(WorkerLoopTest, ThatALostServerLeadsIsNotBelieved) {
  Start(1500);
  EXPECT_TRUE(second_.Hears<Hello>());
  while (first_.Hears<Hello>(milliseconds(1))) {
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(second_.Says(Redirect{first_.endpoint()}));
    EXPECT_TRUE(second_.Hears<Hello>());
  }
  EXPECT_TRUE(second_.Says(Greeting(50, 60000)));
  EXPECT_TRUE(second_.Hears<Report>());
  EXPECT_FALSE(first_.Hears<Hello>(milliseconds(1)));
}

TEST_F(WorkerLoopTest, FollowsToTheServerThatLeads) {
  Start(60000);
  ASSERT_TRUE(first_.Hears<Hello>());
  EXPECT_TRUE(first_.Says(Redirect{second_.endpoint()}));
  ASSERT_TRUE(second_.Hears<Hello>());
  EXPECT_TRUE(second_.Says(Greeting(50, 60000)));
  EXPECT_TRUE(second_.Hears<Report>());
}

}  // namespace
}  // namespace longwave

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "observability/server_probe.h"
#include "observability/worker_probe.h"

namespace longwave {
namespace {

// The value of a series, written as Prometheus writes it; NaN where it is not there.
double Value(const std::string& text, const std::string& series) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(series + " ", 0) == 0) return std::stod(line.substr(series.size() + 1));
  }
  return std::numeric_limits<double>::quiet_NaN();
}

TEST(ServerProbe, CountsFromZero) {
  ServerProbe probe;
  const std::string before = probe.Text();
  EXPECT_EQ(Value(before, "longwave_build_info{version=\"" LONGWAVE_VERSION "\"}"), 1);
  for (const char* name :
       {"longwave_tokens_dispatched_total", "longwave_chunks_dispatched_total",
        "longwave_tokens_committed_total", "longwave_chunks_committed_total",
        "longwave_lease_losses_total", "longwave_chunks_cut_total",
        "longwave_chunks_handed_back_total", "longwave_retries_total",
        "longwave_stale_reports_total", "longwave_jobs_poisoned_total", "longwave_queue_tokens",
        "longwave_drain_seconds", "longwave_leader", "longwave_workers{state=\"idle\"}",
        "longwave_chunks{state=\"leased\"}", "longwave_jobs_over_total{state=\"failed\"}"}) {
    EXPECT_EQ(Value(before, name), 0) << name;
  }
  probe.Dispatched(100);
  probe.Dispatched(50);
  probe.ChunkCommitted(100);
  probe.LeaseLost();
  probe.ChunksCut(3);
  probe.ChunkHandedBack();
  probe.Retried();
  probe.StaleReport();
  probe.JobOver("failed");
  probe.JobPoisoned();
  probe.DeviceFailed();
  probe.database().Took(0.3, false);
  probe.objects().Took(0.3, true);
  probe.DispatchTook(2e-4);
  const std::string after = probe.Text();
  EXPECT_EQ(Value(after, "longwave_tokens_dispatched_total"), 150);
  EXPECT_EQ(Value(after, "longwave_chunks_dispatched_total"), 2);
  EXPECT_EQ(Value(after, "longwave_tokens_committed_total"), 100);
  EXPECT_EQ(Value(after, "longwave_lease_losses_total"), 1);
  EXPECT_EQ(Value(after, "longwave_chunks_cut_total"), 3);
  EXPECT_EQ(Value(after, "longwave_jobs_over_total{state=\"failed\"}"), 1);
  EXPECT_EQ(Value(after, "longwave_jobs_poisoned_total"), 1);
  EXPECT_EQ(Value(after, "longwave_device_failures_total"), 1);
  EXPECT_EQ(Value(after, "longwave_store_seconds_count"), 1);
  EXPECT_EQ(Value(after, "longwave_store_errors_total"), 0);
  EXPECT_EQ(Value(after, "longwave_object_request_seconds_count"), 1);
  EXPECT_EQ(Value(after, "longwave_object_request_errors_total"), 1);
  EXPECT_EQ(Value(after, "longwave_dispatch_seconds_count"), 1);
  EXPECT_EQ(Value(after, "longwave_dispatch_seconds_bucket{le=\"0.0001\"}"), 0);
  EXPECT_EQ(Value(after, "longwave_dispatch_seconds_bucket{le=\"0.00025\"}"), 1);
}

TEST(ServerProbe, DrainSecondsAreDefinedWithoutWorkersToo) {
  EXPECT_EQ(DrainSeconds(0, 0, 0, 0, 100), 0);
  EXPECT_EQ(DrainSeconds(1000, 0, 0, 0, 100), 10);   // as one worker
  EXPECT_EQ(DrainSeconds(1000, 2, 0, 0, 100), 5);    // none measured
  EXPECT_EQ(DrainSeconds(1000, 2, 2, 50, 100), 20);  // all measured
  EXPECT_EQ(DrainSeconds(1000, 4, 2, 50, 100), 10);  // the others as their mean
  ServerProbe probe;
  probe.QueueIs({.tokens = 50000, .chunks_waiting = 4, .chunks_leased = 1, .jobs_running = 1});
  EXPECT_EQ(Value(probe.Text(), "longwave_drain_seconds"), 5);  // nothing was ever measured
  probe.WorkerIs("w1", "cpu", ServerProbe::WorkerState::kBusy);
  probe.WorkerSpeed("w1", 25000);
  EXPECT_EQ(Value(probe.Text(), "longwave_drain_seconds"), 2);
  probe.WorkerIs("w2", "cpu", ServerProbe::WorkerState::kIdle);
  EXPECT_EQ(Value(probe.Text(), "longwave_drain_seconds"), 1);
  probe.WorkerGone("w1");
  probe.WorkerGone("w2");
  EXPECT_EQ(Value(probe.Text(), "longwave_drain_seconds"), 2);  // as one of the speed last seen
}

TEST(ServerProbe, AWorkersSeriesGoWithIt) {
  ServerProbe probe;
  probe.WorkerIs("w1", "cuda:0", ServerProbe::WorkerState::kIdle);
  probe.WorkerSpeed("w1", 1e6);
  probe.WorkerSpeed("unknown", 1e6);
  std::string text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_worker_tokens_per_second{device=\"cuda:0\",worker=\"w1\"}"), 1e6);
  EXPECT_EQ(Value(text, "longwave_workers{state=\"idle\"}"), 1);
  probe.WorkerGone("w1");
  probe.WorkerGone("w1");
  text = probe.Text();
  EXPECT_EQ(text.find("w1"), std::string::npos);
  EXPECT_EQ(text.find("unknown"), std::string::npos);
  EXPECT_EQ(Value(text, "longwave_workers{state=\"idle\"}"), 0);
}

TEST(ServerProbe, AJobHasSeriesWhileItRuns) {
  ServerProbe probe;
  const ServerProbe::RunningJob job = {"a", 1000, 200, 6, 2, 2, 1};
  probe.RunningJobsAre({job, {"b", 5}});
  std::string text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_job_tokens{job_id=\"a\"}"), 1000);
  EXPECT_EQ(Value(text, "longwave_job_tokens_committed{job_id=\"a\"}"), 200);
  EXPECT_EQ(Value(text, "longwave_job_chunks{job_id=\"a\",state=\"waiting\"}"), 6);
  EXPECT_EQ(Value(text, "longwave_job_chunks{job_id=\"a\",state=\"leased\"}"), 2);
  EXPECT_EQ(Value(text, "longwave_job_workers{job_id=\"a\"}"), 1);
  EXPECT_EQ(Value(text, "longwave_job_tokens{job_id=\"b\"}"), 5);
  probe.RunningJobsAre({job});
  text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_job_tokens{job_id=\"a\"}"), 1000);
  EXPECT_EQ(text.find("job_id=\"b\""), std::string::npos);
  probe.Leads(false, 1);
  EXPECT_EQ(probe.Text().find("job_id"), std::string::npos);
}

TEST(ServerProbe, TheNextExpiryOfEachTenant) {
  ServerProbe probe;
  probe.TokenExpiriesAre({{"one", 1.5}, {"two", 2.5}});
  probe.TokenExpiriesAre({{"two", 3.5}});
  const std::string text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_token_expiry_timestamp_seconds{tenant=\"two\"}"), 3.5);
  EXPECT_EQ(text.find("tenant=\"one\""), std::string::npos);
}

TEST(ServerProbe, WhoDoesNotLeadHasNoQueue) {
  ServerProbe probe;
  probe.Leads(true, 4);
  probe.QueueIs({.tokens = 7, .chunks_waiting = 1, .jobs_queued = 1});
  probe.WorkerIs("w1", "cpu", ServerProbe::WorkerState::kIdle);
  EXPECT_EQ(Value(probe.Text(), "longwave_leader"), 1);
  probe.Leads(false, 5);
  const std::string text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_leader"), 0);
  EXPECT_EQ(Value(text, "longwave_leader_term"), 5);
  EXPECT_EQ(Value(text, "longwave_queue_tokens"), 0);
  EXPECT_EQ(Value(text, "longwave_workers{state=\"idle\"}"), 0);
}

TEST(ServerProbe, RequestsByRouteMethodAndStatus) {
  ServerProbe probe;
  probe.ApiRequest("/v1/jobs/{id}", "GET", 200, 0.003);
  probe.ApiRequest("/v1/jobs/{id}", "GET", 200, 0.3);
  probe.ApiRequest("/v1/jobs/{id}", "BREW\"\n", 405, 0.3);
  const std::string text = probe.Text();
  EXPECT_EQ(Value(text,
                  "longwave_api_request_seconds_count{method=\"GET\",route=\"/v1/jobs/{id}\","
                  "status=\"200\"}"),
            2);
  EXPECT_EQ(Value(text,
                  "longwave_api_request_seconds_count{method=\"other\","
                  "route=\"/v1/jobs/{id}\",status=\"405\"}"),
            1);
}

TEST(WorkerProbe, Counts) {
  WorkerProbe probe("cuda:0");
  for (const char* link : {"process", "zmq", "nccl"}) {
    EXPECT_EQ(
        Value(probe.Text(), std::string("longwave_state_sent_bytes_total{link=\"") + link + "\"}"),
        0);
  }
  EXPECT_EQ(Value(probe.Text(), "longwave_device_healthy{device=\"cuda:0\"}"), 1);
  probe.ChunkComputed(8192, 2);
  probe.ChunkFailed();
  probe.StateSent(Link::kZmq, 1000);
  probe.StateReceived(Link::kNccl, 10);
  probe.StateLatency(Link::kZmq, 1e-4);
  probe.LinkFailed(Link::kNccl);
  probe.StateFromStore();
  probe.BoundaryWritten(0.01, 500);
  probe.BoundaryRead(0.01, 400);
  probe.BoundaryFailed();
  probe.OutputWritten(0.01, 300);
  EXPECT_TRUE(probe.healthy());
  EXPECT_FALSE(probe.connected());
  probe.DeviceHealth(false);
  probe.Connected(true);
  EXPECT_FALSE(probe.healthy());
  EXPECT_TRUE(probe.connected());
  const std::string text = probe.Text();
  EXPECT_EQ(Value(text, "longwave_tokens_computed_total"), 8192);
  EXPECT_EQ(Value(text, "longwave_tokens_per_second"), 4096);
  EXPECT_EQ(Value(text, "longwave_worker_chunks_total{result=\"computed\"}"), 1);
  EXPECT_EQ(Value(text, "longwave_worker_chunks_total{result=\"failed\"}"), 1);
  EXPECT_EQ(Value(text, "longwave_state_sent_bytes_total{link=\"zmq\"}"), 1000);
  EXPECT_EQ(Value(text, "longwave_state_received_bytes_total{link=\"nccl\"}"), 10);
  EXPECT_EQ(Value(text, "longwave_state_latency_seconds_count{link=\"zmq\"}"), 1);
  EXPECT_EQ(Value(text, "longwave_link_failures_total{link=\"nccl\"}"), 1);
  EXPECT_EQ(Value(text, "longwave_states_from_store_total"), 1);
  EXPECT_EQ(Value(text, "longwave_boundary_write_seconds_count"), 1);
  EXPECT_EQ(Value(text, "longwave_boundary_write_failures_total"), 1);
  EXPECT_EQ(Value(text, "longwave_objects_written_bytes_total{kind=\"boundary\"}"), 500);
  EXPECT_EQ(Value(text, "longwave_boundary_read_bytes_total"), 400);
  EXPECT_EQ(Value(text, "longwave_objects_written_bytes_total{kind=\"output\"}"), 300);
  EXPECT_EQ(Value(text, "longwave_device_healthy{device=\"cuda:0\"}"), 0);
  EXPECT_EQ(Value(text, "longwave_worker_connected"), 1);
}

TEST(Probes, AnyThread) {
  ServerProbe probe;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, name = std::string(1, static_cast<char>('a' + i))] {
      for (int round = 0; round < 200; ++round) {
        probe.WorkerIs(name, "cpu", ServerProbe::WorkerState::kIdle);
        probe.WorkerSpeed(name, round + 1);
        probe.ChunkCommitted(1);
        probe.ApiRequest("/v1/jobs", "GET", 200, 0.1);
        EXPECT_FALSE(round % 50 == 0 && probe.Text().empty());
        probe.WorkerGone(name);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value(probe.Text(), "longwave_tokens_committed_total"), 800);
}

// docs/metrics.md has a row `| `NAME` | type | ...` for each family, of this type, and no other.
TEST(Probes, EveryNameIsDocumented) {
  std::ifstream file(LONGWAVE_SOURCE_DIR "/docs/metrics.md");
  std::set<std::string> documented, there;
  const std::regex row(R"(^\| `(longwave_[a-z_]+)` \| (counter|gauge|histogram) \|.*)");
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (std::regex_match(line, match, row))
      documented.insert(match[1].str() + " " + match[2].str());
  }
  ServerProbe server;
  server.WorkerIs("w", "cpu", ServerProbe::WorkerState::kIdle);
  server.WorkerSpeed("w", 1);
  server.ApiRequest("/", "GET", 200, 1);
  server.RunningJobsAre({{"a"}});
  server.TokenExpiriesAre({{"t", 1}});
  WorkerProbe worker("cpu");
  std::istringstream lines(server.Text() + worker.Text());
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) there.insert(line.substr(7));
  }
  EXPECT_EQ(documented, there);
}

}  // namespace
}  // namespace longwave

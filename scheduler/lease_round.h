// One round of giving chunks to workers: who gets what, and its rows. Internal to the job store.
//
// Thread safety: its transaction's alone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/job_transaction.h"

namespace longwave {

// What the tenants were given until now, for those that have equally few leases: start-time fair
// queueing. Each chunk moves its tenant on by tokens / weight; a tenant that had nothing to give
// for a while starts where the others are.
struct Fairness {
  std::map<std::string, double> given;  // by tenant
  double now = 0;                       // where the tenant stood that was given to at last
};

class LeaseRound {
 public:
  explicit LeaseRound(JobTransaction& change) : change_(change) {}

  // Once, first.
  absl::Status Start(const Fairness& before);
  absl::StatusOr<std::optional<Lease>> Give(const LeaseRequest& request);
  void Finish(Fairness& after) const;

 private:
  struct Candidate {  // a tenant with jobs that wait, or that spread
    std::string name;
    int64_t weight = 1, most_leases = 0, leases = 0;
    bool waiting = false;
    double given = 0;
    int64_t nothing_below = -1;  // no waiting job for a request of so many bytes or fewer

    bool full() const { return most_leases > 0 && leases >= most_leases; }
  };
  struct Spreading {  // a job with leases and more chunks to give
    std::string id, tenant;
    int64_t leases = 0, priority = 0, number = 0, bytes = 0, not_before_ms = 0;
  };

  // Each takes the next chunk of a job, if there is one to give, and returns the job as it is then.
  absl::StatusOr<std::optional<Job>> TakeWaiting(const LeaseRequest& request);
  absl::StatusOr<std::optional<Job>> TakeSpreading(const LeaseRequest& request);
  // `which`: SQL, with `values`, for the job's id.
  // `runs`: the job is running already; indexes with its state need not change.
  absl::StatusOr<std::optional<Job>> Take(const std::string& which, std::vector<SqlValue> values,
                                          bool runs);
  absl::Status LoadSpreading();
  // `job` was just given a lease of so many tokens.
  absl::Status Count(const Job& job, int64_t tokens);
  absl::StatusOr<Lease> WriteChunk(Job job, const ChunkPlace& place, const std::string& worker);

  JobTransaction& change_;
  std::map<std::string, Candidate> tenants_;
  std::optional<std::vector<Spreading>> spreading_;
  double now_ = 0;
};

}  // namespace longwave

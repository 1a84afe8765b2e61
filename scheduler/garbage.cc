#include "scheduler/garbage.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/protocol/messages.h"

namespace longwave {
namespace {

constexpr char kJobs[] = "jobs";
constexpr char kFiles[] = "files";

class Sweeper {
 public:
  Sweeper(ObjectStore& objects, JobStore& store, int64_t now_ms, const SweepOptions& options,
          const std::function<bool()>& stop)
      : objects_(objects), store_(store), now_ms_(now_ms), options_(options), stop_(stop) {}

  absl::StatusOr<SweepReport> Run() {
    absl::Status status = Partial(kJobs);
    if (status.ok()) status = Partial(kFiles);
    if (status.ok()) status = Jobs();
    if (status.ok()) status = Files();
    if (!status.ok()) return status;
    return report_;
  }

 private:
  absl::Status Partial(const std::string& folder) {
    const absl::StatusOr<std::vector<PartialObject>> found = objects_.ListPartial(folder);
    if (!found.ok()) return found.status();
    for (const PartialObject& partial : *found) {
      if (stop_()) return absl::OkStatus();
      if (now_ms_ - partial.modified_ms < options_.partial_age_ms) continue;
      absl::Status gone = objects_.DeletePartial(partial);
      if (!gone.ok()) return gone;
      ++report_.partial;
    }
    return absl::OkStatus();
  }

  absl::Status Jobs() {
    const absl::StatusOr<std::vector<std::string>> jobs = objects_.ListFolders(kJobs);
    if (!jobs.ok()) return jobs.status();
    for (const std::string& id : *jobs) {
      if (stop_()) return absl::OkStatus();
      const absl::StatusOr<Job> job = store_.Get(id);
      if (job.ok()) continue;
      if (!absl::IsNotFound(job.status())) return job.status();
      const absl::StatusOr<std::vector<ListedObject>> found = objects_.ListObjects(JobFolder(id));
      if (!found.ok()) return found.status();
      for (const ListedObject& object : *found) {
        if (stop_()) return absl::OkStatus();
        absl::Status removed = RemoveOld(object);
        if (!removed.ok()) return removed;
      }
    }
    return absl::OkStatus();
  }

  absl::Status Files() {
    const absl::StatusOr<std::vector<ListedObject>> found = objects_.ListObjects(kFiles);
    if (!found.ok()) return found.status();
    for (const ListedObject& object : *found) {
      if (stop_()) return absl::OkStatus();
      if (!IsOld(object)) continue;
      const absl::StatusOr<StoredFile> file =
          store_.GetFile(object.name.substr(sizeof(kFiles)));  // what follows "files/"
      if (file.ok()) continue;
      if (!absl::IsNotFound(file.status())) return file.status();
      absl::Status removed = RemoveOld(object);
      if (!removed.ok()) return removed;
    }
    return absl::OkStatus();
  }

  bool IsOld(const ListedObject& object) const {
    return now_ms_ - object.modified_ms >= options_.orphan_age_ms;
  }

  absl::Status RemoveOld(const ListedObject& object) {
    if (!IsOld(object)) return absl::OkStatus();
    absl::Status gone = objects_.Delete(object.name);
    if (!gone.ok()) return gone;
    ++report_.objects;
    report_.bytes += object.bytes;
    return absl::OkStatus();
  }

  ObjectStore& objects_;
  JobStore& store_;
  const int64_t now_ms_;
  const SweepOptions& options_;
  const std::function<bool()>& stop_;
  SweepReport report_;
};

}  // namespace

absl::StatusOr<SweepReport> Sweep(ObjectStore& objects, JobStore& store, int64_t now_ms,
                                  const SweepOptions& options, const std::function<bool()>& stop) {
  return Sweeper(objects, store, now_ms, options, stop).Run();
}

}  // namespace longwave

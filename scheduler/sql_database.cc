#include "scheduler/sql_database.h"

#include <algorithm>

namespace longwave {
namespace {

constexpr size_t kMostTogether = 64;

}  // namespace

absl::Status SqlDatabase::Write(Work work) {
  Waiting self{work, absl::OkStatus()};
  std::unique_lock<std::mutex> lock(mutex_);
  waiting_.push_back(&self);
  changed_.wait(lock, [&] { return self.done || !writing_; });
  while (!self.done) {  // nobody writes: this thread does, for all that wait
    writing_ = true;
    const auto end = waiting_.begin() + std::min(waiting_.size(), kMostTogether);
    const std::vector<Waiting*> group(waiting_.begin(), end);
    waiting_.erase(waiting_.begin(), end);
    lock.unlock();
    RunGroup(group);
    lock.lock();
    writing_ = false;
    for (Waiting* one : group) one->done = true;
    changed_.notify_all();
  }
  return self.status;
}

void SqlDatabase::RunGroup(absl::Span<Waiting* const> group) {
  bool again = false;
  absl::Status status = TryGroup(group, again);
  if (again) status = TryGroup(group, again);  // on a new connection
  if (status.ok()) return;
  for (Waiting* one : group) {
    if (one->status.ok()) one->status = status;
  }
}

absl::Status SqlDatabase::TryGroup(absl::Span<Waiting* const> group, bool& again) {
  again = false;
  for (Waiting* one : group) one->status = absl::OkStatus();
  const absl::StatusOr<SqlWriter*> opened = GetWriter();
  if (!opened.ok()) return opened.status();
  SqlWriter& writer = **opened;
  const bool alone = group.size() == 1;
  absl::Status status = writer.Begin();
  for (Waiting* one : group) {
    if (!status.ok()) break;
    if (!alone) status = writer.Run("SAVEPOINT work", {}).status();
    if (!status.ok()) break;
    one->status = one->work(writer);
    if (!writer.connected()) {
      status = one->status.ok() ? absl::UnavailableError("the connection was lost") : one->status;
    } else if (alone) {
      status = one->status;
    } else {
      if (!one->status.ok()) status = writer.Run("ROLLBACK TO SAVEPOINT work", {}).status();
      if (status.ok()) status = writer.Run("RELEASE SAVEPOINT work", {}).status();
    }
  }
  if (!writer.connected()) {
    again = true;
    return status;
  }
  if (status.ok()) status = writer.Run("COMMIT", {}).status();
  if (!status.ok() && writer.connected()) writer.Run("ROLLBACK", {}).IgnoreError();
  return status;
}

}  // namespace longwave

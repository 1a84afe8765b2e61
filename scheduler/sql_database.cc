#include "scheduler/sql_database.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr size_t kMostTogether = 64;
constexpr char kPlain[] = "longwave/plain-sql-error";  // a status' payload

// Tells a probe, if there is one, of a request from here on.
class Timer {
 public:
  explicit Timer(RequestProbe* probe) : probe_(probe) {}
  void Ended(const absl::Status& status) const {
    if (probe_ == nullptr) return;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
    probe_->Took(took.count(), absl::IsUnavailable(status) || absl::IsInternal(status));
  }

 private:
  RequestProbe* const probe_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

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
  const Timer timer(probe_);
  absl::Status status = TryGroup(group, again);
  if (again) status = TryGroup(group, again);  // on a new connection
  timer.Ended(status);
  if (status.ok()) return;
  for (Waiting* one : group) {
    if (one->status.ok()) one->status = status;
  }
}

absl::StatusOr<SqlResult> SqlDatabase::Read(const char* sql, absl::Span<const SqlValue> values) {
  const Timer timer(probe_);
  absl::StatusOr<SqlResult> result = ReadNow(sql, values);
  timer.Ended(result.status());
  return result;
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
      if (!one->status.ok() && !writer.Run("ROLLBACK TO SAVEPOINT work", {}).ok()) {
        status = one->status;  // it ended the whole transaction: a full disk, say
      }
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

absl::Status SqlError(absl::StatusCode code, absl::string_view message, absl::string_view plain) {
  absl::Status status(code, message);
  status.SetPayload(kPlain, absl::Cord(plain));
  return status;
}

std::optional<std::string> PlainSqlError(const absl::Status& status) {
  const absl::optional<absl::Cord> plain = status.GetPayload(kPlain);
  if (!plain.has_value()) return std::nullopt;
  return std::string(*plain);
}

std::string CleanText(absl::string_view text) {
  std::string clean(text);
  for (size_t i = 0; i < clean.size();) {
    const auto byte = [&](size_t k) { return static_cast<unsigned char>(clean[k]); };
    const unsigned char first = byte(i);
    const size_t length = first < 0x80                    ? 1
                          : first >= 0xC2 && first < 0xE0 ? 2
                          : first >= 0xE0 && first < 0xF0 ? 3
                          : first >= 0xF0 && first < 0xF5 ? 4
                                                          : 0;
    bool good = length > 0 && first != 0 && i + length <= clean.size();
    for (size_t k = 1; good && k < length; ++k) good = (byte(i + k) & 0xC0) == 0x80;
    if (good && length > 2) {  // no longer than need be, no surrogate, below 0x110000
      const unsigned char second = byte(i + 1);
      good = !(first == 0xE0 && second < 0xA0) && !(first == 0xED && second >= 0xA0) &&
             !(first == 0xF0 && second < 0x90) && !(first == 0xF4 && second >= 0x90);
    }
    if (!good) clean[i] = '?';
    i += good ? length : 1;
  }
  return clean;
}

absl::StatusOr<std::unique_ptr<SqlDatabase>> OpenDatabase(const std::string& uri_or_path) {
  const size_t scheme = uri_or_path.find("://");
  if (scheme == std::string::npos) return OpenSqlite(uri_or_path);
  const std::string name = uri_or_path.substr(0, scheme);
  if (name == "postgresql" || name == "postgres") return OpenPostgres(uri_or_path);
  return absl::InvalidArgumentError(
      absl::StrCat("a database of scheme \"", name, "\": must be a file, or postgresql://"));
}

}  // namespace longwave

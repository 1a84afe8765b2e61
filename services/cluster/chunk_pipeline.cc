#include "services/cluster/chunk_pipeline.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "observability/log.h"

namespace longwave {
namespace {

// A committed chunk's stream is kept until so many more have committed: who is about to subscribe
// saves a read of the object store.
constexpr size_t kCommittedKept = 2;
// A link has so long to bring what is in the object store already.
constexpr int64_t kLinkGraceMs = 300;

// A full object store, or one that is away, is not a chunk's failure. It is tried again as often as
// need be, not more often than this.
constexpr int64_t kNoRoomPauseMs = 2000;

int64_t NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void RemoveChunk(const ChunkKey& key, ObjectStore& objects) {
  for (auto* name : {OutputName, BoundaryName, TraceName}) {
    objects.Delete(name(key.job, key.epoch, key.chunk)).IgnoreError();
  }
  objects.Delete(CachesName(BoundaryName(key.job, key.epoch, key.chunk))).IgnoreError();
}

absl::StatusOr<Boundary> ReadBoundary(ObjectStore& objects, const BoundaryObject& object,
                                      const std::string& model_hash, int64_t position, int64_t most,
                                      WorkerProbe* probe) {
  const int64_t began_us = NowUs();
  const absl::StatusOr<std::string> bytes = objects.ReadAll(object.name, most, object.sha256);
  if (!bytes.ok()) return bytes.status();
  if (probe != nullptr) {
    probe->BoundaryRead(1e-6 * static_cast<double>(NowUs() - began_us),
                        static_cast<int64_t>(bytes->size()));
    probe->StateFromStore();
  }
  absl::StatusOr<Boundary> boundary = ParseBoundary(*bytes);
  absl::Status status = boundary.status();
  if (status.ok()) status = CheckBoundary(*boundary, model_hash, position);
  if (status.ok()) return boundary;
  return absl::Status(status.code(), absl::StrCat(object.name, ": ", status.message()));
}

void ChunkPipeline::Start() {
  threads_.emplace_back([this] { ComputeLoop(); });
  threads_.emplace_back([this] { StoreLoop(); });
  threads_.emplace_back([this] { FillLoop(); });
}

void ChunkPipeline::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    for (const WorkPtr& work : all_) {
      work->dropped = true;
      if (work->before != nullptr) work->before->Fail(absl::CancelledError("the worker ends"));
    }
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ChunkPipeline::Add(const Assign& assign) {
  WorkPtr work = NewWork(assign);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // States may come while the chunk waits its turn. (Those of a chunk in this process are there.)
    const bool linked = exchange_ != nullptr && !assign.before.empty() &&
                        assign.boundary.name.empty() && !assign.before_links.empty() &&
                        assign.before_links != exchange_->endpoint();
    if (linked && assign.model_hash == model_hash_) {
      work->before = exchange_->Subscribe(assign.before, assign.before_links, tensors_);
    }
    queued_.push_back(work);
    all_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void ChunkPipeline::BoundaryReady(const ChunkKey& key, const BoundaryObject& object) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const WorkPtr& work : all_) {
      if (work->key() != key || !work->boundary.name.empty() || work->assign.before.empty())
        continue;
      work->boundary = object;
      work->boundary_ms = NowUs() / 1000;
    }
  }
  changed_.notify_all();
}

void ChunkPipeline::Drop(const ChunkKey& key) {
  WorkPtr dropped;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::erase(stored_, key) > 0) {
      discard_.push_back(key);
      changed_.notify_all();
      if (exchange_ != nullptr) exchange_->Forget(StreamName(key));
      return;
    }
    for (const WorkPtr& work : all_) {
      if (work->key() == key) dropped = work;
    }
    if (dropped != nullptr) {
      dropped->dropped = true;
      if (dropped->before != nullptr) dropped->before->Fail(absl::CancelledError("not wanted"));
      std::erase(queued_, dropped);
    }
  }
  if (dropped != nullptr) {
    Forget(dropped);
  } else if (exchange_ != nullptr) {
    exchange_->Forget(StreamName(key));  // of one that failed
  }
}

void ChunkPipeline::Committed(const ChunkKey& key) {
  std::vector<std::string> old;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase(stored_, key);
    if (exchange_ == nullptr) return;
    committed_.push_back(StreamName(key));
    while (committed_.size() > kCommittedKept) {
      old.push_back(std::move(committed_.front()));
      committed_.pop_front();
    }
  }
  for (const std::string& name : old) exchange_->Forget(name);
}

std::vector<ChunkKey> ChunkPipeline::TakeBackQueued() {
  std::vector<ChunkKey> keys;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const WorkPtr& work : queued_) {
    keys.push_back(work->key());
    std::erase(all_, work);
  }
  queued_.clear();
  return keys;
}

void ChunkPipeline::Forget(const WorkPtr& work) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase(all_, work);
  }
  if (exchange_ == nullptr) return;
  if (!work->assign.before.empty()) exchange_->Unsubscribe(work->assign.before);
  if (work->dropped) exchange_->Forget(StreamName(work->key()));
}

absl::Status ChunkPipeline::Guarded(const std::function<absl::Status()>& step) {
  try {
    return step();
  } catch (const std::bad_alloc&) {
    return absl::UnavailableError("out of memory");
  } catch (const std::exception& e) {
    return absl::UnknownError(e.what());
  }
}

void ChunkPipeline::Fail(const ChunkWork& work, const absl::Status& status) {
  if (work.dropped) return;
  finished_({Failed{work.key(), IsFinal(status), std::string(status.message())},
             absl::IsInternal(status) ? status : absl::OkStatus()});
}

absl::StatusOr<std::shared_ptr<StateStream>> ChunkPipeline::StreamBefore(
    ChunkWork& work, int64_t tensors, const std::function<void(StateStream&)>& zeros) {
  const Assign& assign = work.assign;
  BoundaryObject boundary = assign.boundary;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    model_hash_ = assign.model_hash;
    tensors_ = tensors;
    if (work.before != nullptr) return work.before;
    if (!work.boundary.name.empty()) boundary = work.boundary;
  }
  std::shared_ptr<StateStream> stream;
  if (boundary.name.empty() && !assign.before.empty() && exchange_ != nullptr &&
      !assign.before_links.empty()) {
    stream = exchange_->Subscribe(assign.before, assign.before_links, tensors);
  } else {
    stream = std::make_shared<StateStream>(tensors);
    absl::Status filled;
    if (!boundary.name.empty()) {
      filled = Fill(work, boundary, *stream);
    } else if (assign.before.empty()) {
      zeros(*stream);
    }
    if (!filled.ok()) return filled;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  work.before = stream;
  if (work.dropped || stop_) stream->Fail(absl::CancelledError("not wanted"));
  return stream;
}

std::shared_ptr<StateStream> ChunkPipeline::StreamAfter(const ChunkWork& work, int64_t tensors) {
  if (exchange_ == nullptr) return std::make_shared<StateStream>(tensors);
  return exchange_->Publish(StreamName(work.key()), tensors);
}

void ChunkPipeline::WaitForValues() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return untaken_ == 0 || stop_; });
}

void ChunkPipeline::ComputeLoop() {
  while (true) {
    WorkPtr work;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || (!queued_.empty() && untaken_ <= 1); });
      if (stop_) return;
      work = queued_.front();
      queued_.pop_front();
      work->began_us = NowUs();
    }
    const absl::Status computed = Guarded([&] { return Compute(*work); });
    // One that was dropped too late has values that must be taken, or the next chunk would get
    // them.
    if (!computed.ok()) {
      // Whoever subscribed is told by the scheduler.
      WaitForValues();
      Fail(*work, computed);
      Forget(work);
      continue;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      computed_.push_back(std::move(work));
      ++untaken_;
    }
    changed_.notify_all();
  }
}

void ChunkPipeline::StoreLoop() {
  while (true) {
    WorkPtr work;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !computed_.empty(); });
      if (stop_) return;
      work = computed_.front();
    }
    absl::Status status = Guarded([&] { return TakeValues(*work); });
    int64_t busy_us = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      computed_.pop_front();
      --untaken_;
      const int64_t now = NowUs();
      busy_us = now - std::max(work->began_us, values_us_);
      values_us_ = now;
    }
    changed_.notify_all();
    bool kept = false;
    if (!work->dropped && status.ok()) {
      status = Guarded([&] {
        absl::StatusOr<Done> done = Store(*work);
        if (!done.ok()) return done.status();
        done->busy_us = busy_us;
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          kept = !work->dropped;
          if (kept) stored_.push_back(work->key());
        }
        if (kept) finished_({*std::move(done), absl::OkStatus()});
        return absl::OkStatus();
      });
    }
    if (!kept) {  // some of it may be written
      const std::lock_guard<std::mutex> lock(mutex_);
      discard_.push_back(work->key());
    }
    changed_.notify_all();
    const bool no_room = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
    if (no_room) {
      HandBackLater(*work, status);
    } else if (!status.ok()) {
      Fail(*work, status);
    }
    Forget(work);
  }
}

void ChunkPipeline::HandBackLater(const ChunkWork& work, const absl::Status& status) {
  if (work.dropped) return;
  const ChunkKey& key = work.key();
  log::Warning(
      "no room for a result",
      {{"job", key.job}, {"chunk", key.chunk}, {"epoch", key.epoch}, {"error", status.message()}});
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(kNoRoomPauseMs), [&] { return stop_; });
  }
  finished_({HandBack{key}, absl::OkStatus()});
}

// Links that have not brought all, though it is in the object store; and what is to be removed from
// there.
void ChunkPipeline::FillLoop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    changed_.wait_for(lock, std::chrono::milliseconds(kLinkGraceMs));
    const int64_t now_ms = NowUs() / 1000;
    std::vector<WorkPtr> late;
    for (const WorkPtr& work : all_) {
      if (work->boundary_ms < 0 || now_ms < work->boundary_ms + kLinkGraceMs) continue;
      if (work->before == nullptr || work->before->first_missing() == work->before->size())
        continue;
      work->boundary_ms = now_ms;  // tried again after as long
      late.push_back(work);
    }
    std::vector<ChunkKey> discard;
    discard.swap(discard_);
    lock.unlock();
    for (const ChunkKey& key : discard) Discard(key);
    for (const WorkPtr& work : late) {
      const absl::Status filled =
          Guarded([&] { return Fill(*work, work->boundary, *work->before); });
      if (!filled.ok() && !absl::IsUnavailable(filled)) work->before->Fail(filled);
    }
    lock.lock();
  }
}

}  // namespace longwave

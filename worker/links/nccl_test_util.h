// What takes NCCL's place in tests: the same rules within one process, and faults on demand. Built
// with LONGWAVE_TEST_NCCL the tests use NCCL itself, between two GPUs.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/gpu/queue.h"
#include "worker/links/exchange.h"
#include "worker/links/nccl_api.h"
#include "worker/links/nccl_link.h"

namespace longwave {

// Two ranks meet by their id; a transfer is done when both have begun it, in order, or never where
// one of them has gone. "Device memory" is the emulator's: a transfer is a copy.
class StandInNccl final : public NcclApi {
 public:
  std::string version() const override { return "0.0.0"; }

  absl::StatusOr<NcclId> NewId() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    NcclId id = {};
    const int64_t number = ++ids_;
    std::memcpy(id.data(), &number, sizeof(number));
    return id;
  }

  absl::StatusOr<ncclComm*> Begin(const NcclId& id, int rank) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    int64_t number = 0;
    std::memcpy(&number, id.data(), sizeof(number));
    auto& pair = pairs_[number];
    if (pair == nullptr) pair = std::make_shared<Pair>();
    EXPECT_FALSE(pair->sides[rank].here) << "two of rank " << rank;
    pair->sides[rank].here = true;
    ++pair->begun;
    return reinterpret_cast<ncclComm*>(new End{pair, rank});
  }

  absl::StatusOr<bool> Settled(ncclComm* comm) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return end(comm).pair->begun == 2 && side(comm).data == nullptr;
  }

  absl::Status Send(ncclComm* comm, const void* data, int64_t bytes, gpu::Queue&) override {
    return Post(comm, const_cast<void*>(data), bytes, 0);
  }
  absl::Status Receive(ncclComm* comm, void* data, int64_t bytes, gpu::Queue&) override {
    return Post(comm, data, bytes, 1);
  }

  void Abort(ncclComm* comm) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    side(comm).here = false;
    side(comm).data = nullptr;
    delete &end(comm);
  }

 private:
  struct Side {
    bool here = false;
    void* data = nullptr;  // of the transfer that this side has begun
    int64_t bytes = 0;
  };
  struct Pair {
    int begun = 0;
    Side sides[2];
  };
  struct End {
    std::shared_ptr<Pair> pair;
    int rank;
  };
  static End& end(ncclComm* comm) { return *reinterpret_cast<End*>(comm); }
  static Side& side(ncclComm* comm) { return end(comm).pair->sides[end(comm).rank]; }
  static Side& other(ncclComm* comm) { return end(comm).pair->sides[1 - end(comm).rank]; }

  absl::Status Post(ncclComm* comm, void* data, int64_t bytes, int rank) {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(end(comm).rank, rank);
    Side &own = side(comm), &theirs = other(comm);
    EXPECT_EQ(own.data, nullptr) << "a transfer before the last one is settled";
    own.data = data;
    own.bytes = bytes;
    if (theirs.data == nullptr || !theirs.here) return absl::OkStatus();
    EXPECT_EQ(own.bytes, theirs.bytes);
    std::memcpy(rank == 1 ? own.data : theirs.data, rank == 1 ? theirs.data : own.data,
                static_cast<size_t>(bytes));
    own.data = theirs.data = nullptr;
    return absl::OkStatus();
  }

  std::mutex mutex_;
  int64_t ids_ = 0;
  std::map<int64_t, std::shared_ptr<Pair>> pairs_;
};

// Another NCCL whose n-th call goes wrong. Calls of Settled() do not count: their number is a
// matter of time.
class FaultyNccl final : public NcclApi {
 public:
  enum class Fault {
    kError,       // the call ends in an error and does nothing
    kErrorLater,  // it is done, and the communicator is broken thereafter
    kNothing,     // it seems to be done, and nothing happens ever after
  };
  FaultyNccl(std::shared_ptr<NcclApi> real, int64_t at, Fault fault)
      : real_(std::move(real)), at_(at), fault_(fault) {}

  bool happened() const { return calls_ > at_; }

  std::string version() const override { return real_->version(); }
  absl::StatusOr<NcclId> NewId() override {
    if (Hit() && fault_ == Fault::kError) return Error();
    return real_->NewId();
  }
  absl::StatusOr<ncclComm*> Begin(const NcclId& id, int rank) override {
    const bool hit = Hit();
    if (hit && fault_ == Fault::kError) return Error();
    absl::StatusOr<ncclComm*> comm = real_->Begin(id, rank);
    if (hit && comm.ok()) Break(*comm);
    return comm;
  }
  absl::StatusOr<bool> Settled(ncclComm* comm) override {
    absl::StatusOr<bool> settled = real_->Settled(comm);
    if (!Broken(comm)) return settled;
    if (fault_ == Fault::kNothing) return false;
    return Error();
  }
  absl::Status Send(ncclComm* comm, const void* data, int64_t bytes, gpu::Queue& queue) override {
    return Transfer(comm, [&] { return real_->Send(comm, data, bytes, queue); });
  }
  absl::Status Receive(ncclComm* comm, void* data, int64_t bytes, gpu::Queue& queue) override {
    return Transfer(comm, [&] { return real_->Receive(comm, data, bytes, queue); });
  }
  void Abort(ncclComm* comm) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      broken_.erase(comm);
    }
    real_->Abort(comm);
  }

 private:
  static absl::Status Error() { return absl::UnavailableError("a fault of the test's"); }
  bool Hit() { return calls_++ == at_; }
  void Break(ncclComm* comm) {
    const std::lock_guard<std::mutex> lock(mutex_);
    broken_[comm] = true;
  }
  bool Broken(ncclComm* comm) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return broken_.count(comm) > 0;
  }
  template <typename Fn>
  absl::Status Transfer(ncclComm* comm, const Fn& fn) {
    if (!Hit()) return fn();
    if (fault_ == Fault::kError) return Error();
    Break(comm);
    return fault_ == Fault::kNothing ? absl::OkStatus() : fn();
  }

  const std::shared_ptr<NcclApi> real_;
  const int64_t at_;
  const Fault fault_;
  std::atomic<int64_t> calls_ = 0;
  std::mutex mutex_;
  std::map<ncclComm*, bool> broken_;
};

// ---- Two GPUs to link: of this machine, or the emulated one twice.
#ifdef LONGWAVE_TEST_NCCL
inline std::shared_ptr<NcclApi> TestNccl() {
  static const absl::StatusOr<std::shared_ptr<NcclApi>> api = NcclApi::Load();
  EXPECT_TRUE(api.ok()) << api.status();
  return api.ok() ? *api : nullptr;
}
inline int TestDevice(int side) { return side; }
inline constexpr std::chrono::milliseconds kTestConnect{60000}, kTestTransfer{2000};
#define LONGWAVE_NEEDS_TWO_GPUS()                                                       \
  if (gpu::DeviceCount() < 2) {                                                         \
    GTEST_SKIP() << "needs two GPUs for NCCL, this machine has " << gpu::DeviceCount(); \
  }
#else
inline std::shared_ptr<NcclApi> TestNccl() { return std::make_shared<StandInNccl>(); }
inline int TestDevice(int) { return 0; }
inline constexpr std::chrono::milliseconds kTestConnect{2000}, kTestTransfer{300};
#define LONGWAVE_NEEDS_TWO_GPUS()
#endif

inline NcclLinkOptions TestLink(std::shared_ptr<NcclApi> api, int side) {
  NcclLinkOptions options;
  options.api = std::move(api);
  options.device = TestDevice(side);
  options.pool = DevicePool::Create(options.device);
  options.connect_limit = kTestConnect;
  options.transfer_limit = kTestTransfer;
  return options;
}

// A tensor of bytes that are `text`, on the GPU.
inline std::shared_ptr<const DeviceTensor> OnDevice(const std::string& text, DevicePool& pool,
                                                    int device) {
  auto queue = gpu::Queue::Open(device);
  auto tensor = pool.Take(static_cast<int64_t>(text.size()));
  EXPECT_TRUE(queue.ok() && tensor.ok()) << queue.status() << tensor.status();
  EXPECT_EQ((*queue)->CopyToDevice((*tensor)->memory.data(), text.data(), (*tensor)->bytes),
            absl::OkStatus());
  EXPECT_EQ((*queue)->Synchronize(), absl::OkStatus());
  return *tensor;
}

inline std::string TextOf(const DeviceTensor& tensor, int device) {
  std::string text(tensor.bytes, '\0');
  auto queue = gpu::Queue::Open(device);
  EXPECT_TRUE(queue.ok()) << queue.status();
  EXPECT_EQ((*queue)->CopyToHost(text.data(), tensor.memory.data(), tensor.bytes),
            absl::OkStatus());
  EXPECT_EQ((*queue)->Synchronize(), absl::OkStatus());
  return text;
}

// Streams from one exchange to the other until their link is up: false where that takes too long.
inline bool JoinByNccl(Exchange& from, Exchange& to, DevicePool& pool, int device) {
  const auto tensor = OnDevice("join", pool, device);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
    const std::string name = absl::StrCat("join/", from.endpoint(), "/", i);
    auto published = from.Publish(name, 1);
    published->Put(0, {std::make_shared<const std::string>("join"), tensor});
    auto subscribed = to.Subscribe(name, from.endpoint(), 1);
    const bool there = subscribed->WaitTensor(0).ok();
    const bool by_nccl = subscribed->GetTensor(0).link == Link::kNccl;
    to.Unsubscribe(name);
    from.Forget(name);
    if (there && by_nccl) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace longwave

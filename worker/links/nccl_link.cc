#include "worker/links/nccl_link.h"

#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "kernels/checks.h"
#include "worker/model/weights.h"

namespace longwave {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A transfer takes some ten microseconds: so long it is polled for without a pause.
constexpr microseconds kNoPause{200};
constexpr microseconds kShortPause{50}, kLongPause{1000};
constexpr milliseconds kWatch{500};  // a link without work is looked at so often
// The first tensor of all: whether memory really goes from one GPU to the other.
constexpr absl::string_view kGreeting = "longwave: tensors follow";

}  // namespace

NcclLink::NcclLink(const NcclLinkOptions& options, Role role, const NcclId& id,
                   std::function<void()> changed)
    : options_(options), role_(role), id_(id), changed_fn_(std::move(changed)) {
  thread_ = std::thread([this] { Run(); });
}

NcclLink::~NcclLink() {
  Stop();
  thread_.join();
}

absl::Status NcclLink::error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return error_;
}

void NcclLink::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
}

void NcclLink::Send(std::shared_ptr<const DeviceTensor> tensor) {
  const int64_t bytes = tensor->bytes;
  Add({bytes, std::move(tensor), nullptr});
}

void NcclLink::Receive(int64_t bytes, ReceivedFn received) {
  Add({bytes, nullptr, std::move(received)});
}

void NcclLink::Add(Transfer transfer) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (state_ == State::kBroken) return;
    transfers_.push_back(std::move(transfer));
  }
  changed_.notify_all();
}

void NcclLink::Set(State state, absl::Status error) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    error_ = std::move(error);
    state_ = state;
  }
  changed_fn_();
}

void NcclLink::Run() {
  const absl::Status why = Work();
  if (comm_ != nullptr) options_.api->Abort(comm_);
  queue_.reset();  // waits until the GPU is done with what was aborted
  Set(State::kBroken, why);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    transfers_.clear();
  }
  ended_ = true;
  changed_fn_();
}

// Until the link breaks.
absl::Status NcclLink::Work() {
  LONGWAVE_RETURN_IF_ERROR(Connect());
  LONGWAVE_RETURN_IF_ERROR(Greet());
  Set(State::kUp, absl::OkStatus());
  while (true) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kWatch, [&] { return stop_ || !transfers_.empty(); });
    if (stop_) return absl::CancelledError("the link was stopped");
    if (transfers_.empty()) {
      lock.unlock();
      LONGWAVE_RETURN_IF_ERROR(options_.api->Settled(comm_).status());
      continue;
    }
    const Transfer transfer = transfers_.front();
    lock.unlock();
    LONGWAVE_RETURN_IF_ERROR(Do(transfer));
    // One that a broken link may still read is kept until the GPU is done with it.
    lock.lock();
    transfers_.pop_front();
  }
}

absl::Status NcclLink::Connect() {
  LONGWAVE_ASSIGN_OR_RETURN(queue_, gpu::Queue::Open(options_.device, /*urgent=*/true));
  LONGWAVE_ASSIGN_OR_RETURN(done_, gpu::Event::Create(options_.device));
  LONGWAVE_ASSIGN_OR_RETURN(comm_, options_.api->Begin(id_, role_ == Role::kSender ? 0 : 1));
  return Settle(Clock::now() + options_.connect_limit);
}

absl::Status NcclLink::Greet() {
  const auto bytes = static_cast<int64_t>(kGreeting.size());
  std::string text(kGreeting);
  if (role_ == Role::kSender) {
    std::shared_ptr<DeviceTensor> tensor;
    LONGWAVE_ASSIGN_OR_RETURN(tensor, options_.pool->Take(bytes));
    LONGWAVE_RETURN_IF_ERROR(queue_->CopyToDevice(tensor->memory.data(), text.data(), bytes));
    return SendNow(*tensor);
  }
  text.assign(text.size(), '\0');
  std::shared_ptr<DeviceTensor> tensor;
  LONGWAVE_ASSIGN_OR_RETURN(tensor, ReceiveNow(bytes));
  LONGWAVE_RETURN_IF_ERROR(queue_->CopyToHost(text.data(), tensor->memory.data(), bytes));
  LONGWAVE_RETURN_IF_ERROR(queue_->Synchronize());
  if (text == kGreeting) return absl::OkStatus();
  return absl::UnavailableError("what NCCL brings is not what was sent");
}

absl::Status NcclLink::Do(const Transfer& transfer) {
  if (role_ == Role::kReceiver) {
    std::shared_ptr<DeviceTensor> tensor;
    LONGWAVE_ASSIGN_OR_RETURN(tensor, ReceiveNow(transfer.bytes));
    transfer.received(std::move(tensor));
    return absl::OkStatus();
  }
  return SendNow(*transfer.tensor);
}

absl::Status NcclLink::SendNow(const DeviceTensor& tensor) {
  LONGWAVE_RETURN_IF_ERROR(options_.api->Send(comm_, tensor.memory.data(), tensor.bytes, *queue_));
  return Finish();
}

absl::StatusOr<std::shared_ptr<DeviceTensor>> NcclLink::ReceiveNow(int64_t bytes) {
  std::shared_ptr<DeviceTensor> tensor;
  LONGWAVE_ASSIGN_OR_RETURN(tensor, options_.pool->Take(bytes));
  absl::Status status = options_.api->Receive(comm_, tensor->memory.data(), bytes, *queue_);
  if (status.ok()) status = Finish();
  if (status.ok()) return tensor;
  // The GPU may still write: not before that is over does the memory go back.
  options_.api->Abort(std::exchange(comm_, nullptr));
  status.Update(queue_->Synchronize());
  return status;
}

absl::Status NcclLink::Finish() {
  const Clock::time_point began = Clock::now(), deadline = began + options_.transfer_limit;
  LONGWAVE_RETURN_IF_ERROR(Settle(deadline));
  LONGWAVE_RETURN_IF_ERROR(done_.Record(*queue_));
  return Poll(began, deadline, [&]() -> absl::StatusOr<bool> {
    const absl::StatusOr<bool> done = done_.Done();
    if (!done.ok() || *done) return done;
    const absl::StatusOr<bool> fine = options_.api->Settled(comm_);
    if (!fine.ok()) return fine.status();
    return false;
  });
}

absl::Status NcclLink::Settle(Clock::time_point deadline) {
  return Poll(Clock::now(), deadline, [&] { return options_.api->Settled(comm_); });
}

absl::Status NcclLink::Poll(Clock::time_point began, Clock::time_point deadline,
                            const std::function<absl::StatusOr<bool>()>& done) {
  while (true) {
    const absl::StatusOr<bool> is_done = done();
    if (!is_done.ok()) return is_done.status();
    if (*is_done) return absl::OkStatus();
    if (stop_) return absl::CancelledError("the link was stopped");
    const Clock::time_point now = Clock::now();
    if (now > deadline) return absl::DeadlineExceededError("the other side does not answer");
    if (now - began < kNoPause) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(now - began < milliseconds(20) ? kShortPause : kLongPause);
    }
  }
}

}  // namespace longwave

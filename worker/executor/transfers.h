// What a runner sends to a GPU and gets from it while the GPU works: tokens in, losses out, each
// through two pinned buffers in turn, so that the host fills or reads one while the device copies
// the other. On the CPU, the same without copies.
//
// Thread safety: one caller at a time, who works on one Stream; LossDownload: Take() may be called
// on another thread than the rest.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/array.h"
#include "kernels/gpu/async.h"
#include "kernels/stream.h"

namespace longwave {

class TokenUpload {
 public:
  TokenUpload() = default;
  static absl::StatusOr<TokenUpload> Create(Device device, int64_t most);
  // The tokens, for operators of `stream`: on a GPU a copy, in the same place each time; on the CPU
  // `tokens` themselves.
  absl::StatusOr<const int32_t*> Send(absl::Span<const int32_t> tokens, Stream& stream);
  int32_t* on_device() const { return static_cast<int32_t*>(device_.data()); }

 private:
  Array device_;
  gpu::PinnedArray host_[2];
  gpu::Event copied_[2];
  int64_t sent_ = 0;
};

// Losses in the order in which their computation was queued; two at most are under way.
class LossDownload {
 public:
  static constexpr int64_t kMost = 2;

  LossDownload() = default;
  LossDownload(LossDownload&& other) noexcept { *this = std::move(other); }
  LossDownload& operator=(LossDownload&& other) noexcept;
  static absl::StatusOr<LossDownload> Create(Device device, int64_t most);
  int64_t pending() const { return begun_ - taken_; }
  void Clear() { taken_ = begun_.load(); }
  // Where an operator puts `count` losses. REQUIRES: pending() < kMost.
  float* Begin(int64_t count);
  // After the operator was queued.
  absl::Status End(Stream& stream);
  // The oldest that were begun, once they are there; valid until the Begin() after the next.
  // REQUIRES: pending() > 0.
  absl::StatusOr<absl::Span<const float>> Take();

 private:
  struct Slot {
    std::vector<float> values;  // of the CPU
    gpu::PinnedArray pinned;
    gpu::Event done;
    int64_t count = 0;
  };
  bool on_gpu_ = false;
  Array device_;
  Slot slots_[kMost];
  std::atomic<int64_t> begun_ = 0, taken_ = 0;
};

}  // namespace longwave

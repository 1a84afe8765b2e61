// A prompt of the command line as an input: one sequence of bytes.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "formats/token_input.h"

namespace longwave {

class PromptInput final : public TokenInput {
 public:
  explicit PromptInput(std::string text) : text_(std::move(text)) {
    info_.name = "prompt";
    info_.length = static_cast<int64_t>(text_.size());
  }

  absl::StatusOr<bool> NextSequence() override { return !std::exchange(begun_, true); }
  absl::StatusOr<bool> HasNextSequence() override { return false; }
  const SequenceInfo& sequence() const override { return info_; }
  double FractionRead() const override { return static_cast<double>(read_) / text_.size(); }
  bool tokens_are_bytes() const override { return true; }

  absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) override {
    const size_t n = std::min(out.size(), text_.size() - read_);
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(text_[read_ + i]);
    read_ += n;
    return static_cast<int64_t>(n);
  }

 private:
  std::string text_;
  SequenceInfo info_;
  size_t read_ = 0;
  bool begun_ = false;
};

}  // namespace longwave

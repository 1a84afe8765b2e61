// An input whose tokens are hashed as they are read, so that a later run can tell whether it reads
// the same ones, and skip them.
//
// The hash is a chain over what each Read() gave: it depends on how the input was read, and is
// compared only between runs that read in chunks of one length, as ContinueSequence() does.
//
// Thread safety: none.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "formats/token_input.h"

namespace longwave {

class WatchedInput final : public TokenInput {
 public:
  explicit WatchedInput(std::unique_ptr<TokenInput> input) : input_(std::move(input)) {}

  absl::StatusOr<bool> NextSequence() override;
  absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) override;
  absl::StatusOr<bool> HasNextSequence() override { return input_->HasNextSequence(); }
  const SequenceInfo& sequence() const override { return input_->sequence(); }
  std::optional<int64_t> batch() const override { return input_->batch(); }
  double FractionRead() const override { return input_->FractionRead(); }
  bool tokens_are_bytes() const override { return input_->tokens_are_bytes(); }

  // Of all that was read. A chunk's reader is one token ahead of the chunk.
  const std::string& digest() const { return digest_; }
  // From the start of a sequence: passes over `tokens` tokens, and returns how many there were.
  absl::StatusOr<int64_t> Skip(int64_t tokens, int64_t chunk);

 private:
  std::unique_ptr<TokenInput> input_;
  std::string digest_;
  std::optional<int32_t> ahead_;  // read and hashed, not given
};

}  // namespace longwave

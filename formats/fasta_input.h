// FASTA as tokens: a record is a sequence, its letters upper-cased are its tokens.
//   input   = *(blank | ";" comment "\n") 1*record
//   record  = ">" [name [description]] "\n" letters
//   letters = any bytes; blanks (line ends, spaces, tabs) are dropped; ">" at a line's start ends
//   them
// No record is held whole: memory is one block, and a header line of at most kMaxFastaHeader.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/byte_source.h"
#include "formats/token_input.h"

namespace longwave {

inline constexpr int64_t kMaxFastaHeader = 64 << 10;

class FastaInput final : public TokenInput {
 public:
  explicit FastaInput(std::unique_ptr<ByteSource> source);

  absl::StatusOr<bool> NextSequence() override;
  const SequenceInfo& sequence() const override { return sequence_; }
  absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) override;
  absl::StatusOr<bool> HasNextSequence() override;
  double FractionRead() const override { return source_->FractionRead(); }
  bool tokens_are_bytes() const override { return true; }

 private:
  // Where the next byte stands.
  enum class Place { kPreamble, kHeader, kLetters, kEnd };

  absl::StatusOr<bool> Refill();       // false at the input's end
  absl::Status SkipPreamble();         // kPreamble -> kHeader
  absl::Status SkipLine();             // to the next line's start
  absl::Status ReadHeader();           // kHeader -> kLetters, at the first letter; fills sequence_
  absl::StatusOr<bool> FindLetters();  // skips blanks; false where the record has ended
  absl::Status SkipLetters();          // kLetters -> kHeader or kEnd
  absl::Status Error(const std::string& what) const;

  std::unique_ptr<ByteSource> source_;
  std::vector<uint8_t> block_;
  size_t at_ = 0, end_ = 0;  // in block_
  bool line_start_ = true;   // whether at_ is a line's first byte
  Place place_ = Place::kPreamble;
  SequenceInfo sequence_;
};

}  // namespace longwave

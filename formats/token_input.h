// Where tokens come from: text or any bytes, FASTA (plain or gzip, any number of records), .npy of
// token ids, a file or standard input. Everything streams: memory does not grow with the input.
//
// Thread safety: none; one thread reads. Errors: absl::Status with the offending value and the
// path.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "formats/byte_source.h"

namespace longwave {

enum class InputFormat { kAuto, kBytes, kFasta, kNpy };

struct SequenceInfo {
  int64_t index = 0;    // 0, 1, ... in the order of the input
  std::string name;     // a FASTA record's first word; empty otherwise
  int64_t length = -1;  // tokens, where known before reading (npy); -1 otherwise
};

class TokenInput {
 public:
  // path "-" is standard input. kAuto decides by content after unpacking gzip: the npy magic, then
  // a FASTA's '>' (or a FASTA file name: .fa .fna .fasta .ffn .frn, each also with .gz), else
  // bytes. A name ending in .txt (or .txt.gz) is bytes whatever it starts with. An empty input is
  // an error.
  static absl::StatusOr<std::unique_ptr<TokenInput>> Open(const std::string& path,
                                                          InputFormat format);
  // The same over an open source; `path` only tells kAuto the name.
  static absl::StatusOr<std::unique_ptr<TokenInput>> FromSource(std::unique_ptr<ByteSource> source,
                                                                InputFormat format,
                                                                const std::string& path);
  virtual ~TokenInput() = default;

  // Moves to the next sequence, skipping what is unread of the present one; false at the end of the
  // input. An input with no sequence, and a sequence with no token, is an error that says so.
  virtual absl::StatusOr<bool> NextSequence() = 0;

  // REQUIRES: NextSequence() has returned true.
  virtual const SequenceInfo& sequence() const = 0;

  // Fills `out` with the next tokens; fewer than out.size() only at the sequence's end, then 0.
  virtual absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) = 0;

  // Whether another sequence follows the present one. May read ahead (a record's unread letters are
  // skipped), so call it at the sequence's end. Before the first NextSequence(): whether there is
  // one.
  virtual absl::StatusOr<bool> HasNextSequence() = 0;

  // For a 2-D npy of ids (batch, L): batch. nullopt otherwise.
  virtual std::optional<int64_t> batch() const { return std::nullopt; }

  // How much of the input has been read, 0 to 1, by bytes of the file; -1 where unknown (a pipe).
  virtual double FractionRead() const = 0;

  // True where tokens are bytes (text, FASTA), false where they are ids (npy).
  virtual bool tokens_are_bytes() const = 0;
};

}  // namespace longwave

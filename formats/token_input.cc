// Which format an input has, and the two simple kinds of TokenInput; FASTA's is in fasta_input.cc.
#include "formats/token_input.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "formats/fasta_input.h"
#include "formats/npy.h"
#include "formats/shape.h"

namespace longwave {
namespace {

constexpr int64_t kBlock = 32 << 10;

// The whole input is one sequence, a byte a token.
class BytesInput final : public TokenInput {
 public:
  explicit BytesInput(std::unique_ptr<ByteSource> source)
      : source_(std::move(source)), block_(kBlock) {}

  absl::StatusOr<bool> NextSequence() override {
    if (!std::exchange(started_, true)) return true;
    at_end_ = true;
    return false;
  }
  const SequenceInfo& sequence() const override { return sequence_; }

  absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) override {
    size_t done = 0;
    while (done < out.size() && !at_end_) {
      const size_t size = std::min<size_t>(kBlock, out.size() - done);
      absl::StatusOr<int64_t> got = source_->Read(absl::MakeSpan(block_).subspan(0, size));
      if (!got.ok()) return got.status();
      std::copy_n(block_.begin(), *got, out.begin() + done);
      done += *got;
      at_end_ = static_cast<size_t>(*got) < size;
    }
    return static_cast<int64_t>(done);
  }

  absl::StatusOr<bool> HasNextSequence() override { return !started_; }
  double FractionRead() const override { return source_->FractionRead(); }
  bool tokens_are_bytes() const override { return true; }

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<uint8_t> block_;
  SequenceInfo sequence_;
  bool started_ = false, at_end_ = false;
};

// (L) is one sequence, (batch, L) is `batch` of them.
class NpyInput final : public TokenInput {
 public:
  static absl::StatusOr<std::unique_ptr<TokenInput>> Open(std::unique_ptr<ByteSource> source) {
    absl::StatusOr<std::unique_ptr<NpyReader>> reader = NpyReader::Open(std::move(source));
    if (!reader.ok()) return reader.status();
    const NpyHeader& header = (*reader)->header();
    const std::string shape =
        absl::StrCat((*reader)->name(), ": npy shape ", ShapeString(header.shape));
    if (header.type == NpyType::kFloat32) {
      return absl::InvalidArgumentError(
          absl::StrCat(shape, " of dtype <f4: token ids are <i4 or <i8"));
    }
    if (header.shape.empty() || header.shape.size() > 2) {
      return absl::InvalidArgumentError(
          absl::StrCat(shape, ": token ids have the shape (L,) or (batch, L)"));
    }
    if (header.elements() == 0) return absl::InvalidArgumentError(absl::StrCat(shape, " is empty"));
    return std::unique_ptr<TokenInput>(new NpyInput(*std::move(reader)));
  }

  absl::StatusOr<bool> NextSequence() override {
    std::vector<int32_t> skipped(std::min(left_, kBlock));
    while (left_ > 0) {
      absl::StatusOr<int64_t> got = Read(absl::MakeSpan(skipped));
      if (!got.ok()) return got.status();
    }
    if (sequence_.index + 1 == sequences_) return false;
    ++sequence_.index;
    left_ = sequence_.length;
    return true;
  }
  const SequenceInfo& sequence() const override { return sequence_; }

  absl::StatusOr<int64_t> Read(absl::Span<int32_t> out) override {
    const size_t size = std::min<int64_t>(out.size(), left_);
    absl::StatusOr<int64_t> got = reader_->ReadIds(out.subspan(0, size));
    if (!got.ok()) return got.status();
    const auto negative =
        std::find_if(out.begin(), out.begin() + *got, [](int32_t id) { return id < 0; });
    if (negative != out.begin() + *got) {
      return absl::InvalidArgumentError(absl::StrCat(
          reader_->name(), ": token id ", *negative, " at position ",
          sequence_.length - left_ + (negative - out.begin()), " of sequence ", sequence_.index));
    }
    left_ -= *got;
    return *got;
  }

  absl::StatusOr<bool> HasNextSequence() override { return sequence_.index + 1 < sequences_; }
  std::optional<int64_t> batch() const override {
    if (reader_->header().shape.size() == 1) return std::nullopt;
    return sequences_;
  }
  double FractionRead() const override { return reader_->FractionRead(); }
  bool tokens_are_bytes() const override { return false; }

 private:
  explicit NpyInput(std::unique_ptr<NpyReader> reader) : reader_(std::move(reader)) {
    const std::vector<int64_t>& shape = reader_->header().shape;
    sequences_ = shape.size() == 1 ? 1 : shape[0];
    sequence_.index = -1;
    sequence_.length = shape.back();
  }

  std::unique_ptr<NpyReader> reader_;
  SequenceInfo sequence_;
  int64_t sequences_;
  int64_t left_ = 0;  // of the present sequence
};

InputFormat Detect(absl::Span<const uint8_t> start, const std::string& path) {
  const std::string lower = absl::AsciiStrToLower(path);
  const absl::string_view name = absl::StripSuffix(lower, ".gz");
  if (absl::EndsWith(name, ".txt")) return InputFormat::kBytes;
  if (StartsWithNpyMagic(start)) return InputFormat::kNpy;
  if (start[0] == '>') return InputFormat::kFasta;
  for (const char* suffix : {".fa", ".fna", ".fasta", ".ffn", ".frn"}) {
    if (absl::EndsWith(name, suffix)) return InputFormat::kFasta;
  }
  return InputFormat::kBytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenInput>> TokenInput::Open(const std::string& path,
                                                             InputFormat format) {
  absl::StatusOr<std::unique_ptr<ByteSource>> source = ByteSource::Open(path);
  if (!source.ok()) return source.status();
  return FromSource(*std::move(source), format, path);
}

absl::StatusOr<std::unique_ptr<TokenInput>> TokenInput::FromSource(
    std::unique_ptr<ByteSource> source, InputFormat format, const std::string& path) {
  absl::StatusOr<absl::Span<const uint8_t>> start = source->Peek(6);
  if (!start.ok()) return start.status();
  if (start->empty()) return absl::InvalidArgumentError(absl::StrCat(source->name(), " is empty"));
  if (format == InputFormat::kAuto) format = Detect(*start, path);
  if (format == InputFormat::kNpy) return NpyInput::Open(std::move(source));
  if (format == InputFormat::kFasta) return std::make_unique<FastaInput>(std::move(source));
  return std::make_unique<BytesInput>(std::move(source));
}

}  // namespace longwave

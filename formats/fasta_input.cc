#include "formats/fasta_input.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

constexpr int64_t kBlock = 64 << 10;
constexpr size_t kShown = 60;  // bytes of the input quoted in a message

std::string Quoted(const std::string& bytes) {
  return absl::StrCat("'", absl::CHexEscape(bytes.substr(0, kShown)), "'",
                      bytes.size() > kShown ? "..." : "");
}

bool IsBlank(uint8_t c) { return absl::ascii_isspace(c); }

// 1 for a letter, 0 for a blank: how far the output moves on.
constexpr std::array<int8_t, 256> kKept = [] {
  std::array<int8_t, 256> kept{};
  for (int c = 0; c < 256; ++c) kept[c] = c == ' ' || (c >= '\t' && c <= '\r') ? 0 : 1;
  return kept;
}();

constexpr std::array<uint8_t, 256> kUpper = [] {
  std::array<uint8_t, 256> upper{};
  for (int c = 0; c < 256; ++c) upper[c] = c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c;
  return upper;
}();

}  // namespace

FastaInput::FastaInput(std::unique_ptr<ByteSource> source)
    : source_(std::move(source)), block_(kBlock) {
  sequence_.index = -1;
}

absl::Status FastaInput::Error(const std::string& what) const {
  return absl::InvalidArgumentError(absl::StrCat(source_->name(), ": ", what));
}

absl::StatusOr<bool> FastaInput::Refill() {
  if (at_ < end_) return true;
  absl::StatusOr<int64_t> got = source_->Read(absl::MakeSpan(block_));
  if (!got.ok()) return got.status();
  at_ = 0;
  end_ = static_cast<size_t>(*got);
  return end_ > 0;
}

absl::Status FastaInput::SkipPreamble() {
  while (true) {
    absl::StatusOr<bool> more = Refill();
    if (!more.ok()) return more.status();
    if (!*more) return Error("no FASTA records");
    const uint8_t c = block_[at_];
    if (line_start_ && c == '>') break;
    if (line_start_ && c == ';') {
      absl::Status skipped = SkipLine();
      if (!skipped.ok()) return skipped;
      continue;
    }
    if (!IsBlank(c)) {
      const std::string start(reinterpret_cast<const char*>(&block_[at_]),
                              std::min(end_ - at_, kShown + 1));
      return Error(absl::StrCat("not FASTA: ", Quoted(start), " comes before the first '>'"));
    }
    line_start_ = c == '\n';
    ++at_;
  }
  place_ = Place::kHeader;
  return absl::OkStatus();
}

absl::Status FastaInput::SkipLine() {
  while (true) {
    absl::StatusOr<bool> more = Refill();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    const void* newline = std::memchr(&block_[at_], '\n', end_ - at_);
    if (newline != nullptr) {
      at_ = static_cast<const uint8_t*>(newline) - block_.data() + 1;
      line_start_ = true;
      return absl::OkStatus();
    }
    at_ = end_;
  }
}

absl::Status FastaInput::ReadHeader() {
  std::string line;
  for (bool whole = false; !whole;) {
    absl::StatusOr<bool> more = Refill();
    if (!more.ok()) return more.status();
    if (!*more) break;
    const uint8_t* start = &block_[at_];
    const void* newline = std::memchr(start, '\n', end_ - at_);
    whole = newline != nullptr;
    const size_t size = whole ? static_cast<const uint8_t*>(newline) - start : end_ - at_;
    if (line.size() + size > kMaxFastaHeader) {
      line.append(reinterpret_cast<const char*>(start), std::min(size, kShown + 1));
      return Error(absl::StrCat("record ", sequence_.index + 1, "'s header line is over ",
                                kMaxFastaHeader, " bytes: ", Quoted(line)));
    }
    line.append(reinterpret_cast<const char*>(start), size);
    at_ += size + whole;
  }
  ++sequence_.index;
  const auto begin = std::find_if_not(line.begin() + 1, line.end(), IsBlank);
  sequence_.name.assign(begin, std::find_if(begin, line.end(), IsBlank));
  line_start_ = true;
  place_ = Place::kLetters;
  absl::StatusOr<bool> letters = FindLetters();
  if (!letters.ok()) return letters.status();
  if (!*letters) {
    return Error(
        absl::StrCat("record ", sequence_.index, " ", Quoted(sequence_.name), " has no letters"));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> FastaInput::FindLetters() {
  while (place_ == Place::kLetters) {
    absl::StatusOr<bool> more = Refill();
    if (!more.ok()) return more.status();
    if (!*more) {
      place_ = Place::kEnd;
    } else if (line_start_ && block_[at_] == '>') {
      place_ = Place::kHeader;
    } else if (IsBlank(block_[at_])) {
      line_start_ = block_[at_++] == '\n';
    } else {
      return true;
    }
  }
  return false;
}

absl::StatusOr<int64_t> FastaInput::Read(absl::Span<int32_t> out) {
  size_t done = 0;
  while (done < out.size()) {
    absl::StatusOr<bool> letters = FindLetters();
    if (!letters.ok()) return letters.status();
    if (!*letters) break;
    // The rest of the line, or what is here of it, or what of it surely fits.
    const uint8_t* from = &block_[at_];
    size_t size = std::min(end_ - at_, out.size() - done);
    const void* newline = std::memchr(from, '\n', size);
    if (newline != nullptr) size = static_cast<const uint8_t*>(newline) - from;
    int32_t* to = out.data() + done;
    for (size_t i = 0; i < size; ++i) {
      *to = kUpper[from[i]];
      to += kKept[from[i]];
    }
    done = to - out.data();
    at_ += size;
    line_start_ = false;
  }
  return static_cast<int64_t>(done);
}

absl::Status FastaInput::SkipLetters() {
  while (true) {
    absl::StatusOr<bool> letters = FindLetters();
    if (!letters.ok()) return letters.status();
    if (!*letters) return absl::OkStatus();
    absl::Status skipped = SkipLine();  // the rest of the line, whatever it holds
    if (!skipped.ok()) return skipped;
  }
}

absl::StatusOr<bool> FastaInput::HasNextSequence() {
  absl::Status moved = place_ == Place::kPreamble ? SkipPreamble() : SkipLetters();
  if (!moved.ok()) return moved;
  return place_ == Place::kHeader;
}

absl::StatusOr<bool> FastaInput::NextSequence() {
  absl::StatusOr<bool> more = HasNextSequence();
  if (!more.ok() || !*more) return more;
  absl::Status read = ReadHeader();
  if (!read.ok()) return read;
  return true;
}

}  // namespace longwave

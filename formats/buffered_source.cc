#include "formats/buffered_source.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace longwave {
namespace {

constexpr int64_t kBufferSize = 2 * ByteSource::kMaxPeek;

}  // namespace

absl::StatusOr<int64_t> BufferedSource::FillOnce(absl::Span<uint8_t> out) {
  if (at_end_ || out.empty()) return 0;
  absl::StatusOr<int64_t> got = Fill(out);
  if (!got.ok() || *got == 0) at_end_ = true;
  return got;
}

absl::StatusOr<int64_t> BufferedSource::Read(absl::Span<uint8_t> out) {
  const int64_t size = static_cast<int64_t>(out.size());
  int64_t done = 0;
  while (done < size) {
    if (begin_ < end_) {
      const int64_t n = std::min(size - done, end_ - begin_);
      std::memcpy(out.data() + done, buffer_.data() + begin_, n);
      begin_ += n;
      done += n;
      continue;
    }
    // What would fill the buffer anyway goes past it.
    const bool direct = size - done >= kBufferSize;
    if (!direct && buffer_.empty()) buffer_.resize(kBufferSize);
    absl::StatusOr<int64_t> got =
        FillOnce(direct ? out.subspan(done) : absl::Span<uint8_t>(buffer_.data(), kBufferSize));
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    if (direct) {
      done += *got;
    } else {
      begin_ = 0;
      end_ = *got;
    }
  }
  return done;
}

absl::StatusOr<absl::Span<const uint8_t>> BufferedSource::Peek(int64_t n) {
  assert(n >= 0 && n <= kMaxPeek);
  if (buffer_.empty()) buffer_.resize(kBufferSize);
  if (end_ - begin_ < n && kBufferSize - begin_ < n) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ - begin_ < n) {
    absl::StatusOr<int64_t> got =
        FillOnce(absl::Span<uint8_t>(buffer_.data() + end_, kBufferSize - end_));
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    end_ += *got;
  }
  return absl::Span<const uint8_t>(buffer_.data() + begin_, std::min(n, end_ - begin_));
}

}  // namespace longwave

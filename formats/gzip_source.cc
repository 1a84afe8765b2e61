#include "formats/gzip_source.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "formats/buffered_source.h"

namespace longwave {
namespace {

constexpr int kGzipOnly = 16;  // added to the window bits: see inflateInit2

class GzipSource final : public BufferedSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> packed)
      : BufferedSource(packed->name()), packed_(std::move(packed)), input_(kMaxPeek) {}
  ~GzipSource() override { inflateEnd(&stream_); }

  int Start() { return inflateInit2(&stream_, MAX_WBITS + kGzipOnly); }
  double FractionRead() const override { return packed_->FractionRead(); }

 private:
  absl::StatusOr<int64_t> Fill(absl::Span<uint8_t> out) override {
    const uInt room = std::min<size_t>(out.size(), std::numeric_limits<uInt>::max());
    stream_.next_out = out.data();
    stream_.avail_out = room;
    while (stream_.avail_out == room) {
      if (between_members_) {
        absl::StatusOr<bool> more = NextMember();
        if (!more.ok()) return more.status();
        if (!*more) return 0;
      }
      absl::Status refilled = Refill();
      if (!refilled.ok()) return refilled;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        between_members_ = true;
      } else if (result == Z_BUF_ERROR && stream_.avail_in == 0) {
        return Error("the gzip data ends early");
      } else if (result != Z_OK) {
        return Error(
            absl::StrCat("corrupt gzip data: ", stream_.msg ? stream_.msg : zError(result)));
      }
    }
    return room - stream_.avail_out;
  }

  // Whether another member starts here; false at the end of the file.
  absl::StatusOr<bool> NextMember() {
    while (true) {
      absl::Status refilled = Refill();
      if (!refilled.ok()) return refilled;
      if (stream_.avail_in == 0) return false;
      if (*stream_.next_in != 0) break;
      ++stream_.next_in;
      --stream_.avail_in;
    }
    if (*stream_.next_in != 0x1f) return Error("bytes that are not gzip follow the gzip data");
    if (inflateReset(&stream_) != Z_OK) return Error("inflateReset failed");
    between_members_ = false;
    return true;
  }

  // Leaves avail_in at 0 only at the end of the file.
  absl::Status Refill() {
    if (stream_.avail_in > 0) return absl::OkStatus();
    absl::StatusOr<int64_t> got = packed_->Read(absl::MakeSpan(input_));
    if (!got.ok()) return got.status();
    stream_.next_in = input_.data();
    stream_.avail_in = static_cast<uInt>(*got);
    return absl::OkStatus();
  }

  absl::Status Error(const std::string& what) const {
    return absl::DataLossError(absl::StrCat(name(), ": ", what));
  }

  std::unique_ptr<ByteSource> packed_;
  std::vector<uint8_t> input_;
  z_stream stream_ = {};
  bool between_members_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenGzip(std::unique_ptr<ByteSource> packed) {
  auto source = std::make_unique<GzipSource>(std::move(packed));
  const int result = source->Start();
  if (result != Z_OK) {
    return absl::ResourceExhaustedError(absl::StrCat(source->name(), ": zlib: ", zError(result)));
  }
  return source;
}

}  // namespace longwave

#include "formats/npy.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/shape.h"

namespace longwave {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they are");

constexpr int64_t kIdsAtOnce = 8192;

int64_t ByteSize(NpyType type) { return type == NpyType::kInt64 ? 8 : 4; }

absl::Status Named(const std::string& name, const absl::Status& status) {
  return absl::Status(absl::StatusCode::kInvalidArgument,
                      absl::StrCat(name, ": ", status.message()));
}

}  // namespace

NpyReader::NpyReader(std::unique_ptr<ByteSource> source, NpyHeader header)
    : source_(std::move(source)), header_(std::move(header)) {}

absl::StatusOr<std::unique_ptr<NpyReader>> NpyReader::Open(std::unique_ptr<ByteSource> source) {
  // Looks at little first, so that a slow pipe is not waited for.
  for (int64_t n = 128;; n = std::min(2 * n, kMaxNpyHeader)) {
    absl::StatusOr<absl::Span<const uint8_t>> start = source->Peek(n);
    if (!start.ok()) return start.status();
    absl::StatusOr<NpyHeader> header = ParseNpyHeader(*start);
    if (absl::IsOutOfRange(header.status()) && static_cast<int64_t>(start->size()) == n &&
        n < kMaxNpyHeader) {
      continue;
    }
    if (!header.ok()) return Named(source->name(), header.status());
    std::vector<uint8_t> skipped(header->data_offset);
    absl::StatusOr<int64_t> got = source->Read(absl::MakeSpan(skipped));
    if (!got.ok()) return got.status();
    std::unique_ptr<NpyReader> reader(new NpyReader(std::move(source), *std::move(header)));
    if (reader->header_.elements() == 0) {
      absl::Status end = reader->CheckEnd();
      if (!end.ok()) return end;
    }
    return reader;
  }
}

absl::Status NpyReader::CheckEnd() {
  absl::StatusOr<absl::Span<const uint8_t>> rest = source_->Peek(1);
  if (!rest.ok()) return rest.status();
  if (rest->empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name(), ": bytes follow the ", header_.elements(),
                                                 " elements of shape ",
                                                 ShapeString(header_.shape)));
}

absl::StatusOr<int64_t> NpyReader::ReadElements(void* out, int64_t count) {
  const int64_t size = ByteSize(header_.type);
  count = std::min(count, header_.elements() - read_);
  if (count == 0) return 0;
  absl::StatusOr<int64_t> got =
      source_->Read(absl::Span<uint8_t>(static_cast<uint8_t*>(out), count * size));
  if (!got.ok()) return got.status();
  if (*got < count * size) {
    return absl::DataLossError(absl::StrCat(name(), ": the data ends after ", read_ + *got / size,
                                            " of ", header_.elements(), " elements of shape ",
                                            ShapeString(header_.shape)));
  }
  read_ += count;
  if (read_ == header_.elements()) {
    absl::Status end = CheckEnd();
    if (!end.ok()) return end;
  }
  return count;
}

absl::StatusOr<int64_t> NpyReader::ReadFloats(absl::Span<float> out) {
  assert(header_.type == NpyType::kFloat32);
  return ReadElements(out.data(), static_cast<int64_t>(out.size()));
}

absl::StatusOr<int64_t> NpyReader::ReadIds(absl::Span<int32_t> out) {
  assert(header_.type != NpyType::kFloat32);
  const int64_t count = static_cast<int64_t>(out.size());
  if (header_.type == NpyType::kInt32) return ReadElements(out.data(), count);
  std::vector<int64_t> wide(std::min(count, kIdsAtOnce));
  int64_t done = 0;
  while (done < count) {
    const int64_t first = read_;
    absl::StatusOr<int64_t> got =
        ReadElements(wide.data(), std::min<int64_t>(count - done, wide.size()));
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    for (int64_t i = 0; i < *got; ++i) {
      const int32_t narrow = static_cast<int32_t>(wide[i]);
      if (narrow != wide[i]) {
        return absl::OutOfRangeError(
            absl::StrCat(name(), ": id ", wide[i], " at element ", first + i, " is beyond int32"));
      }
      out[done + i] = narrow;
    }
    done += *got;
  }
  return done;
}

NpyWriter::NpyWriter(std::unique_ptr<AtomicFile> file, NpyType type)
    : file_(std::move(file)), type_(type) {}

absl::StatusOr<std::unique_ptr<NpyWriter>> NpyWriter::Create(const std::string& path,
                                                             NpyType type) {
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const std::vector<uint8_t> room(kWrittenNpyHeader);
  absl::Status wrote = (*file)->Append(room);
  if (!wrote.ok()) return wrote;
  return std::unique_ptr<NpyWriter>(new NpyWriter(*std::move(file), type));
}

absl::StatusOr<std::unique_ptr<NpyWriter>> NpyWriter::InKept(std::unique_ptr<AtomicFile> file,
                                                             NpyType type, int64_t elements) {
  absl::Status status =
      file->Restart(elements == 0 ? 0 : kWrittenNpyHeader + elements * ByteSize(type));
  const std::vector<uint8_t> room(kWrittenNpyHeader);
  if (status.ok() && elements == 0) status = file->Append(room);
  if (!status.ok()) return status;
  std::unique_ptr<NpyWriter> writer(new NpyWriter(std::move(file), type));
  writer->elements_ = elements;
  return writer;
}

absl::Status NpyWriter::CheckPipe(size_t bytes) const {
  if (file_->seekable() || file_->size() + static_cast<int64_t>(bytes) <= AtomicFile::kBufferSize) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      file_->path(), ": an array to a pipe or device is limited to ", AtomicFile::kBufferSize,
      " bytes, since its header is written last: name a file"));
}

absl::Status NpyWriter::Append(absl::Span<const float> values) {
  assert(type_ == NpyType::kFloat32);
  elements_ += static_cast<int64_t>(values.size());
  absl::Status fits = CheckPipe(values.size() * sizeof(values[0]));
  if (!fits.ok()) return fits;
  return file_->Append(absl::Span<const uint8_t>(reinterpret_cast<const uint8_t*>(values.data()),
                                                 values.size() * sizeof(float)));
}

absl::Status NpyWriter::Append(absl::Span<const int32_t> values) {
  assert(type_ == NpyType::kInt32);
  elements_ += static_cast<int64_t>(values.size());
  absl::Status fits = CheckPipe(values.size() * sizeof(values[0]));
  if (!fits.ok()) return fits;
  return file_->Append(absl::Span<const uint8_t>(reinterpret_cast<const uint8_t*>(values.data()),
                                                 values.size() * sizeof(int32_t)));
}

absl::Status NpyWriter::Commit(const std::vector<int64_t>& shape, const std::string& final_path) {
  absl::StatusOr<std::string> header = FormatNpyHeader(type_, shape, kWrittenNpyHeader);
  if (!header.ok()) return Named(file_->path(), header.status());
  absl::StatusOr<NpyHeader> parsed = ParseNpyHeader(
      absl::Span<const uint8_t>(reinterpret_cast<const uint8_t*>(header->data()), header->size()));
  if (!parsed.ok()) return Named(file_->path(), parsed.status());
  if (parsed->elements() != elements_) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": shape ", ShapeString(shape),
                                                   " is of ", parsed->elements(), " elements; ",
                                                   elements_, " were appended"));
  }
  absl::Status wrote = file_->WriteAt(
      0,
      absl::Span<const uint8_t>(reinterpret_cast<const uint8_t*>(header->data()), header->size()));
  if (!wrote.ok()) return wrote;
  return file_->Commit(final_path);
}

}  // namespace longwave

#include "formats/resume_point.h"

#include "absl/strings/str_cat.h"
#include "formats/byte_codec.h"
#include "formats/sha256.h"

namespace longwave {
namespace {

constexpr absl::string_view kMagic = "LWRESUM1";
constexpr uint64_t kLeastSequence = 4 + 8 + 1 + 8 + 4 + 8 + 8;

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a point to go on from: ", what));
}

}  // namespace

absl::StatusOr<std::string> FormatResumePoint(const ResumePoint& point) {
  const absl::StatusOr<std::string> boundary = FormatBoundary(point.boundary);
  if (!boundary.ok()) return boundary.status();
  ByteWriter out;
  out.PutRaw(kMagic);
  out.PutString(point.identity);
  out.Put(static_cast<uint32_t>(point.done.size()));
  for (const ResumeSequence& sequence : point.done) {
    out.PutString(sequence.name);
    out.Put(sequence.tokens);
    out.Put(static_cast<uint8_t>(sequence.mean_nats.has_value()));
    out.Put(sequence.mean_nats.value_or(0));
    out.PutString(sequence.output);
    out.Put(sequence.output_bytes);
    out.Put(sequence.output_mtime_ns);
  }
  out.PutString(point.done_digest);
  out.PutString(point.digest);
  out.Put(point.elements);
  out.PutString(point.output_digest);
  out.PutRaw(*boundary);
  std::string bytes = out.Take();
  Sha256 hash;
  hash.Add(bytes);
  return bytes + hash.Digest();
}

absl::StatusOr<ResumePoint> ParseResumePoint(absl::string_view bytes) {
  if (bytes.size() < kMagic.size() + Sha256::kBytes || bytes.substr(0, kMagic.size()) != kMagic) {
    return Bad("it does not start as one");
  }
  const absl::string_view body = bytes.substr(0, bytes.size() - Sha256::kBytes);
  Sha256 hash;
  hash.Add(body);
  if (hash.Digest() != bytes.substr(body.size())) {
    return absl::DataLossError("a point to go on from: its checksum is not that of its bytes");
  }
  ByteReader reader(body.substr(kMagic.size()));
  ResumePoint point;
  point.identity = reader.GetString();
  const uint32_t count = reader.Get<uint32_t>();
  if (count > reader.left() / kLeastSequence) return Bad("more sequences than bytes");
  for (uint32_t i = 0; i < count; ++i) {
    ResumeSequence& sequence = point.done.emplace_back();
    sequence.name = reader.GetString();
    sequence.tokens = reader.Get<int64_t>();
    const uint8_t has_nats = reader.Get<uint8_t>();
    const double nats = reader.Get<double>();
    if (has_nats > 1 || sequence.tokens < 0) return Bad(absl::StrCat("sequence ", i));
    if (has_nats == 1) sequence.mean_nats = nats;
    sequence.output = reader.GetString();
    sequence.output_bytes = reader.Get<int64_t>();
    sequence.output_mtime_ns = reader.Get<int64_t>();
  }
  point.done_digest = reader.GetString();
  point.digest = reader.GetString();
  point.elements = reader.Get<int64_t>();
  point.output_digest = reader.GetString();
  if (!reader.status().ok()) return Bad(reader.status().message());
  if (point.elements < 0) return Bad(absl::StrCat(point.elements, " elements"));
  absl::StatusOr<Boundary> boundary = ParseBoundary(reader.GetRaw(reader.left()));
  if (!boundary.ok()) return boundary.status();
  point.boundary = *std::move(boundary);
  return point;
}

}  // namespace longwave

#include "scheduler/s3/writer.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "scheduler/s3/xml.h"

namespace longwave {
namespace {

constexpr char kMark[] = "x-amz-meta-longwave-upload";
constexpr int64_t kAbortMs = 5000;  // what is left of an upload is swept later
constexpr size_t kPartsOfOneSize = 1000;
constexpr size_t kMostPart = size_t{1} << 30;

std::string RandomMark() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8),
                      absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

}  // namespace

S3Writer::~S3Writer() {
  if (upload_.empty()) return;
  S3Request request{"DELETE", key_, {{"uploadId", upload_}}};
  request.total_ms = kAbortMs;
  (void)client_.Send(request);
}

size_t S3Writer::PartBytes() const {
  const size_t doublings = std::min<size_t>(etags_.size() / kPartsOfOneSize, 10);
  return std::min(static_cast<size_t>(client_.config().part_bytes) << doublings, kMostPart);
}

absl::Status S3Writer::Append(absl::string_view bytes) {
  hash_.Add(bytes);
  bytes_ += static_cast<int64_t>(bytes.size());
  while (status_.ok() && !bytes.empty()) {
    // A full part waits for a byte after it: it might have been the whole object.
    if (buffer_.size() == PartBytes()) status_ = SendPart();
    const size_t count = std::min(bytes.size(), PartBytes() - buffer_.size());
    buffer_.append(bytes.data(), count);
    bytes.remove_prefix(count);
  }
  return status_;
}

absl::StatusOr<ObjectInfo> S3Writer::Commit() {
  const std::string sha256 = hash_.HexDigest();
  if (status_.ok()) {
    if (upload_.empty()) {
      status_ = SendWhole(sha256);
    } else {
      status_ = SendPart();
      if (status_.ok()) status_ = Complete();
    }
  }
  if (!status_.ok()) return status_;
  upload_.clear();
  return ObjectInfo{bytes_, sha256};
}

absl::Status S3Writer::SendWhole(const std::string& sha256) {
  S3Request request{"PUT", key_};
  request.body = buffer_;
  request.body_sha256 = sha256;
  return client_.Send(request).status();
}

absl::Status S3Writer::StartUpload() {
  mark_ = RandomMark();
  const absl::StatusOr<S3Response> response =
      client_.Send({"POST", key_, {{"uploads", ""}}, {{kMark, mark_}}});
  if (!response.ok()) return response.status();
  const absl::StatusOr<XmlElement> answer = ParseXml(response->body);
  if (answer.ok()) upload_ = answer->ChildText("UploadId");
  if (!upload_.empty()) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat(key_, ": the store began an upload without an id"));
}

absl::Status S3Writer::SendPart() {
  if (upload_.empty()) {
    absl::Status started = StartUpload();
    if (!started.ok()) return started;
  }
  S3Request request{"PUT", key_};
  request.query = {{"partNumber", absl::StrCat(etags_.size() + 1)}, {"uploadId", upload_}};
  request.body = buffer_;
  const absl::StatusOr<S3Response> response = client_.Send(request);
  if (!response.ok()) return response.status();
  etags_.push_back(response->Header("etag"));
  if (etags_.back().empty()) {
    return absl::UnknownError(
        absl::StrCat(key_, ": the store took part ", etags_.size(), " without an ETag"));
  }
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status S3Writer::Complete() {
  std::string parts = "<CompleteMultipartUpload>";
  for (size_t i = 0; i < etags_.size(); ++i) {
    absl::StrAppend(&parts, "<Part><PartNumber>", i + 1, "</PartNumber><ETag>",
                    EscapeXml(etags_[i]), "</ETag></Part>");
  }
  absl::StrAppend(&parts, "</CompleteMultipartUpload>");
  S3Request request{"POST", key_, {{"uploadId", upload_}}};
  request.body = parts;
  absl::Status completed = client_.Send(request).status();
  // The answer to an attempt before may have been lost: then there is no such upload any more.
  if (absl::IsNotFound(completed) && IsThere()) return absl::OkStatus();
  return completed;
}

bool S3Writer::IsThere() {
  const absl::StatusOr<S3Response> head = client_.Send({"HEAD", key_});
  return head.ok() && head->Header(kMark) == mark_;
}

}  // namespace longwave

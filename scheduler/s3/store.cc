#include "scheduler/s3/store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "scheduler/s3/client.h"
#include "scheduler/s3/writer.h"
#include "scheduler/s3/xml.h"

namespace longwave {
namespace {

// "2026-11-25T04:24:46.000Z"; 0 where it is no time.
int64_t ParseMs(const std::string& text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return 0;
  return absl::ToUnixMillis(time);
}

// "bytes 8-15/100"
struct ContentRange {
  int64_t first = 0, last = 0, size = 0;

  static bool Parse(const std::string& header, ContentRange& range) {
    const std::vector<std::string> parts = absl::StrSplit(header, absl::ByAnyChar(" -/"));
    return parts.size() == 4 && parts[0] == "bytes" && absl::SimpleAtoi(parts[1], &range.first) &&
           absl::SimpleAtoi(parts[2], &range.last) && absl::SimpleAtoi(parts[3], &range.size) &&
           range.first >= 0 && range.last >= range.first && range.size > range.last;
  }
};

class S3Store final : public ObjectStore {
 public:
  explicit S3Store(S3Config config) : client_(std::move(config)), uri_(client_.config().uri()) {}

  // One name, of whatever is there.
  absl::Status Check() {
    return client_.Send({"GET", "", {{"list-type", "2"}, {"max-keys", "1"}, {"prefix", Key("")}}})
        .status();
  }

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    return std::make_unique<S3Writer>(client_, Key(name));
  }

  absl::StatusOr<std::string> Read(const std::string& name, int64_t offset,
                                   int64_t count) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    std::string bytes;
    if (offset < 0 || count <= 0) return AtTheEnd(name, offset, count);
    while (static_cast<int64_t>(bytes.size()) < count) {
      const int64_t begin = offset + static_cast<int64_t>(bytes.size());
      const int64_t wanted = std::min(offset + count - begin, client_.config().part_bytes);
      S3Request request{"GET", Key(name)};
      request.headers = {{"Range", absl::StrCat("bytes=", begin, "-", begin + wanted - 1)}};
      request.most_bytes = wanted;
      absl::StatusOr<S3Response> response = client_.Send(request);
      if (absl::IsOutOfRange(response.status()) && bytes.empty()) {
        return AtTheEnd(name, offset, count);
      }
      if (!response.ok()) return response.status();
      ContentRange range;
      if (response->status != 206 ||
          !ContentRange::Parse(response->Header("content-range"), range) || range.first != begin ||
          range.last - range.first + 1 != static_cast<int64_t>(response->body.size())) {
        return absl::DataLossError(absl::StrCat(
            name, ": asked for ", wanted, " bytes at ", begin, ", got HTTP ", response->status,
            ", \"", response->Header("content-range"), "\" and ", response->body.size(), " bytes"));
      }
      if (bytes.empty()) {
        bytes = std::move(response->body);
        if (wanted < count) bytes.reserve(std::min(count, range.size - offset));
      } else {
        bytes += response->body;
      }
      if (range.last + 1 == range.size) break;
    }
    return bytes;
  }

  absl::StatusOr<int64_t> Size(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    const absl::StatusOr<S3Response> head = client_.Send({"HEAD", Key(name)});
    if (!head.ok()) return head.status();
    int64_t size = 0;
    if (!absl::SimpleAtoi(head->Header("content-length"), &size) || size < 0) {
      return absl::UnknownError(absl::StrCat(name, ": the store tells no size"));
    }
    return size;
  }

  absl::Status Delete(const std::string& name) override {
    absl::Status good = CheckObjectName(name);
    if (!good.ok()) return good;
    return Gone(client_.Send({"DELETE", Key(name)}).status());
  }

  absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<ListedObject> objects;
    good = ListAll({{"prefix", Key(folder) + "/"}}, [&](const XmlElement& element) {
      ListedObject object;
      if (element.name != "Contents" || !Name(element.ChildText("Key"), object.name)) return;
      if (!absl::SimpleAtoi(element.ChildText("Size"), &object.bytes)) return;
      object.modified_ms = ParseMs(element.ChildText("LastModified"));
      objects.push_back(std::move(object));
    });
    if (!good.ok()) return good;
    return objects;
  }

  absl::StatusOr<std::vector<std::string>> ListFolders(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<std::string> folders;
    const std::string above = Key(folder) + "/";
    good = ListAll({{"prefix", above}, {"delimiter", "/"}}, [&](const XmlElement& element) {
      if (element.name != "CommonPrefixes") return;
      const std::string prefix = element.ChildText("Prefix");
      absl::string_view part = prefix;
      if (absl::ConsumePrefix(&part, above) && absl::ConsumeSuffix(&part, "/") &&
          CheckObjectName(part).ok()) {
        folders.emplace_back(part);
      }
    });
    if (!good.ok()) return good;
    return folders;
  }

  absl::StatusOr<std::vector<PartialObject>> ListPartial(const std::string& folder) override {
    absl::Status good = CheckObjectName(folder);
    if (!good.ok()) return good;
    std::vector<PartialObject> found;
    std::map<std::string, std::string> query = {
        {"uploads", ""},
        {"prefix", Key(folder) + "/"},
        {"max-uploads", absl::StrCat(client_.config().list_page)}};
    while (true) {
      const absl::StatusOr<XmlElement> page = Page(query, "ListMultipartUploadsResult");
      if (!page.ok()) return page.status();
      for (const XmlElement& element : page->children) {
        PartialObject partial;
        if (element.name != "Upload" || !Name(element.ChildText("Key"), partial.name)) continue;
        partial.upload = element.ChildText("UploadId");
        partial.modified_ms = ParseMs(element.ChildText("Initiated"));
        found.push_back(std::move(partial));
      }
      if (page->ChildText("IsTruncated") != "true") return found;
      const std::string key = page->ChildText("NextKeyMarker");
      const std::string upload = page->ChildText("NextUploadIdMarker");
      if (key.empty() || (key == query["key-marker"] && upload == query["upload-id-marker"])) {
        return NoNextPage();
      }
      query["key-marker"] = key;
      query["upload-id-marker"] = upload;
    }
  }

  absl::Status DeletePartial(const PartialObject& partial) override {
    absl::Status good = CheckObjectName(partial.name);
    if (good.ok() && partial.upload.empty()) {
      good = absl::InvalidArgumentError(partial.name + ": is whole");
    }
    if (!good.ok()) return good;
    return Gone(
        client_.Send({"DELETE", Key(partial.name), {{"uploadId", partial.upload}}}).status());
  }

  const std::string& uri() const override { return uri_; }

 private:
  std::string Key(const std::string& name) const {
    const std::string& prefix = client_.config().prefix;
    return prefix.empty() ? name : absl::StrCat(prefix, "/", name);
  }

  // The name of a key of ours; false where it is another's.
  bool Name(const std::string& key, std::string& name) const {
    absl::string_view rest = key;
    if (!absl::ConsumePrefix(&rest, Key("")) || !CheckObjectName(rest).ok()) return false;
    name = std::string(rest);
    return true;
  }

  static absl::Status Gone(const absl::Status& status) {
    return absl::IsNotFound(status) ? absl::OkStatus() : status;
  }

  // Nothing was asked for, or S3 says that nothing is there.
  absl::StatusOr<std::string> AtTheEnd(const std::string& name, int64_t offset, int64_t count) {
    const absl::StatusOr<int64_t> size = Size(name);
    if (!size.ok()) return size.status();
    if (offset >= 0 && count >= 0 && offset <= *size) return std::string();
    return absl::OutOfRangeError(
        absl::StrCat(name, ": ", count, " bytes at ", offset, " of ", *size));
  }

  absl::Status NoNextPage() const {
    return absl::UnknownError(absl::StrCat(uri_, ": a list that goes on, but not where"));
  }

  absl::StatusOr<XmlElement> Page(const std::map<std::string, std::string>& query,
                                  absl::string_view root) {
    const absl::StatusOr<S3Response> response = client_.Send({"GET", "", query});
    if (!response.ok()) return response.status();
    absl::StatusOr<XmlElement> page = ParseXml(response->body);
    if (!page.ok()) return absl::UnknownError(absl::StrCat(uri_, ": ", page.status().message()));
    if (page->name != root) {
      return absl::UnknownError(absl::StrCat(uri_, ": answers with \"", page->name, "\""));
    }
    return page;
  }

  template <typename Take>
  absl::Status ListAll(std::map<std::string, std::string> query, const Take& take) {
    query["list-type"] = "2";
    query["max-keys"] = absl::StrCat(client_.config().list_page);
    while (true) {
      const absl::StatusOr<XmlElement> page = Page(query, "ListBucketResult");
      if (!page.ok()) return page.status();
      for (const XmlElement& element : page->children) take(element);
      if (page->ChildText("IsTruncated") != "true") return absl::OkStatus();
      const std::string next = page->ChildText("NextContinuationToken");
      if (next.empty() || next == query["continuation-token"]) return NoNextPage();
      query["continuation-token"] = next;
    }
  }

  S3Client client_;
  const std::string uri_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenS3Store(S3Config config) {
  auto store = std::make_unique<S3Store>(std::move(config));
  absl::Status checked = store->Check();
  if (!checked.ok()) {
    return absl::Status(checked.code(),
                        absl::StrCat("object store ", store->uri(), ": ", checked.message()));
  }
  return store;
}

absl::StatusOr<std::unique_ptr<ObjectStore>> OpenS3Store(const std::string& uri,
                                                         int64_t patience_ms) {
  absl::StatusOr<S3Config> config = ReadS3Config(uri, EnvironmentVariable);
  if (!config.ok()) return config.status();
  config->total_ms = patience_ms;
  return OpenS3Store(*std::move(config));
}

}  // namespace longwave

// Uploaded files.
#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "scheduler/protocol/messages.h"
#include "services/cluster/api.h"
#include "services/cluster/planner.h"

namespace longwave {
namespace {

constexpr size_t kMostName = 255;

boost::json::object ToJson(const StoredFile& file) {
  return {{"id", file.id},         {"name", file.name},     {"bytes", file.bytes},
          {"sha256", file.sha256}, {"tenant", file.tenant}, {"created_ms", file.created_ms}};
}

}  // namespace

absl::Status Upload::Append(absl::string_view bytes) {
  file_.bytes += static_cast<int64_t>(bytes.size());
  if (most_bytes_ > 0 && file_.bytes > most_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("files of tenant ", Quoted(file_.tenant),
                                                     ": may have ", most_bytes_, " more bytes"));
  }
  return OfObjects(writer_->Append(bytes));
}

Api::Answer Api::NoUpload(const Call& call) {
  return absl::InternalError("an upload is a stream");  // the listener takes StartUpload()
}

absl::StatusOr<Upload> Api::StartUpload(const ApiRequest& request, std::optional<int64_t> bytes) {
  const Match match = FindRoute(request);
  if (match.route == nullptr) return absl::InvalidArgumentError("target: is not an upload's");
  const absl::StatusOr<Call> call = Admit(request, match);
  if (!call.ok()) return call.status();
  Upload upload;
  StoredFile& file = upload.file_;
  file.id = NewId();
  file.tenant = call->who.tenant;
  file.name = QueryText(call->query, "name");
  // It is a label, and what tells .fa from .txt; it never becomes a path.
  if (file.name.size() > kMostName || !IsPlainText(file.name) ||
      file.name.find('/') != std::string::npos) {
    return Bad("name", Quoted(file.name),
               absl::StrCat("a file's name without '/' and control characters, of at most ",
                            kMostName, " bytes"));
  }
  const absl::StatusOr<Tenant> tenant = jobs_.GetTenant(file.tenant);
  if (tenant.ok() && tenant->most_bytes > 0) {
    upload.most_bytes_ = tenant->most_bytes;
    if (bytes.value_or(0) > tenant->most_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("files of tenant ", Quoted(file.tenant), ": ", *bytes,
                       " bytes are more than its quota of ", tenant->most_bytes));
    }
  } else if (!tenant.ok() && !absl::IsNotFound(tenant.status())) {
    return tenant.status();
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = objects_.Create(FileName(file.id));
  if (!writer.ok()) return OfObjects(writer.status());
  upload.writer_ = *std::move(writer);
  return upload;
}

ApiResponse Api::FinishUpload(Upload upload) {
  Match match;
  for (const Route& route : Routes()) {
    if (route.handler == &Api::NoUpload) match.route = &route;
  }
  return Timed(match, [&] {
    StoredFile& file = upload.file_;
    const absl::StatusOr<ObjectInfo> written = upload.writer_->Commit();
    if (!written.ok()) return Problem(OfObjects(written.status()));
    file.bytes = written->bytes;
    file.sha256 = written->sha256;
    file.created_ms = WallClockMs();
    const absl::Status added = jobs_.AddFile(file);
    if (!added.ok()) {
      LeftOver(objects_.Delete(FileName(file.id)));
      return Problem(added);
    }
    ApiResponse response = JsonResponse(201, ToJson(file));
    response.headers.emplace_back("Location", absl::StrCat("/v1/files/", file.id));
    return response;
  });
}

absl::StatusOr<StoredFile> Api::FindFile(const Call& call, const std::string& id) {
  if (CouldBeId(id)) {
    absl::StatusOr<StoredFile> file = jobs_.GetFile(id);
    if (!absl::IsNotFound(file.status()) && (!file.ok() || call.who.MaySee(file->tenant))) {
      return file;
    }
  }
  return absl::NotFoundError(absl::StrCat("there is no file ", Quoted(id)));
}

Api::Answer Api::ListFiles(const Call& call) {
  const absl::StatusOr<Page> page = AskedPage(call, "files");
  if (!page.ok()) return page.status();
  const absl::StatusOr<std::vector<StoredFile>> files =
      jobs_.ListFiles(page->tenant, page->before, page->limit);
  if (!files.ok()) return files.status();
  boost::json::array list;
  for (const StoredFile& file : *files) list.push_back(ToJson(file));
  return page->Answer(std::move(list), files->empty() ? 0 : files->back().number);
}

Api::Answer Api::GetFile(const Call& call) {
  const absl::StatusOr<StoredFile> file = FindFile(call, call.ids[0]);
  if (!file.ok()) return file.status();
  return JsonResponse(200, ToJson(*file));
}

Api::Answer Api::DeleteFile(const Call& call) {
  const absl::StatusOr<StoredFile> file = FindFile(call, call.ids[0]);
  if (!file.ok()) return file.status();
  absl::Status status = jobs_.DeleteFile(file->id);
  if (!status.ok()) return status;
  LeftOver(objects_.Delete(FileName(file->id)));
  ApiResponse response;
  response.status = 204;
  return response;
}

}  // namespace longwave

#include "services/output_files.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace longwave {

std::string SafeName(const std::string& record) {
  std::string name = record;
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') {
      c = '_';
    }
  }
  return name;
}

std::string RecordPath(const std::string& path, const std::string& record,
                       const std::string& extension) {
  if (!extension.empty()) {
    return absl::StrCat(absl::StripSuffix(path, extension), ".", SafeName(record), extension);
  }
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  size_t dot = path.rfind('.');
  if (dot == std::string::npos || dot <= name) dot = path.size();  // none, or a hidden file's
  return absl::StrCat(path.substr(0, dot), ".", SafeName(record), path.substr(dot));
}

absl::StatusOr<OutputFiles> OutputFiles::Open(const std::string& path, Kind kind,
                                              std::vector<std::string> inputs, bool kept) {
  OutputFiles files;
  files.kept_ = kept && !path.empty() && kind != Kind::kBytes;
  files.path_ = path;
  files.kind_ = kind;
  files.inputs_ = std::move(inputs);
  absl::Status created = files.CheckNotAnInput(path);
  if (created.ok()) created = files.Create();
  if (!created.ok()) return created;
  return files;
}

absl::Status OutputFiles::CheckNotAnInput(const std::string& path) const {
  struct stat output = {}, input = {};
  if (stat(path.c_str(), &output) != 0 || !S_ISREG(output.st_mode)) return absl::OkStatus();
  for (const std::string& name : inputs_) {
    if (stat(name.c_str(), &input) == 0 && input.st_dev == output.st_dev &&
        input.st_ino == output.st_ino) {
      return absl::InvalidArgumentError(
          absl::StrCat("the output ", path, " would overwrite ", name, ", which this run reads"));
    }
  }
  return absl::OkStatus();
}

absl::Status OutputFiles::Create() {
  if (path_.empty()) return absl::OkStatus();
  if (kind_ == Kind::kBytes) {
    absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path_);
    if (file.ok()) bytes_ = *std::move(file);
    return file.status();
  }
  if (kept_) {
    absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::CreateKept(path_);
    kept_ = file.ok();
    if (kept_) {
      untouched_ = *std::move(file);
      return absl::OkStatus();
    }
  }
  absl::StatusOr<std::unique_ptr<NpyWriter>> file = NpyWriter::Create(path_, Type());
  if (file.ok()) array_ = *std::move(file);
  return file.status();
}

NpyType OutputFiles::Type() const {
  return kind_ == Kind::kFloats ? NpyType::kFloat32 : NpyType::kInt32;
}

const std::string& OutputFiles::temporary() const { return untouched_->temporary(); }

absl::Status OutputFiles::TakeUp(const std::vector<std::string>& committed, int64_t elements) {
  committed_ = committed;
  names_.insert(committed.begin(), committed.end());
  if (untouched_ == nullptr) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<NpyWriter>> file =
      NpyWriter::InKept(std::move(untouched_), Type(), elements);
  if (file.ok()) array_ = *std::move(file);
  return file.status();
}

absl::StatusOr<int64_t> OutputFiles::Flush() {
  absl::Status flushed = array_->file().Flush();
  if (!flushed.ok()) return flushed;
  return array_->elements();
}

void OutputFiles::Keep() {
  if (array_ != nullptr) array_->file().Keep();
}

std::string OutputFiles::FinalPath(bool several) const {
  if (!several) return path_;
  return RecordPath(path_, record_, kind_ == Kind::kBytes ? "" : ".npy");
}

absl::Status OutputFiles::Begin(const std::string& record) {
  record_ = record;
  if (path_.empty()) return absl::OkStatus();
  if (names_.count(FinalPath(true)) != 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("record \"", record, "\" would overwrite ", FinalPath(true),
                     ", the output of a record before it: give the records different names"));
  }
  absl::Status free = CheckNotAnInput(FinalPath(true));
  if (!free.ok()) return free;
  if (array_ == nullptr && bytes_ == nullptr && untouched_ == nullptr) {
    absl::Status created = Create();
    if (!created.ok()) return created;
  }
  return untouched_ != nullptr ? TakeUp(committed_, 0) : absl::OkStatus();
}

absl::Status OutputFiles::Append(absl::Span<const float> values) {
  return path_.empty() ? absl::OkStatus() : array_->Append(values);
}

absl::Status OutputFiles::Append(int32_t token) {
  if (path_.empty()) return absl::OkStatus();
  if (kind_ == Kind::kIds) return array_->Append(absl::Span<const int32_t>(&token, 1));
  const uint8_t byte = static_cast<uint8_t>(token);
  return bytes_->Append({&byte, 1});
}

absl::StatusOr<std::string> OutputFiles::Commit(const std::vector<int64_t>& shape, bool several) {
  if (path_.empty()) return std::string();
  const std::string path = FinalPath(several);
  // An empty name is the writers' word for the one they were created with, a link followed.
  const std::string name = several ? path : "";
  absl::Status status = kind_ == Kind::kBytes ? bytes_->Commit(name) : array_->Commit(shape, name);
  if (!status.ok()) return status;
  array_.reset();
  bytes_.reset();
  committed_.push_back(path);
  names_.insert(path);
  return path;
}

}  // namespace longwave

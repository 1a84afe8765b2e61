#include "services/cluster/model_catalog.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "scheduler/object_store.h"
#include "services/cluster/model_hash.h"
#include "services/text.h"

namespace longwave {
namespace {

std::string Stamp(const std::string& folder) {
  std::string stamp;
  for (const char* file : {"/config.json", "/model.safetensors"}) {
    struct stat info = {};
    stat((folder + file).c_str(), &info);
    absl::StrAppend(&stamp, info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec, ".",
                    info.st_mtim.tv_nsec, " ");
  }
  return stamp;
}

}  // namespace

std::vector<std::string> ModelCatalog::Names() const {
  std::vector<std::string> names;
  std::error_code code;
  for (std::filesystem::directory_iterator it(folder_, code), end; !code && it != end;
       it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (CheckObjectName(name).ok() && std::filesystem::exists(it->path() / "config.json", code)) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool ModelCatalog::Has(const std::string& name) const {
  std::error_code code;
  return CheckObjectName(name).ok() && name.find('/') == std::string::npos &&
         std::filesystem::exists(folder_ + "/" + name + "/config.json", code);
}

absl::StatusOr<ModelEntry> ModelCatalog::Find(const std::string& name) {
  if (!Has(name)) {
    const std::vector<std::string> names = Names();
    return absl::InvalidArgumentError(
        absl::StrCat("model \"", ToUtf8(name.substr(0, 200)), "\": ",
                     names.empty() ? "the server has no models"
                                   : absl::StrCat("must be one of ", absl::StrJoin(names, ", "))));
  }
  const std::string folder = absl::StrCat(folder_, "/", name);
  const std::string stamp = Stamp(folder);
  const std::lock_guard<std::mutex> lock(mutex_);
  Known& known = known_[name];
  if (known.stamp == stamp) return known.entry;
  absl::StatusOr<ModelConfig> config = LoadModelConfig(folder + "/config.json");
  if (!config.ok()) return config.status();
  absl::StatusOr<std::string> hash = ModelHash(folder);
  if (!hash.ok()) return hash.status();
  std::error_code code;
  const auto bytes = std::filesystem::file_size(folder + "/model.safetensors", code);
  known = {stamp, {*std::move(config), *std::move(hash), code ? 0 : static_cast<int64_t>(bytes)}};
  return known.entry;
}

}  // namespace longwave

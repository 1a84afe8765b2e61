// The models that a server offers: the folders of one folder.
//
// Thread safety: safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/config.h"

namespace longwave {

struct ModelEntry {
  ModelConfig config;
  std::string hash;
  int64_t bytes = 0;  // of its weights
};

class ModelCatalog {
 public:
  explicit ModelCatalog(std::string folder) : folder_(std::move(folder)) {}

  // InvalidArgument, naming the models that there are, for one that is not. The hash is computed
  // once as long as the files' sizes and times stay.
  absl::StatusOr<ModelEntry> Find(const std::string& name);
  std::vector<std::string> Names() const;
  bool Has(const std::string& name) const;
  const std::string& folder() const { return folder_; }

 private:
  struct Known {
    std::string stamp;  // of the files
    ModelEntry entry;
  };
  const std::string folder_;
  std::mutex mutex_;
  std::map<std::string, Known> known_;
};

}  // namespace longwave

#include "services/cluster/model_hash.h"

#include "formats/sha256.h"

namespace longwave {

absl::StatusOr<std::string> ModelHash(const std::string& folder) {
  std::string hashes;
  for (const char* file : {"/config.json", "/model.safetensors"}) {
    const absl::StatusOr<std::string> hash = HexSha256OfFile(folder + file);
    if (!hash.ok()) return hash.status();
    hashes += *hash;
  }
  return HexSha256(hashes);
}

}  // namespace longwave

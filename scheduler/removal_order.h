// Which workers Kubernetes would remove first, as a ReplicaSet ranks its pods that run: of two
// whose ages have different binary logarithms the younger, else the one whose uid comes first. Work
// goes to those that would go last, so that where there is less work than workers a pool that
// shrinks loses idle ones. (Pods that share a node with others of their pool are removed before
// those that do not; that is not known here.)
//
// Thread safety: plain data and a pure function.
#pragma once

#include <cstdint>
#include <string>

namespace longwave {

struct RemovalRank {
  int64_t started_ms = 0;
  std::string uid;
};

bool RemovedBefore(const RemovalRank& a, const RemovalRank& b, int64_t now_ms);

}  // namespace longwave

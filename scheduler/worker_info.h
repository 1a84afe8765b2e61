// A worker as the scheduler knows it: for people and metrics.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/job_store.h"

namespace longwave {

struct WorkerInfo {
  std::string name, device;
  int64_t slots = 0;             // chunks at a time; 0: it leaves
  std::vector<ChunkKey> chunks;  // leased to it, oldest first
  int64_t seen_ms = 0;           // when it last spoke
  int64_t tokens = 0;            // committed
  double tokens_per_second = 0;  // while it was at them; 0: none yet

  const char* state() const { return slots == 0 ? "draining" : chunks.empty() ? "idle" : "busy"; }
};

}  // namespace longwave

// How a sequence is cut: chunk k of a sequence of L tokens covers [k c, min((k + 1) c, L)).
// A pure description; the same job always gets the same plan, and with it the same bytes.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace longwave {

struct ChunkRange {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t tokens() const { return end - begin; }
};

struct ChunkPlan {
  int64_t length = 0;  // tokens of the sequence, L
  int64_t chunk = 0;   // tokens of a chunk, c

  absl::Status Validate() const;
  std::string ToString() const;  // "1000000 tokens in 123 chunks of 8192, the last of 576"

  // REQUIRES for what follows: Validate().ok().
  int64_t count() const { return length / chunk + (length % chunk != 0); }
  int64_t last_tokens() const { return Range(count() - 1).tokens(); }
  // REQUIRES: 0 <= k < count().
  ChunkRange Range(int64_t k) const;
  // The chunk that holds token t. REQUIRES: 0 <= t < length.
  int64_t ChunkOf(int64_t t) const { return t / chunk; }
};

}  // namespace longwave

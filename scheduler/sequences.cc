#include "scheduler/sequences.h"

#include <algorithm>

namespace longwave {

int64_t PlaceSequences(int64_t chunk, std::vector<SequenceRow>& rows) {
  SequenceRow next;
  for (SequenceRow& row : rows) {
    row.number = next.number;
    row.first_chunk = next.first_chunk;
    row.first_token = next.first_token;
    next.number += row.repeats;
    next.first_chunk += row.repeats * row.chunks(chunk);
    next.first_token += row.repeats * row.given;
  }
  return next.first_chunk;
}

ChunkPlace PlaceOf(const SequenceRow& row, int64_t chunk, int64_t index) {
  const int64_t each = row.chunks(chunk), of_row = index - row.first_chunk;
  const int64_t first = of_row % each * chunk;
  return {row.number + of_row / each,
          first,
          std::min(chunk, row.length - first),
          row.length,
          row.given,
          row.first_token + of_row / each * row.given};
}

}  // namespace longwave

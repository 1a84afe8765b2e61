// The sequences of a job, and which of its chunks covers what. No chunk crosses a sequence: each
// sequence of n tokens has ceil(n / chunk) of its own, the first of which starts from nothing.
//
// Sequences of one length that follow each other are one row: a batch is one, whatever its size,
// and so is a job's only sequence.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longwave {

struct SequenceRow {
  std::string name;         // of a record, as a file's name has it; else empty
  int64_t repeats = 1;      // so many sequences
  int64_t length = 0;       // tokens of each; generate: with those that are made, but for the last
  int64_t given = 0;        // of these, in the token file
  int64_t number = 0;       // of the first, among the job's sequences
  int64_t first_chunk = 0;  // of the first
  int64_t first_token = 0;  // of the first, in the token file

  bool operator==(const SequenceRow&) const = default;
  int64_t chunks(int64_t chunk) const { return length / chunk + (length % chunk != 0); }
};

// Fills in what follows from the rows before: number, first_chunk and first_token. Returns how many
// chunks there are.
int64_t PlaceSequences(int64_t chunk, std::vector<SequenceRow>& rows);

struct ChunkPlace {
  int64_t sequence = 0;     // its number
  int64_t first = 0;        // the chunk's first token, in its sequence
  int64_t tokens = 0;       // of the chunk
  int64_t length = 0;       // of the sequence
  int64_t given = 0;        // of the sequence
  int64_t first_token = 0;  // of the sequence, in the token file

  bool operator==(const ChunkPlace&) const = default;
  bool ends() const { return first + tokens == length; }
};

// REQUIRES: the chunk of number `index` is one of the row's.
ChunkPlace PlaceOf(const SequenceRow& row, int64_t chunk, int64_t index);

}  // namespace longwave

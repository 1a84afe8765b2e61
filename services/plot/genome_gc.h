// The sequence a track was computed from, reduced to what a plot shows of it: its name and how many
// letters of each bin are G or C. Streams; memory depends on the number of bins.
//
// Thread safety: none. Errors: absl::Status with the path and the lengths found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longwave::plot {

struct GenomeGc {
  struct Count {
    int64_t gc = 0;
    int64_t acgt = 0;  // letters that are neither (N, R, Y, ...) count in no bin
  };
  std::string name;  // of the record, shortened to its accession where it is in NCBI's gi|...| form
  int64_t width = 1;
  std::vector<Count> bins;

  // The fraction of G and C in [begin, end) whole bins; negative where no letter is A, C, G or T.
  double Fraction(int64_t begin, int64_t end) const;
};

// The first record of `path` (FASTA, plain or gzip) that is `length` letters long.
absl::StatusOr<GenomeGc> ReadGenomeGc(const std::string& path, int64_t length, int64_t width);

}  // namespace longwave::plot

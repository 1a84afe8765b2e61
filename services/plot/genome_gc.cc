#include "services/plot/genome_gc.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "formats/token_input.h"

namespace longwave::plot {
namespace {

// "gi|110640213|ref|NC_008253.1|" is NC_008253.1; other names stand as they are.
std::string Accession(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '|', absl::SkipEmpty());
  return parts.size() > 1 ? parts.back() : name;
}

}  // namespace

double GenomeGc::Fraction(int64_t begin, int64_t end) const {
  Count sum;
  for (int64_t i = begin; i < std::min<int64_t>(end, bins.size()); ++i) {
    sum.gc += bins[i].gc;
    sum.acgt += bins[i].acgt;
  }
  return sum.acgt == 0 ? -1 : static_cast<double>(sum.gc) / static_cast<double>(sum.acgt);
}

absl::StatusOr<GenomeGc> ReadGenomeGc(const std::string& path, int64_t length, int64_t width) {
  auto input = TokenInput::Open(path, InputFormat::kAuto);
  if (!input.ok()) return input.status();
  if (!(*input)->tokens_are_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds token ids, not letters"));
  }
  std::vector<int32_t> tokens(1 << 16);
  std::vector<std::string> lengths;  // of the records that do not fit, for the message
  int64_t records = 0;
  while (true) {
    absl::StatusOr<bool> more = (*input)->NextSequence();
    if (!more.ok()) return more.status();
    if (!*more) break;
    GenomeGc genome;
    genome.width = width;
    genome.bins.resize((length - 1) / width + 1);
    int64_t position = 0;
    while (true) {
      absl::StatusOr<int64_t> n = (*input)->Read(absl::MakeSpan(tokens));
      if (!n.ok()) return n.status();
      if (*n == 0) break;
      for (int64_t i = 0; i < *n; ++i, ++position) {
        if (position >= length) continue;
        GenomeGc::Count& bin = genome.bins[position / width];
        const bool gc = tokens[i] == 'G' || tokens[i] == 'C';
        bin.gc += gc;
        bin.acgt += gc || tokens[i] == 'A' || tokens[i] == 'T';
      }
    }
    if (position == length) {
      genome.name = Accession((*input)->sequence().name);
      return genome;
    }
    if (++records <= 5) lengths.push_back(absl::StrCat(position));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": no record is as long as the track, ", length, "; found ",
                   absl::StrJoin(lengths, ", "),
                   records > 5 ? absl::StrCat(" and ", records - 5, " more") : ""));
}

}  // namespace longwave::plot

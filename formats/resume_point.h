// From where an interrupted `longwave run` goes on: the file OUT.resume beside its output. What the
// run was to compute, which sequences are whole, what the output in the making holds, and the
// boundary of the last chunk that counts. docs/formats.md has the layout.
//
// Thread safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "formats/boundary.h"

namespace longwave {

// A sequence that is whole.
struct ResumeSequence {
  std::string name;
  int64_t tokens = 0;
  std::optional<double> mean_nats;
  std::string output;  // its file; empty: it stands in the one of all sequences
  int64_t output_bytes = 0, output_mtime_ns = 0;

  bool operator==(const ResumeSequence&) const = default;
};

struct ResumePoint {
  std::string identity;              // of all that decides the bytes but model and tokens
  std::vector<ResumeSequence> done;  // in the order of the input
  std::string done_digest;           // of the tokens of these
  std::string digest;                // and of the present sequence's, as far as they were read
  int64_t elements = 0;              // of the output in the making that count
  std::string output_digest;         // of these
  Boundary boundary;                 // of the present sequence

  bool operator==(const ResumePoint&) const = default;
};

// InvalidArgument for what the layout cannot hold.
absl::StatusOr<std::string> FormatResumePoint(const ResumePoint& point);
// DataLoss where the checksum is not that of the bytes; InvalidArgument for bytes that are none.
absl::StatusOr<ResumePoint> ParseResumePoint(absl::string_view bytes);

}  // namespace longwave

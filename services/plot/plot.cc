#include "services/plot/plot.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "formats/atomic_file.h"
#include "formats/byte_source.h"
#include "formats/npy.h"
#include "services/plot/page.h"

namespace longwave::plot {
namespace {

constexpr size_t kReadFloats = 1 << 16;

// What is wrong with the file's content is the caller's argument; every message names the path
// once.
absl::Status AboutFile(const absl::Status& status, const std::string& path) {
  const bool content = absl::IsOutOfRange(status) || absl::IsDataLoss(status);
  const std::string message = absl::StrContains(status.message(), path)
                                  ? std::string(status.message())
                                  : absl::StrCat(path, ": ", status.message());
  return {content ? absl::StatusCode::kInvalidArgument : status.code(), message};
}

absl::Status CheckHeader(const NpyHeader& header, const std::string& path) {
  if (header.type != NpyType::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": holds ", header.type == NpyType::kInt32 ? "int32" : "int64",
                     "; a track is float32"));
  }
  if (header.shape.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has shape (", absl::StrJoin(header.shape, ", "), "); a track has one dimension"));
  }
  if (header.shape[0] < 1) return absl::InvalidArgumentError(absl::StrCat(path, ": is empty"));
  return absl::OkStatus();
}

std::string FileName(const std::string& path) {
  if (path == "-") return "standard input";
  return path.substr(path.find_last_of('/') + 1);
}

bool IsHtml(const std::string& path) {
  return absl::EndsWithIgnoreCase(path, ".html") || absl::EndsWithIgnoreCase(path, ".htm");
}

}  // namespace

absl::StatusOr<Figure> ReadFigure(const std::string& path, const PlotOptions& options) {
  auto source = ByteSource::Open(path);
  if (!source.ok()) return AboutFile(source.status(), path);
  auto reader = NpyReader::Open(std::move(*source));
  if (!reader.ok()) return AboutFile(reader.status(), path);
  if (absl::Status s = CheckHeader((*reader)->header(), path); !s.ok()) return s;

  const int64_t length = (*reader)->header().shape[0];
  TrackBins bins(length, options.bins);
  std::vector<float> values(kReadFloats);
  for (int64_t read = 0; read < length;) {
    absl::StatusOr<int64_t> n = (*reader)->ReadFloats(absl::MakeSpan(values));
    if (!n.ok()) return AboutFile(n.status(), path);
    if (*n == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": ends after ", read, " of ", length, " values"));
    }
    const absl::Status added = bins.Add(absl::MakeConstSpan(values).first(*n));
    if (!added.ok()) return AboutFile(added, path);
    read += *n;
  }
  bins.Finish();
  if (bins.overall().count == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": all ", length, " entries are NaN, nothing to draw"));
  }
  Figure figure{.title = options.title.empty() ? FileName(path) : options.title,
                .bits = options.bits,
                .bins = std::move(bins)};
  if (!options.genome.empty()) {
    auto genome = ReadGenomeGc(options.genome, length, figure.bins.resolutions()[0].width);
    if (!genome.ok()) return AboutFile(genome.status(), options.genome);
    figure.genome = std::move(*genome);
  }
  return figure;
}

absl::StatusOr<std::string> PlotTrack(const std::string& path, const std::string& out,
                                      const PlotOptions& options) {
  const bool html = IsHtml(out);
  if (!html && !absl::EndsWithIgnoreCase(out, ".svg")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out ", out, ": the name says the format, .html or .svg"));
  }
  auto file =
      AtomicFile::Create(out);  // before the long read: an unwritable place is known at once
  if (!file.ok()) return file.status();
  absl::StatusOr<Figure> figure = ReadFigure(path, options);
  if (!figure.ok()) return figure.status();
  const std::string page = html ? WrapHtml(*figure) : WrapSvg(*figure);
  const auto* bytes = reinterpret_cast<const uint8_t*>(page.data());
  if (absl::Status s = (*file)->Append({bytes, page.size()}); !s.ok()) return s;
  if (absl::Status s = (*file)->Commit(); !s.ok()) return s;
  return absl::StrFormat("%s: %s", out, Summary(*figure));
}

}  // namespace longwave::plot

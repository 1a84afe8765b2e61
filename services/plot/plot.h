// `longwave plot`: a per-base track of negative log-likelihoods as one picture a person opens in a
// browser, SVG (the static picture) or HTML (the same with hover, zoom and a dark side). Both are
// self-contained: no font, script or style comes from elsewhere.
//
// The order of work: TrackBins reads the track once, ReadGenomeGc the sequence once; DrawFigure
// turns both into SVG elements; WrapSvg or WrapHtml makes a file of them.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/plot/figure.h"

namespace longwave::plot {

struct PlotOptions {
  std::string title;    // empty: the track's file name
  bool bits = true;     // else nats
  int64_t bins = 4000;  // at most this many at the finest resolution
  std::string genome;   // FASTA of the track's sequence; empty: none, and no GC strip
};

// Reads the track at `path` (float32, 1-D .npy; "-" is standard input). InvalidArgument for what is
// not such a file, for one without values and for values that are no likelihoods, with the path.
absl::StatusOr<Figure> ReadFigure(const std::string& path, const PlotOptions& options);

// Reads `path` and writes `out`, which ends in .html or .svg and appears whole or not at all.
// Returns one line saying what was drawn.
absl::StatusOr<std::string> PlotTrack(const std::string& path, const std::string& out,
                                      const PlotOptions& options);

}  // namespace longwave::plot

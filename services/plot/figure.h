// The picture of a track as SVG elements: a main panel of window means with the extremes of their
// parts, a strip of single bases' percentiles, a strip of GC where the sequence is known, a
// histogram of single bases, and the most and least predictable windows.
//
// Colours are classes, left to whoever wraps the elements. The elements an HTML page redraws when
// zooming have ids; their geometry (kPlot*) goes to the page's script with the data.
//
// Thread safety: values; const functions of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "services/plot/genome_gc.h"
#include "services/plot/track_bins.h"

namespace longwave::plot {

struct Figure {
  std::string title;
  bool bits = true;  // else nats
  TrackBins bins;    // finished, with at least one value
  std::optional<GenomeGc> genome = std::nullopt;

  // Nats to the unit shown.
  double Unit(double nats) const;
  const char* unit_name() const { return bits ? "bits" : "nats"; }
};

// How positions are written: in bases, kb or Mb.
struct PositionUnit {
  double bases;      // in one unit
  const char* name;  // "bases", "kb", "Mb"
};
PositionUnit PositionUnitFor(int64_t length);

// One panel's place on the picture and its range of values; y grows upwards with the value.
struct Panel {
  double top, height;
  double low, high;
  double Y(double value) const { return top + height * (high - value) / (high - low); }
};

constexpr double kWidth = 1200, kHeight = 540;
constexpr double kPlotLeft = 58, kPlotWidth = 800;
constexpr int64_t kColumns = 500;  // windows across the main panel at most

struct Layout {
  Panel main, spread;
  std::optional<Panel> gc;
  double bottom;  // of the lowest panel, where positions are written
};
Layout LayoutFor(const Figure& figure);

// The sentence beneath the title: "1,000,000 bases, mean 1.9123 bits per base, ...".
std::string Summary(const Figure& figure);

// The elements within a viewBox of kWidth x kHeight.
std::string DrawFigure(const Figure& figure);

}  // namespace longwave::plot

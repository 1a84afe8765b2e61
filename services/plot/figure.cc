#include "services/plot/figure.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/plot/svg.h"

namespace longwave::plot {
namespace {

constexpr double kRight = 910, kRightWidth = 264;  // the column beside the main panel
constexpr double kTop = 104;
constexpr int64_t kListed = 10;
constexpr int64_t kListWindows = 2000;  // the listed windows: the finest with at most this many
constexpr int64_t kListApart = 10;

std::string WithCommas(int64_t n) {
  std::string s = std::to_string(n);
  for (int64_t at = static_cast<int64_t>(s.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) {
    s.insert(static_cast<size_t>(at), 1, ',');
  }
  return s;
}

Trace TraceOf(const Figure& figure, const Resolution& windows) {
  return {kPlotLeft, kPlotWidth, figure.bins.length(), windows.width,
          static_cast<int64_t>(windows.bins.size())};
}

// The extremes of the finest windows' means within window i of `windows`.
std::pair<double, double> PartMeans(const TrackBins& bins, const Resolution& windows, int64_t i) {
  const Resolution& finest = bins.resolutions()[0];
  const int64_t parts = windows.width / finest.width;
  std::pair<double, double> range(1e300, -1e300);
  for (int64_t k = i * parts; k < std::min<int64_t>((i + 1) * parts, finest.bins.size()); ++k) {
    if (finest.bins[k].count == 0) continue;
    range.first = std::min(range.first, finest.bins[k].mean);
    range.second = std::max(range.second, finest.bins[k].mean);
  }
  return range;
}

// A value's whole range widened to whole ticks.
void Widen(Panel& panel, int ticks) {
  const double step = TickStep(panel.high - panel.low, ticks) / 2;
  panel.low = std::max(0.0, std::floor(panel.low / step + 1e-9) * step);
  panel.high = std::ceil(panel.high / step - 1e-9) * step;
}

std::string YAxis(const Panel& panel, int ticks, double scale = 1) {
  std::string svg;
  const double step = TickStep((panel.high - panel.low) * scale, ticks);
  ForTicks(panel.low * scale, panel.high * scale, step, [&](double v) {
    const double y = panel.Y(v / scale);
    svg += Line(kPlotLeft, y, kPlotLeft + kPlotWidth, y, "grid");
    svg += Text(kPlotLeft - 8, y + 4, TickLabel(v, step), "class=\"tick end\"");
  });
  return svg;
}

std::string XAxis(const Figure& figure, const Layout& layout) {
  const double length = static_cast<double>(figure.bins.length());
  const PositionUnit unit = PositionUnitFor(figure.bins.length());
  double step = TickStep(length / unit.bases, 10);
  if (unit.bases == 1) step = std::max(step, 1.0);
  std::string svg = "<g id=\"xaxis\">\n";
  ForTicks(0, length / unit.bases, step, [&](double v) {
    const double x = kPlotLeft + kPlotWidth * v * unit.bases / length;
    svg += Line(x, layout.bottom, x, layout.bottom + 5, "axis");
    svg += Text(x, layout.bottom + 18, TickLabel(v, step), "class=\"tick mid\"");
  });
  svg += "</g>\n";
  svg += Line(kPlotLeft, layout.bottom, kPlotLeft + kPlotWidth, layout.bottom, "axis");
  const std::string where =
      figure.genome && !figure.genome->name.empty() ? " in " + figure.genome->name : "";
  svg += Text(kPlotLeft + kPlotWidth / 2, layout.bottom + 40,
              absl::StrCat("Position", where, " (", unit.name, ")"), "class=\"label mid\"");
  return svg;
}

std::string Count(int64_t bases) {
  return absl::StrCat(WithCommas(bases), bases == 1 ? " base" : " bases");
}

// A triangle whose tip is at (x, y): pointing down at a hard window, up at an easy one.
std::string Mark(double x, double y, bool hard) {
  const double d = hard ? -7 : 7;
  return Path(hard ? "mark hard" : "mark easy", "",
              absl::StrCat("M", Px(x), ",", Px(y), "L", Px(x - 4), ",", Px(y + d), "L", Px(x + 4),
                           ",", Px(y + d), "Z"));
}

std::string MainPanel(const Figure& figure, const Panel& panel, const Resolution& windows) {
  const TrackBins& bins = figure.bins;
  const Trace trace = TraceOf(figure, windows);
  const int64_t finest = bins.resolutions()[0].width;
  const auto has = [&](int64_t i) { return windows.bins[i].count > 0; };
  std::string svg = YAxis(panel, 6);
  svg += absl::StrFormat(
      "<text x=\"%s\" y=\"%s\" class=\"label\">%s per base, <tspan id=\"window\">%s</tspan>",
      Px(kPlotLeft), Px(panel.top - 14), figure.bits ? "Bits" : "Nats",
      windows.width == 1 ? "each base" : absl::StrCat("mean of ", Count(windows.width)));
  if (windows.width > finest) {
    absl::StrAppend(&svg, "<tspan id=\"parts\">; shaded: least and most of its windows of ",
                    Count(finest), "</tspan>");
  }
  svg += "</text>\n";
  svg += "<g clip-path=\"url(#plot)\">\n";
  std::string band;
  if (windows.width > finest) {
    band = trace.BandPath(
        has, [&](int64_t i) { return panel.Y(figure.Unit(PartMeans(bins, windows, i).second)); },
        [&](int64_t i) { return panel.Y(figure.Unit(PartMeans(bins, windows, i).first)); });
  }
  svg += Path("band", "band", band);
  svg += Path("trace", "trace", trace.LinePath(has, [&](int64_t i) {
    return panel.Y(figure.Unit(windows.bins[i].mean));
  }));
  svg += "</g>\n";

  // The two references, named beside the panel's right edge.
  const double uniform = figure.Unit(std::log(4.0)), mean = figure.Unit(bins.overall().mean);
  const double right = kPlotLeft + kPlotWidth, y_uniform = panel.Y(uniform), y_mean = panel.Y(mean);
  svg += Line(kPlotLeft, y_uniform, right, y_uniform, "uniform");
  svg += Line(kPlotLeft, y_mean, right, y_mean, "mean");
  const double apart = std::max(0.0, 14 - std::abs(y_uniform - y_mean)) / 2;
  const double down = y_uniform <= y_mean ? apart : -apart;  // the labels, not the lines
  svg += Text(right + 6, y_uniform - down + 4, figure.bits ? "2 bits" : "ln 4",
              "class=\"note uniform-text\"");
  svg += Text(right + 6, y_mean + down + 4, "mean", "class=\"note mean-text\"");
  return svg;
}

std::string SpreadPanel(const Figure& figure, const Panel& panel, const Resolution& windows) {
  const Trace trace = TraceOf(figure, windows);
  const auto has = [&](int64_t i) { return windows.bins[i].count > 0; };
  const auto y = [&](float Bin::*field) {
    return [&, field](int64_t i) { return panel.Y(figure.Unit(windows.bins[i].*field)); };
  };
  std::string svg = YAxis(panel, 3);
  svg += Text(kPlotLeft, panel.top - 8,
              absl::StrCat(figure.bits ? "Bits" : "Nats",
                           " of single bases: median, and where the middle 80 % lie"),
              "class=\"label\"");
  svg += "<g clip-path=\"url(#plot)\">\n";
  svg += Path("spread-band", "spread-band", trace.BandPath(has, y(&Bin::p90), y(&Bin::p10)));
  svg += Path("spread-trace", "spread-trace", trace.LinePath(has, y(&Bin::p50)));
  return svg + "</g>\n";
}

std::string GcPanel(const Figure& figure, const Panel& panel, const Resolution& windows) {
  const Trace trace = TraceOf(figure, windows);
  const int64_t parts = windows.width / figure.genome->width;
  const auto gc = [&](int64_t i) { return figure.genome->Fraction(i * parts, (i + 1) * parts); };
  std::string svg = YAxis(panel, 2, 100);
  svg += Text(kPlotLeft, panel.top - 8, "G and C, % of bases", "class=\"label\"");
  svg += "<g clip-path=\"url(#plot)\">\n";
  svg += Path("gc", "gc",
              trace.LinePath([&](int64_t i) { return gc(i) >= 0; },
                             [&](int64_t i) { return panel.Y(gc(i)); }));
  return svg + "</g>\n";
}

// Bars of single bases' values, from 0 to where all but half a percent lie.
std::string HistogramPanel(const Figure& figure, double top, double height) {
  const ValueHistogram& histogram = figure.bins.histogram();
  const double total = static_cast<double>(histogram.total());
  const double high = std::max(1.0, std::ceil(figure.Unit(histogram.Quantile(0.995))));
  const int bars = 40;
  const double nats_per_bar = high / bars / figure.Unit(1);
  double most = 0;
  std::vector<double> share(bars);
  for (int i = 0; i < bars; ++i) {
    share[i] =
        (histogram.CountBelow((i + 1) * nats_per_bar) - histogram.CountBelow(i * nats_per_bar)) /
        total;
    most = std::max(most, share[i]);
  }
  const double bottom = top + height, pitch = kRightWidth / bars;
  const auto x = [&](double value) { return kRight + kRightWidth * value / high; };
  std::string svg = Text(kRight, top - 14, absl::StrCat("Single bases by ", figure.unit_name()),
                         "class=\"label\"");
  for (int i = 0; i < bars; ++i) {
    const double h = most > 0 ? (height - 14) * share[i] / most : 0;
    absl::StrAppendFormat(&svg,
                          "<rect class=\"bar\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\">"
                          "<title>%.2f to %.2f %s: %.2f %% of bases</title></rect>\n",
                          Px(kRight + i * pitch + 0.5), Px(bottom - h), Px(pitch - 1), Px(h),
                          i * high / bars, (i + 1) * high / bars, figure.unit_name(),
                          100 * share[i]);
  }
  const double uniform = figure.Unit(std::log(4.0)), mean = figure.Unit(figure.bins.overall().mean);
  if (uniform < high) svg += Line(x(uniform), top, x(uniform), bottom, "uniform");
  if (mean < high) svg += Line(x(mean), top, x(mean), bottom, "mean");
  svg += Line(kRight, bottom, kRight + kRightWidth, bottom, "axis");
  const double step = TickStep(high, 6);
  ForTicks(0, high, step, [&](double v) {
    svg += Line(x(v), bottom, x(v), bottom + 4, "axis");
    svg += Text(x(v), bottom + 17, TickLabel(v, step), "class=\"tick mid\"");
  });
  const double above = 1 - histogram.CountBelow(high / figure.Unit(1)) / total;
  if (above > 0) {
    svg += Text(kRight + kRightWidth, top - 14,
                absl::StrFormat("%.2g %% above %.0f", 100 * above, high), "class=\"note end\"");
  }
  return svg;
}

std::string PositionRange(int64_t begin, int64_t end, int64_t length, int64_t width) {
  const PositionUnit unit = PositionUnitFor(length);
  if (unit.bases == 1) {
    return end - begin == 1 ? WithCommas(end) : absl::StrCat(begin + 1, "–", end);
  }
  int decimals = 0;
  for (double w = static_cast<double>(width); w < unit.bases - 0.5; w *= 10) ++decimals;
  return absl::StrFormat("%.*f–%.*f", decimals, static_cast<double>(begin) / unit.bases, decimals,
                         static_cast<double>(end) / unit.bases);
}

// The two lists and their marks at the main panel's edges.
std::string Extremes(const Figure& figure, const Panel& main, double top) {
  const TrackBins& bins = figure.bins;
  const Resolution& windows = bins.AtMost(kListWindows);
  const double length = static_cast<double>(bins.length());
  const double column = (kRightWidth - 22) / 2;
  std::string svg, marks = "<g id=\"marks\">\n";
  for (const bool hard : {true, false}) {
    const double x = hard ? kRight : kRight + column + 22;
    svg += Mark(x + 4, hard ? top - 1 : top - 9, hard);
    svg += Text(x + 14, top, hard ? "Least predictable" : "Most predictable", "class=\"label\"");
    double y = top;
    for (int64_t i : ExtremeWindows(windows, kListed, kListApart, hard)) {
      const int64_t begin = i * windows.width;
      const int64_t end = std::min(begin + windows.width, bins.length());
      const double mean = figure.Unit(windows.bins[i].mean);
      y += 16.5;
      absl::StrAppendFormat(
          &svg,
          "<g class=\"row\" data-begin=\"%d\" data-end=\"%d\"><title>%s to %s: %.4f %s</title>\n",
          begin, end, WithCommas(begin + 1), WithCommas(end), mean, figure.unit_name());
      absl::StrAppendFormat(
          &svg, "<rect class=\"hit\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"16.5\" rx=\"3\"/>\n",
          Px(x - 4), Px(y - 12.5), Px(column + 8));
      svg += Text(x, y, PositionRange(begin, end, bins.length(), windows.width), "class=\"cell\"");
      svg += Text(x + column, y, absl::StrFormat("%.3f", mean), "class=\"cell end strong\"");
      svg += "</g>\n";
      const double middle = static_cast<double>(begin + end) / 2;
      absl::StrAppendFormat(&marks, "<g data-at=\"%.1f\">", middle);
      marks += Mark(kPlotLeft + kPlotWidth * middle / length,
                    hard ? main.top : main.top + main.height, hard);
      marks += "</g>\n";
    }
  }
  const double foot = top + 16.5 * (kListed + 1) + 6;
  const PositionUnit unit = PositionUnitFor(bins.length());
  svg += Text(
      kRight, foot,
      absl::StrCat("Windows of ", Count(windows.width), ": position", unit.bases == 1 ? "," : ""),
      "class=\"note\"");
  svg += Text(kRight, foot + 15,
              absl::StrCat(unit.bases == 1 ? "" : absl::StrCat("in ", unit.name, ", "), "mean in ",
                           figure.unit_name()),
              "class=\"note\"");
  return svg + marks + "</g>\n";
}

}  // namespace

double Figure::Unit(double nats) const { return bits ? nats / std::log(2.0) : nats; }

PositionUnit PositionUnitFor(int64_t length) {
  if (length < 5000) return {1, "bases"};
  if (length < 2000000) return {1e3, "kb"};
  return {1e6, "Mb"};
}

std::string Summary(const Figure& figure) {
  const double mean = figure.bins.overall().mean, ratio = mean / std::log(4.0);
  return absl::StrFormat("%s, mean %.4f %s per base, %.1f %% %s %s for four equally likely letters",
                         Count(figure.bins.length()), figure.Unit(mean), figure.unit_name(),
                         100 * std::abs(1 - ratio), ratio <= 1 ? "below" : "above",
                         figure.bits ? "the 2 bits" : "the 1.386 nats");
}

Layout LayoutFor(const Figure& figure) {
  Layout layout;
  const bool gc = figure.genome.has_value();
  layout.main = {.top = kTop, .height = gc ? 216.0 : 264.0, .low = 1e300, .high = -1e300};
  const Resolution& windows = figure.bins.AtMost(kColumns);
  Panel& main = layout.main;
  const auto include = [&](Panel& panel, double value) {
    panel.low = std::min(panel.low, value);
    panel.high = std::max(panel.high, value);
  };
  layout.spread = {.top = kTop + main.height + 36, .height = gc ? 66.0 : 92.0, .low = 0, .high = 0};
  for (size_t i = 0; i < windows.bins.size(); ++i) {
    if (windows.bins[i].count == 0) continue;
    const auto [low, high] = PartMeans(figure.bins, windows, static_cast<int64_t>(i));
    include(main, figure.Unit(low));
    include(main, figure.Unit(high));
  }
  // The strips hold what zooming shows: the finest windows.
  for (const Bin& bin : figure.bins.resolutions()[0].bins) {
    if (bin.count > 0) include(layout.spread, figure.Unit(bin.p90));
  }
  include(main, figure.Unit(std::log(4.0)));
  include(main, figure.Unit(figure.bins.overall().mean));
  const double margin = std::max(0.07 * (main.high - main.low), 0.02);  // room for the marks
  main.low -= margin;
  main.high += margin;
  Widen(main, 6);
  layout.spread.high = std::max(layout.spread.high, 0.1);
  Widen(layout.spread, 3);
  layout.bottom = layout.spread.top + layout.spread.height;
  if (gc) {
    Panel panel{.top = layout.bottom + 30, .height = 44, .low = 1, .high = 0};
    for (int64_t i = 0; i < static_cast<int64_t>(figure.genome->bins.size()); ++i) {
      const double share = figure.genome->Fraction(i, i + 1);
      if (share >= 0) include(panel, share);
    }
    if (panel.low > panel.high) panel.low = 0, panel.high = 1;
    panel.low = std::max(0.0, std::floor(panel.low * 10) / 10);
    panel.high = std::min(1.0, std::max(panel.low + 0.1, std::ceil(panel.high * 10) / 10));
    layout.gc = panel;
    layout.bottom = panel.top + panel.height;
  }
  return layout;
}

std::string DrawFigure(const Figure& figure) {
  const Layout layout = LayoutFor(figure);
  const Resolution& windows = figure.bins.AtMost(kColumns);
  std::string svg = absl::StrFormat(
      "<defs><clipPath id=\"plot\"><rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\"/></clipPath>"
      "</defs>\n",
      Px(kPlotLeft), Px(kTop), Px(kPlotWidth), Px(layout.bottom - kTop));
  svg += absl::StrFormat("<rect class=\"ground\" width=\"%s\" height=\"%s\"/>\n", Px(kWidth),
                         Px(kHeight));
  svg += Text(kPlotLeft, 36, figure.title, "class=\"title\"");
  svg += Text(kPlotLeft, 59, Summary(figure), "class=\"subtitle\"");
  svg += MainPanel(figure, layout.main, windows);
  svg += SpreadPanel(figure, layout.spread, windows);
  if (layout.gc) svg += GcPanel(figure, *layout.gc, windows);
  svg += XAxis(figure, layout);
  svg += HistogramPanel(figure, kTop, 150);
  svg += Extremes(figure, layout.main, kTop + 150 + 56);
  return svg;
}

}  // namespace longwave::plot

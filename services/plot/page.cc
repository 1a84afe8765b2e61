#include "services/plot/page.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "services/plot/svg.h"

namespace longwave::plot {
namespace {

// Names of colours in kFigureStyle and what they are on a light and on a dark ground.
struct Colour {
  const char* name;
  const char* light;
  const char* dark;
};
constexpr Colour kColours[] = {
    {"$ground", "#ffffff", "#14181d"}, {"$ink", "#1c232b", "#e4e8ec"},
    {"$muted", "#5d6873", "#98a3ae"},  {"$grid", "#e9ebed", "#252c34"},
    {"$axis", "#a9b1b9", "#4c5863"},   {"$trace", "#1f6091", "#6db3e6"},
    {"$band", "#c9dcea", "#24435b"},   {"$bar", "#8fb4cf", "#3c6a8c"},
    {"$spread", "#e4e6e9", "#272f38"}, {"$median", "#7a858f", "#8b97a3"},
    {"$gc", "#4f7f5d", "#83b893"},     {"$uniform", "#b4532a", "#e59a6e"},
    {"$easy", "#2a8577", "#63c2b1"},   {"$select", "#1f6091", "#6db3e6"},
};

constexpr char kFigureStyle[] = R"css(
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-size: 12px; fill: $ink; font-variant-numeric: tabular-nums; }
.ground { fill: $ground; }
.title { font-size: 20px; font-weight: 600; }
.subtitle { font-size: 13.5px; fill: $muted; }
.label { font-weight: 500; }
.tick, .note { font-size: 11.5px; fill: $muted; }
.cell { font-size: 11.5px; fill: $muted; }
.strong { fill: $ink; }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: $grid; }
.axis { stroke: $axis; }
.band { fill: $band; }
.trace { fill: none; stroke: $trace; stroke-width: 1.25; stroke-linejoin: round; }
.spread-band { fill: $spread; }
.spread-trace { fill: none; stroke: $median; stroke-linejoin: round; }
.gc { fill: none; stroke: $gc; stroke-linejoin: round; }
.bar { fill: $bar; }
.uniform { stroke: $uniform; stroke-width: 1.25; }
.mean { stroke: $ink; stroke-dasharray: 4 3; }
.uniform-text { fill: $uniform; }
.mean-text { fill: $ink; }
.hard { fill: $uniform; }
.easy { fill: $easy; }
.hit { fill: none; }
)css";

constexpr char kPageStyle[] = R"css(
body { margin: 0; background: var(--ground); color: var(--ink); min-height: 100vh;
  display: flex; align-items: center; justify-content: center; }
main { width: min(100vw, 1500px, 100vh * 1200 / 540); min-width: 720px; position: relative; }
svg { display: block; width: 100%; height: auto; user-select: none; -webkit-user-select: none; }
#surface { fill: transparent; cursor: crosshair; touch-action: pan-y; }
#cursor { stroke: var(--axis); }
#dot { fill: var(--trace); stroke: var(--ground); stroke-width: 1.5; }
#drag { fill: var(--select); opacity: 0.14; }
#card { pointer-events: none; }
#card rect { fill: var(--ground); stroke: var(--axis); }
.bar:hover { fill: var(--trace); }
.row { cursor: pointer; }
.row .hit { pointer-events: all; }
.row:hover .hit { fill: var(--grid); }
.control { cursor: pointer; }
.control text { fill: var(--muted); }
.control rect { fill: transparent; stroke: var(--axis); }
.control:hover text { fill: var(--ink); }
[hidden] { display: none; }
@media print { .control, .hint { display: none; } }
)css";

std::string Style(const char* style, const char* Colour::*side) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const Colour& colour : kColours) names.emplace_back(colour.name, colour.*side);
  return absl::StrReplaceAll(style, names);
}

// The figure's style with each colour a custom property: "$ink" becomes var(--ink).
std::string StyleWithProperties() {
  std::vector<std::pair<std::string, std::string>> names;
  for (const Colour& c : kColours) {
    names.emplace_back(c.name, absl::StrCat("var(--", std::string(c.name + 1), ")"));
  }
  return absl::StrReplaceAll(kFigureStyle, names);
}

std::string Properties(const char* Colour::*side) {
  std::string css;
  for (const Colour& c : kColours) absl::StrAppend(&css, " --", c.name + 1, ": ", c.*side, ";");
  return css;
}

// Thousandths of the unit: half a pixel of the tallest panel is coarser than that.
std::string Thousandths(double value) { return absl::StrCat(std::lround(value * 1000)); }

template <typename F>
std::string Array(const Resolution& windows, F value) {
  std::string json = "[";
  for (size_t i = 0; i < windows.bins.size(); ++i) {
    const std::string number = value(static_cast<int64_t>(i));
    absl::StrAppend(&json, i == 0 ? "" : ",", number);
  }
  return json + "]";
}

std::string PanelJson(const Panel& p) {
  return absl::StrFormat("{\"top\":%g,\"height\":%g,\"low\":%.9g,\"high\":%.9g}", p.top, p.height,
                         p.low, p.high);
}

}  // namespace

std::string PlotJson(const Figure& figure) {
  const Layout layout = LayoutFor(figure);
  const PositionUnit unit = PositionUnitFor(figure.bins.length());
  std::string json = absl::StrFormat(
      "{\"length\":%d,\"unit\":\"%s\",\"bases\":%g,\"kb\":\"%s\",\"left\":%g,\"width\":%g,"
      "\"columns\":%d,\"bottom\":%g,\"main\":%s,\"spread\":%s",
      figure.bins.length(), figure.unit_name(), unit.bases, unit.name, kPlotLeft, kPlotWidth,
      kColumns, layout.bottom, PanelJson(layout.main), PanelJson(layout.spread));
  if (layout.gc) absl::StrAppend(&json, ",\"gc\":", PanelJson(*layout.gc));
  json += ",\"levels\":[\n";
  for (const Resolution& r : figure.bins.resolutions()) {
    const auto field = [&](auto get) {
      return Array(r, [&](int64_t i) {
        return r.bins[i].count == 0 ? "null" : Thousandths(figure.Unit(get(r.bins[i])));
      });
    };
    absl::StrAppend(&json, r.width == figure.bins.resolutions()[0].width ? "" : ",\n",
                    "{\"width\":", r.width,
                    ",\n\"mean\":", field([](const Bin& b) { return b.mean; }),
                    ",\n\"p10\":", field([](const Bin& b) { return b.p10; }),
                    ",\n\"p50\":", field([](const Bin& b) { return b.p50; }),
                    ",\n\"p90\":", field([](const Bin& b) { return b.p90; }));
    if (figure.genome) {
      const int64_t parts = r.width / figure.genome->width;
      absl::StrAppend(&json, ",\n\"gc\":", Array(r, [&](int64_t i) {
        const double gc = figure.genome->Fraction(i * parts, (i + 1) * parts);
        return gc < 0 ? "null" : Thousandths(gc);
      }));
    }
    json += "}";
  }
  return json + "\n]}";
}

std::string WrapSvg(const Figure& figure) {
  return absl::StrCat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ",
      kWidth, " ", kHeight, "\" width=\"", kWidth, "\" height=\"", kHeight,
      "\" role=\"img\">\n<title>", EscapeXml(figure.title), "</title>\n<desc>",
      EscapeXml(Summary(figure)), "</desc>\n<style>", Style(kFigureStyle, &Colour::light),
      "</style>\n", DrawFigure(figure), "</svg>\n");
}

std::string WrapHtml(const Figure& figure) {
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>",
      EscapeXml(figure.title), "</title>\n<style>\n:root {", Properties(&Colour::light), " }\n",
      "@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {",
      Properties(&Colour::dark), " } }\n:root[data-theme=dark] {", Properties(&Colour::dark), " }",
      StyleWithProperties(), kPageStyle, "</style>\n</head>\n<body>\n<main>\n<svg viewBox=\"0 0 ",
      kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"", EscapeXml(Summary(figure)), "\">\n",
      DrawFigure(figure), "</svg>\n</main>\n<script type=\"application/json\" id=\"data\">\n",
      PlotJson(figure), "\n</script>\n<script>\n", kPageScript, "</script>\n</body>\n</html>\n");
}

}  // namespace longwave::plot

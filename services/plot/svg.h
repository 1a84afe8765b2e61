// SVG elements as text, round ticks for axes, and a row of windows as a path.
//
// Thread safety: pure functions and values.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"

namespace longwave::plot {

std::string Px(double v);  // "12.3", "12": a tenth of a pixel
std::string EscapeXml(const std::string& text);
std::string Text(double x, double y, const std::string& text, const std::string& attributes);
std::string Line(double x1, double y1, double x2, double y2, const char* css);
std::string Path(const char* css, const char* id, const std::string& d);  // id "": none

// Round steps for an axis: 1, 2, 2.5 or 5 times a power of ten, about `count` of them in `range`.
double TickStep(double range, int count);
// With as many decimals as the step needs.
std::string TickLabel(double value, double step);
// Calls f with each multiple of `step` from `low` to `high`.
void ForTicks(double low, double high, double step, absl::FunctionRef<void(double)> f);

// Windows side by side over [left, left + width], the last one cut at the end; each has a height,
// or none, which leaves a gap. Few are drawn as steps, many as a line through their middles.
class Trace {
 public:
  using Has = absl::FunctionRef<bool(int64_t)>;
  using Y = absl::FunctionRef<double(int64_t)>;
  static constexpr int64_t kSteps = 120;  // at most this many are steps

  Trace(double left, double width, int64_t length, int64_t window, int64_t windows)
      : left_(left),
        scale_(width / static_cast<double>(length)),
        length_(length),
        window_(window),
        windows_(windows) {}
  std::string LinePath(Has has, Y y) const;
  std::string BandPath(Has has, Y high, Y low) const;

 private:
  // Calls f(first, last) for every run of windows that have a height, both ends included.
  void Runs(Has has, absl::FunctionRef<void(int64_t, int64_t)> f) const;
  // The points of windows first to last, from the last when `backwards`.
  void Append(std::string& d, char command, int64_t first, int64_t last, bool backwards, Y y) const;

  double left_, scale_;
  int64_t length_, window_, windows_;
};

}  // namespace longwave::plot

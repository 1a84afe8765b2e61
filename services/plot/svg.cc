#include "services/plot/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace longwave::plot {

std::string Px(double v) {
  std::string s = absl::StrFormat("%.1f", v);
  if (s.size() > 2 && s.compare(s.size() - 2, 2, ".0") == 0) s.resize(s.size() - 2);
  return s == "-0" ? "0" : s;
}

std::string EscapeXml(const std::string& text) {
  std::string kept;  // control characters have no place in XML 1.0
  for (char c : text) kept += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  return absl::StrReplaceAll(
      kept, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string Text(double x, double y, const std::string& text, const std::string& attributes) {
  return absl::StrCat("<text x=\"", Px(x), "\" y=\"", Px(y), "\" ", attributes, ">",
                      EscapeXml(text), "</text>\n");
}

std::string Line(double x1, double y1, double x2, double y2, const char* css) {
  return absl::StrFormat("<line class=\"%s\" x1=\"%s\" y1=\"%s\" x2=\"%s\" y2=\"%s\"/>\n", css,
                         Px(x1), Px(y1), Px(x2), Px(y2));
}

std::string Path(const char* css, const char* id, const std::string& d) {
  return absl::StrCat("<path class=\"", css, "\"", *id ? absl::StrCat(" id=\"", id, "\"") : "",
                      " d=\"", d, "\"/>\n");
}

double TickStep(double range, int count) {
  const double raw = range / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (double m : {1.0, 2.0, 2.5, 5.0}) {
    if (m * power >= raw * 0.999) return m * power;
  }
  return 10 * power;
}

std::string TickLabel(double value, double step) {
  int decimals = 0;
  for (double s = step; decimals < 6 && std::abs(s - std::round(s)) > 1e-6 * s; s *= 10) ++decimals;
  return absl::StrFormat("%.*f", decimals, std::abs(value) < step / 1e3 ? 0.0 : value);
}

void ForTicks(double low, double high, double step, absl::FunctionRef<void(double)> f) {
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) f(i * step);
}

void Trace::Runs(Has has, absl::FunctionRef<void(int64_t, int64_t)> f) const {
  for (int64_t i = 0; i < windows_; ++i) {
    if (!has(i)) continue;
    const int64_t first = i;
    while (i + 1 < windows_ && has(i + 1)) ++i;
    f(first, i);
  }
}

void Trace::Append(std::string& d, char command, int64_t first, int64_t last, bool backwards,
                   Y y) const {
  const auto point = [&](int64_t position_twice, double at) {  // a middle is half a base
    const double position = std::min(position_twice / 2.0, static_cast<double>(length_));
    absl::StrAppend(&d, std::string(1, command), Px(left_ + scale_ * position), ",", Px(at));
    command = 'L';
  };
  const bool steps = windows_ <= kSteps;
  for (int64_t k = 0; k <= last - first; ++k) {
    const int64_t i = backwards ? last - k : first + k;
    const int64_t left = 2 * i * window_, right = left + 2 * window_;
    if (steps || k == 0) point(backwards ? right : left, y(i));
    if (!steps) point(left + window_, y(i));
    if (steps || k == last - first) point(backwards ? left : right, y(i));
  }
}

std::string Trace::LinePath(Has has, Y y) const {
  std::string d;
  Runs(has, [&](int64_t first, int64_t last) { Append(d, 'M', first, last, false, y); });
  return d;
}

std::string Trace::BandPath(Has has, Y high, Y low) const {
  std::string d;
  Runs(has, [&](int64_t first, int64_t last) {
    Append(d, 'M', first, last, false, high);
    Append(d, 'L', first, last, true, low);
    d += 'Z';
  });
  return d;
}

}  // namespace longwave::plot

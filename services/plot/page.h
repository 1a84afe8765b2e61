// A figure as a file: a standalone SVG, or an HTML page with the data and script that make it
// answer to the mouse. Colours live here. The script is in page_script.cc.
//
// Thread safety: const functions.
#pragma once

#include <string>

#include "services/plot/figure.h"

namespace longwave::plot {

std::string WrapSvg(const Figure& figure);
std::string WrapHtml(const Figure& figure);

// The bins of all resolutions and the geometry, as the JSON the script reads.
std::string PlotJson(const Figure& figure);

extern const char kPageScript[];  // JavaScript, no outside names

}  // namespace longwave::plot

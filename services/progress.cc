#include "services/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr auto kLineInterval = std::chrono::seconds(2);
constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr int kWidestBar = 40;

std::string Rate(const ProgressState& state) {
  const double tokens = static_cast<double>(state.tokens - state.before);
  const double rate = state.seconds > 0 ? tokens / state.seconds : 0;
  return absl::StrCat(WithCommas(static_cast<int64_t>(rate)), " tokens/s");
}

// Empty where unknown.
std::string TimeLeft(const ProgressState& state) {
  if (state.fraction <= 0 || state.tokens <= state.before) return "";
  const double fraction = std::min(state.fraction, 1.0);
  const double now = fraction * static_cast<double>(state.tokens - state.before) /
                     static_cast<double>(state.tokens);  // of the work, since the start
  return absl::StrCat(HumanSeconds(state.seconds * (1 - fraction) / now), " left");
}

int TerminalColumns(std::FILE* out) {
  winsize size = {};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string ProgressBar(const ProgressState& state, int columns) {
  std::string line = absl::StrCat(WithCommas(state.tokens), " tokens  ", Rate(state));
  if (state.fraction >= 0) {
    const double fraction = std::min(state.fraction, 1.0);
    line = absl::StrFormat("%3d %%  %s", static_cast<int>(100 * fraction), line);
    const std::string left = TimeLeft(state);
    if (!left.empty()) absl::StrAppend(&line, "  ", left);
    const int cells = std::min(kWidestBar, columns - static_cast<int>(line.size()) - 4);
    if (cells > 0) {
      const int full = static_cast<int>(fraction * cells);
      line = absl::StrCat("[", std::string(full, '#'), std::string(cells - full, '.'), "] ", line);
    }
  }
  if (static_cast<int>(line.size()) > columns) line.resize(std::max(columns, 0));
  return line;
}

std::string ProgressLine(const ProgressState& state) {
  std::string line = absl::StrCat(WithCommas(state.tokens), " tokens");
  if (state.fraction >= 0) {
    absl::StrAppend(&line, " (", static_cast<int>(100 * std::min(state.fraction, 1.0)), " %)");
  }
  absl::StrAppend(&line, ", ", Rate(state));
  const std::string left = TimeLeft(state);
  return left.empty() ? line : absl::StrCat(line, ", ", left);
}

double SteadyFraction::Update(int64_t tokens, double fraction) {
  if (fraction > read_) {
    reached_ = read_;
    read_ = fraction;
    tokens_ = tokens;
  }
  if (fraction < 0 || reached_ <= 0 || tokens_ <= 0) return -1;
  return std::min(read_, reached_ * static_cast<double>(tokens) / static_cast<double>(tokens_));
}

Progress::Style Progress::StyleOfStderr(bool quiet) {
  if (quiet) return Style::kNone;
  return isatty(STDERR_FILENO) ? Style::kBar : Style::kLines;
}

Progress::Progress(Style style, std::FILE* out) : style_(style), out_(out), start_(Clock::now()) {
  next_ = start_ + (style == Style::kBar ? Clock::duration(kBarInterval) : kLineInterval);
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::Update(int64_t tokens, double fraction) {
  if (style_ == Style::kNone) return;
  fraction = steady_.Update(tokens, fraction);
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  const ProgressState state{tokens, seconds(), fraction, before_};
  if (style_ == Style::kBar) {
    next_ = now + kBarInterval;
    drawn_ = true;
    // One column less: writing the last one would wrap in some terminals. ESC [ K clears what is
    // left.
    const std::string bar = ProgressBar(state, TerminalColumns(out_) - 1);
    std::fprintf(out_, "\r%s\033[K", bar.c_str());
  } else {
    next_ = now + kLineInterval;
    std::fprintf(out_, "%s\n", ProgressLine(state).c_str());
  }
  std::fflush(out_);
}

void Progress::Clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", out_);
  std::fflush(out_);
  drawn_ = false;
}

}  // namespace longwave

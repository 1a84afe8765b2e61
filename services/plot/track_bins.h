// Streaming statistics of a per-base track at several resolutions: bins of one width, then bins
// twice, four times, ... as wide, each with its mean, extremes and exact-to-1/128-nat percentiles.
// Memory depends on the number of bins asked for, never on the length of the track.
//
// Thread safety: none. Values are nats; NaN is "no value" and is counted, not averaged.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace longwave::plot {

// Counts of values in buckets of equal width from 0 up; the last bucket takes all that is above.
class ValueHistogram {
 public:
  ValueHistogram(double bucket_width, int buckets) : width_(bucket_width), counts_(buckets, 0) {}
  void Add(float value);
  void Merge(const ValueHistogram& other);  // REQUIRES: the same shape
  void Clear();
  int64_t total() const { return total_; }
  // The value below which a fraction q of the values lies, interpolated within its bucket; 0 if
  // none.
  double Quantile(double q) const;
  // How many values lie below `value`, a bucket that `value` cuts counted in proportion.
  double CountBelow(double value) const;

 private:
  double width_;
  std::vector<int64_t> counts_;
  int64_t total_ = 0;
};

struct Bin {
  int64_t count = 0;  // values in it that are not NaN; nothing below holds when 0
  double mean = 0;
  float min = std::numeric_limits<float>::infinity();
  float max = -std::numeric_limits<float>::infinity();
  float p10 = 0, p50 = 0, p90 = 0;
};

struct Resolution {
  int64_t width = 1;      // bases a bin covers; the last bin may cover fewer
  std::vector<Bin> bins;  // bin i covers positions [i * width, (i + 1) * width)
};

// The least of 1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, ... that cuts `length` into at most
// `max_bins` bins. REQUIRES: length >= 1, max_bins >= 1.
int64_t BinWidth(int64_t length, int64_t max_bins);

class TrackBins {
 public:
  // The finest resolution has at most `max_bins` bins, the coarsest at most kCoarsest.
  static constexpr int64_t kCoarsest = 64;
  TrackBins(int64_t length, int64_t max_bins);

  // The next values of the track, in order. An infinite or negative value is an error naming its
  // position. REQUIRES: no more than `length` in all.
  absl::Status Add(absl::Span<const float> values);
  // Closes the last bins. REQUIRES: all `length` values were added.
  void Finish();

  int64_t length() const { return length_; }
  const std::vector<Resolution>& resolutions() const { return resolutions_; }  // finest first
  // The finest with at most `bins` bins; the coarsest where none has.
  const Resolution& AtMost(int64_t bins) const;
  const Bin& overall() const { return overall_; }
  const ValueHistogram& histogram() const { return histogram_; }

 private:
  struct Open {  // the bin being filled at one resolution
    int64_t count = 0;
    double sum = 0;
    float min = std::numeric_limits<float>::infinity();
    float max = -std::numeric_limits<float>::infinity();
    ValueHistogram histogram;
  };
  static Bin Summary(const Open& open);
  void Close(size_t level);  // stores the open bin and adds it to the next resolution's

  int64_t length_;
  int64_t position_ = 0;
  std::vector<Resolution> resolutions_;
  std::vector<Open> open_;
  Bin overall_;
  ValueHistogram histogram_;
};

// The windows whose means are extreme: the `n` lowest (or highest) of `windows`,
// best first, any two at least `apart` windows from each other, windows less than half full left
// out.
std::vector<int64_t> ExtremeWindows(const Resolution& windows, int64_t n, int64_t apart,
                                    bool highest);

}  // namespace longwave::plot

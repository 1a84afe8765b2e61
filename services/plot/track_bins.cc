#include "services/plot/track_bins.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace longwave::plot {
namespace {

// 16 nats is a probability of 1e-7; what lies above is exact in min, max and mean all the same.
constexpr double kTop = 16;
constexpr double kBinBucket = 1.0 / 128;
constexpr double kOverallBucket = 1.0 / 1024;
// A loss computed as logsumexp - logit may round to just below zero.
constexpr float kLowest = -1e-3f;

ValueHistogram BinHistogram() { return {kBinBucket, static_cast<int>(kTop / kBinBucket)}; }

}  // namespace

void ValueHistogram::Add(float value) {
  const double bucket = std::max(0.0, value / width_);
  ++counts_[static_cast<size_t>(std::min(bucket, static_cast<double>(counts_.size() - 1)))];
  ++total_;
}

void ValueHistogram::Merge(const ValueHistogram& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  total_ += other.total_;
}

void ValueHistogram::Clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  total_ = 0;
}

double ValueHistogram::Quantile(double q) const {
  const double rank = q * static_cast<double>(total_);
  double below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    const double here = static_cast<double>(counts_[i]);
    if (here > 0 && below + here >= rank) return width_ * (i + (rank - below) / here);
    below += here;
  }
  return 0;
}

double ValueHistogram::CountBelow(double value) const {
  const double bucket = std::clamp(value / width_, 0.0, static_cast<double>(counts_.size()));
  const size_t whole = static_cast<size_t>(bucket);
  double below = 0;
  for (size_t i = 0; i < whole; ++i) below += static_cast<double>(counts_[i]);
  if (whole < counts_.size()) below += (bucket - whole) * static_cast<double>(counts_[whole]);
  return below;
}

int64_t BinWidth(int64_t length, int64_t max_bins) {
  const int64_t least = length / max_bins + (length % max_bins != 0);
  for (int64_t decade = 1;; decade *= 10) {
    for (int64_t width : {decade, 2 * decade, 5 * decade / 2, 5 * decade}) {
      if (width >= least) return width;  // 5 / 2 is 2, again
    }
  }
}

TrackBins::TrackBins(int64_t length, int64_t max_bins)
    : length_(length), histogram_(kOverallBucket, static_cast<int>(kTop / kOverallBucket)) {
  for (int64_t width = BinWidth(length, max_bins);; width *= 2) {
    const int64_t bins = (length - 1) / width + 1;
    resolutions_.push_back({width, {}});
    resolutions_.back().bins.reserve(bins);
    open_.push_back({.histogram = BinHistogram()});
    if (bins <= kCoarsest) break;
  }
}

absl::Status TrackBins::Add(absl::Span<const float> values) {
  if (position_ + static_cast<int64_t>(values.size()) > length_) std::abort();
  const int64_t width = resolutions_[0].width;
  Open& open = open_[0];
  for (float value : values) {
    if (!std::isnan(value)) {
      if (std::isinf(value) || value < kLowest) {
        return absl::InvalidArgumentError(
            absl::StrCat("entry ", position_, " is ", value,
                         ": a negative log-likelihood is finite and not below 0"));
      }
      ++open.count;
      open.sum += value;
      open.min = std::min(open.min, value);
      open.max = std::max(open.max, value);
      open.histogram.Add(value);
      histogram_.Add(value);
    }
    if (++position_ % width == 0) Close(0);
  }
  return absl::OkStatus();
}

Bin TrackBins::Summary(const Open& open) {
  Bin bin;
  if (open.count == 0) return bin;
  const auto quantile = [&](double q) {
    return std::clamp(static_cast<float>(open.histogram.Quantile(q)), open.min, open.max);
  };
  bin.count = open.count;
  bin.mean = open.sum / static_cast<double>(open.count);
  bin.min = open.min;
  bin.max = open.max;
  bin.p10 = quantile(0.1);
  bin.p50 = quantile(0.5);
  bin.p90 = quantile(0.9);
  return bin;
}

void TrackBins::Close(size_t level) {
  Open& open = open_[level];
  std::vector<Bin>& bins = resolutions_[level].bins;
  bins.push_back(Summary(open));
  if (level + 1 < open_.size()) {
    Open& next = open_[level + 1];
    next.count += open.count;
    next.sum += open.sum;
    next.min = std::min(next.min, open.min);
    next.max = std::max(next.max, open.max);
    next.histogram.Merge(open.histogram);
    if (bins.size() % 2 == 0) Close(level + 1);
  }
  open = {.histogram = std::move(open.histogram)};
  open.histogram.Clear();
}

void TrackBins::Finish() {
  if (position_ != length_) std::abort();
  for (size_t level = 0; level < open_.size(); ++level) {
    const Resolution& r = resolutions_[level];
    if (static_cast<int64_t>(r.bins.size()) * r.width < length_) Close(level);
  }
  double sum = 0;
  for (const Bin& bin : resolutions_.back().bins) {
    if (bin.count == 0) continue;
    overall_.count += bin.count;
    sum += bin.mean * static_cast<double>(bin.count);
    overall_.min = std::min(overall_.min, bin.min);
    overall_.max = std::max(overall_.max, bin.max);
  }
  if (overall_.count == 0) return;
  overall_.mean = sum / static_cast<double>(overall_.count);
  overall_.p10 = static_cast<float>(histogram_.Quantile(0.1));
  overall_.p50 = static_cast<float>(histogram_.Quantile(0.5));
  overall_.p90 = static_cast<float>(histogram_.Quantile(0.9));
}

const Resolution& TrackBins::AtMost(int64_t bins) const {
  for (const Resolution& r : resolutions_) {
    if (static_cast<int64_t>(r.bins.size()) <= bins) return r;
  }
  return resolutions_.back();
}

std::vector<int64_t> ExtremeWindows(const Resolution& windows, int64_t n, int64_t apart,
                                    bool highest) {
  std::vector<int64_t> order;
  for (size_t i = 0; i < windows.bins.size(); ++i) {
    if (2 * windows.bins[i].count >= windows.width) order.push_back(static_cast<int64_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const double x = windows.bins[a].mean, y = windows.bins[b].mean;
    return highest ? x > y : x < y;
  });
  std::vector<int64_t> chosen;
  for (int64_t i : order) {
    if (static_cast<int64_t>(chosen.size()) == n) break;
    if (std::all_of(chosen.begin(), chosen.end(),
                    [&](int64_t c) { return std::abs(c - i) >= apart; })) {
      chosen.push_back(i);
    }
  }
  return chosen;
}

}  // namespace longwave::plot

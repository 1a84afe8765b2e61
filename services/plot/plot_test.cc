#include "services/plot/plot.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "formats/npy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/plot/page.h"
#include "services/plot/svg.h"
#include "services/plot/track_bins.h"

namespace longwave::plot {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kBins = 4000;

std::vector<float> Losses(int64_t length) {
  std::mt19937 random(7);
  std::gamma_distribution<float> loss(4.0f, 0.32f);
  std::vector<float> values(length);
  for (float& v : values) v = loss(random);
  return values;
}

TrackBins Binned(const std::vector<float>& values, int64_t max_bins, size_t piece = 1000) {
  TrackBins bins(static_cast<int64_t>(values.size()), max_bins);
  for (size_t at = 0; at < values.size(); at += piece) {
    EXPECT_TRUE(bins.Add(absl::MakeConstSpan(values).subspan(at, piece)).ok());
  }
  bins.Finish();
  return bins;
}

// Every bin of every resolution against the values it covers.
void ExpectMatches(const TrackBins& bins, const std::vector<float>& values) {
  const int64_t length = static_cast<int64_t>(values.size());
  for (const Resolution& r : bins.resolutions()) {
    ASSERT_EQ(static_cast<int64_t>(r.bins.size()), (length - 1) / r.width + 1);
    for (size_t i = 0; i < r.bins.size(); ++i) {
      std::vector<float> mine;
      for (int64_t k = i * r.width; k < std::min<int64_t>((i + 1) * r.width, length); ++k) {
        if (!std::isnan(values[k])) mine.push_back(values[k]);
      }
      const Bin& bin = r.bins[i];
      ASSERT_EQ(bin.count, static_cast<int64_t>(mine.size()));
      if (mine.empty()) continue;
      std::sort(mine.begin(), mine.end());
      double sum = 0;
      for (float v : mine) sum += v;
      ASSERT_THAT(bin.mean, DoubleNear(sum / mine.size(), 1e-9 * mine.size()));
      ASSERT_EQ(bin.min, mine.front());
      ASSERT_EQ(bin.max, mine.back());
      // A quantile lies between the order statistics around it, but for a bucket's width.
      for (auto [q, got] : {std::pair(0.1, bin.p10), {0.5, bin.p50}, {0.9, bin.p90}}) {
        const double rank = q * static_cast<double>(mine.size());
        const auto at = [&](double k) {
          return mine[static_cast<size_t>(std::clamp(k, 0.0, mine.size() - 1.0))];
        };
        ASSERT_GE(got, at(std::ceil(rank) - 1) - 1.0 / 128);
        ASSERT_LE(got, at(std::ceil(rank) - 1) + 1.0 / 128);
      }
    }
  }
}

TEST(BinWidthTest, IsTheLeastRoundWidth) {
  EXPECT_EQ(BinWidth(1, kBins), 1);
  EXPECT_EQ(BinWidth(kBins, kBins), 1);
  EXPECT_EQ(BinWidth(kBins + 1, kBins), 2);
  EXPECT_EQ(BinWidth(2 * kBins + 1, kBins), 5);
  EXPECT_EQ(BinWidth(1000000, kBins), 250);
  EXPECT_EQ(BinWidth(4938920, kBins), 2000);
  EXPECT_EQ(BinWidth(std::numeric_limits<int64_t>::max(), 10), 1000000000000000000);
}

class TrackBinsTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(TrackBinsTest, EveryResolutionMatchesTheValues) {
  std::vector<float> values = Losses(GetParam());
  if (values.size() > 1) values[0] = kNan;
  const TrackBins bins = Binned(values, kBins);
  EXPECT_LE(static_cast<int64_t>(bins.resolutions().front().bins.size()), kBins);
  EXPECT_LE(static_cast<int64_t>(bins.resolutions().back().bins.size()), TrackBins::kCoarsest);
  ExpectMatches(bins, values);
  double sum = 0;
  int64_t count = 0;
  for (float v : values) {
    if (!std::isnan(v)) sum += v, ++count;
  }
  EXPECT_EQ(bins.overall().count, count);
  EXPECT_NEAR(bins.overall().mean, sum / count, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Lengths, TrackBinsTest,
                         ::testing::Values(1, 2, 65, kBins - 1, kBins, kBins + 1, 131071, 1000000));

TEST(TrackBins, HowTheTrackIsFedDoesNotMatter) {
  const std::vector<float> values = Losses(10007);
  const TrackBins a = Binned(values, 100, 1), b = Binned(values, 100, 4096);
  for (size_t level = 0; level < a.resolutions().size(); ++level) {
    for (size_t i = 0; i < a.resolutions()[level].bins.size(); ++i) {
      EXPECT_EQ(a.resolutions()[level].bins[i].mean, b.resolutions()[level].bins[i].mean);
      EXPECT_EQ(a.resolutions()[level].bins[i].p50, b.resolutions()[level].bins[i].p50);
    }
  }
}

TEST(TrackBins, NanIsNoValue) {
  std::vector<float> values(1000, kNan);
  values[10] = 1.5f;
  values[999] = 0.5f;
  const TrackBins bins = Binned(values, 100);
  ASSERT_EQ(bins.resolutions()[0].width, 10);
  EXPECT_EQ(bins.resolutions()[0].bins[0].count, 0);
  EXPECT_EQ(bins.resolutions()[0].bins[1].count, 1);
  EXPECT_EQ(bins.resolutions()[0].bins[1].mean, 1.5);
  EXPECT_EQ(bins.overall().mean, 1.0);
  ExpectMatches(bins, values);
}

TEST(TrackBins, RefusesWhatIsNoLikelihood) {
  for (float bad : {std::numeric_limits<float>::infinity(), -1.0f}) {
    TrackBins bins(3, 10);
    const absl::Status status = bins.Add({kNan, bad, 1.0f});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("entry 1 is ", bad)));
  }
}

TEST(ExtremeWindows, AreApartAndOrdered) {
  std::vector<float> values(1000, 1.0f);
  values[500] = 9, values[501] = 8, values[200] = 7, values[800] = 0.1f, values[999] = 0.2f;
  values[3] = kNan;
  const TrackBins bins = Binned(values, 1000);
  EXPECT_THAT(ExtremeWindows(bins.resolutions()[0], 2, 5, true), ElementsAre(500, 200));
  EXPECT_THAT(ExtremeWindows(bins.resolutions()[0], 2, 5, false), ElementsAre(800, 999));
}

TEST(TickStep, IsRound) {
  EXPECT_DOUBLE_EQ(TickStep(1000, 10), 100);
  EXPECT_DOUBLE_EQ(TickStep(0.9, 6), 0.2);
  EXPECT_DOUBLE_EQ(TickStep(65.5, 10), 10);
}

// A small XML reader: fails on what a browser's XML parser would refuse.
std::string WhyNotWellFormed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = 0; at < xml.size();) {
    if (xml[at] == '&') {
      const size_t end = xml.find(';', at);
      if (end == std::string::npos || end - at > 8) return absl::StrCat("bare & at ", at);
      at = end;
    } else if (xml[at] == '<') {
      const size_t end = xml.find('>', at);
      if (end == std::string::npos) return absl::StrCat("unclosed < at ", at);
      const std::string tag = xml.substr(at + 1, end - at - 1);
      if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return absl::StrCat("quotes in ", tag);
      if (tag.find('<') != std::string::npos) return absl::StrCat("< within ", tag);
      const std::string name = tag.substr(0, tag.find_first_of(" /\n", 1));
      if (tag[0] == '/') {
        if (open.empty() || "/" + open.back() != tag) return absl::StrCat("unexpected ", tag);
        open.pop_back();
      } else if (tag[0] != '?' && tag.back() != '/') {
        open.push_back(name);
      }
      at = end;
    }
    ++at;
  }
  return open.empty() ? "" : "unclosed " + open.back();
}

class PlotFileTest : public ::testing::Test {
 protected:
  PlotFileTest() {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("plot_test.", getpid(), ".",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  ~PlotFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }

  template <typename T>
  std::string WriteNpy(const std::string& name, NpyType type, const std::vector<T>& values,
                       const std::vector<int64_t>& shape) {
    auto writer = NpyWriter::Create(Path(name), type);
    EXPECT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE((*writer)->Append(absl::MakeConstSpan(values)).ok());
    EXPECT_TRUE((*writer)->Commit(shape).ok());
    return Path(name);
  }
  std::string WriteTrack(const std::string& name, std::vector<float> values) {
    const int64_t length = static_cast<int64_t>(values.size());
    return WriteNpy(name, NpyType::kFloat32, values, {length});
  }
  std::string WriteText(const std::string& name, const std::string& text) {
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }
  static std::string Contents(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  // The message of a plot that fails; nothing stands under the output's name or beside it.
  std::string Refusal(const std::string& track, const PlotOptions& options = {}) {
    const auto files = [&] {
      return std::distance(std::filesystem::directory_iterator(folder_), {});
    };
    const auto before = files();
    const auto result = PlotTrack(track, Path("out.html"), options);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
    EXPECT_EQ(files(), before);
    return std::string(result.status().message());
  }

  std::filesystem::path folder_;
};

std::vector<float> LossesAfterNan(int64_t length) {
  std::vector<float> values = Losses(length);
  values[0] = kNan;
  return values;
}

TEST_F(PlotFileTest, HtmlStandsAlone) {
  const std::string track = WriteTrack("track.npy", LossesAfterNan(30000));
  PlotOptions options;
  options.title = "A & B <\"genome\">";
  const auto summary = PlotTrack(track, Path("out.html"), options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(*summary, HasSubstr("30,000 bases, mean "));
  const std::string html = Contents(Path("out.html"));
  for (const char* outside : {"http", "src=", "href", "@import", "url(//"}) {
    EXPECT_THAT(html, Not(HasSubstr(outside)));
  }
  EXPECT_THAT(html, HasSubstr("A &amp; B &lt;&quot;genome&quot;&gt;"));
  EXPECT_THAT(html, HasSubstr("Position (kb)"));
  EXPECT_THAT(html, HasSubstr("Bits per base"));
  EXPECT_THAT(html, Not(HasSubstr("$ink")));
  const size_t begin = html.find("<svg"), end = html.find("</svg>");
  ASSERT_NE(end, std::string::npos);
  EXPECT_EQ(WhyNotWellFormed(html.substr(begin, end + 6 - begin)), "");
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

TEST_F(PlotFileTest, SvgIsWellFormedAtAnyLength) {
  for (int64_t length : {2, 3, 119, 501, 4999, 5001, 70001}) {
    const std::string track = WriteTrack("track.npy", LossesAfterNan(length));
    for (bool bits : {true, false}) {
      PlotOptions options;
      options.bits = bits;
      ASSERT_TRUE(PlotTrack(track, Path("out.svg"), options).ok());
      const std::string svg = Contents(Path("out.svg"));
      EXPECT_EQ(WhyNotWellFormed(svg), "");
      EXPECT_THAT(svg, HasSubstr(bits ? "Bits per base" : "Nats per base"));
      EXPECT_THAT(svg, Not(HasSubstr("nan,")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
    }
  }
}

TEST_F(PlotFileTest, ValuesAllAlikeAreDrawn) {
  for (float value : {0.0f, 1.3862944f, 40.0f}) {
    const std::string track = WriteTrack("track.npy", std::vector<float>(300, value));
    ASSERT_TRUE(PlotTrack(track, Path("out.svg"), {}).ok());
    EXPECT_EQ(WhyNotWellFormed(Contents(Path("out.svg"))), "");
  }
}

TEST_F(PlotFileTest, TakesNameAndGcFromTheRecordAsLongAsTheTrack) {
  const std::string track = WriteTrack("track.npy", LossesAfterNan(2000));
  PlotOptions options;
  options.genome =
      WriteText("two.fna", ">short\nACGT\n>gi|7|ref|NC_1.1| Thing\n" + std::string(1000, 'g') +
                               "\n" + std::string(1000, 'N') + "\n");
  const auto figure = ReadFigure(track, options);
  ASSERT_TRUE(figure.ok()) << figure.status();
  EXPECT_EQ(figure->genome->name, "NC_1.1");
  EXPECT_EQ(figure->genome->Fraction(0, 500), 1.0);
  EXPECT_LT(figure->genome->Fraction(1000, 2000), 0);
  EXPECT_THAT(WrapSvg(*figure), HasSubstr("Position in NC_1.1 (bases)"));

  options.genome = WriteText("short.fna", ">a\nACGT\n>b\nAC\n");
  const std::string message = Refusal(track, options);
  EXPECT_THAT(message, HasSubstr("short.fna: no record is as long as the track, 2000"));
  EXPECT_THAT(message, HasSubstr("4, 2"));
}

TEST_F(PlotFileTest, BadInputIsRefusedWithPathAndWhatWasFound) {
  EXPECT_THAT(Refusal(WriteText("text.npy", "not an array")), HasSubstr("text.npy"));
  EXPECT_THAT(Refusal(WriteText("nothing.npy", "")), HasSubstr("nothing.npy"));
  EXPECT_THAT(Refusal(WriteNpy<int32_t>("ids.npy", NpyType::kInt32, {1, 2}, {2})),
              HasSubstr("ids.npy: holds int32"));
  EXPECT_THAT(Refusal(WriteNpy<float>("square.npy", NpyType::kFloat32, {1, 2, 3, 4}, {2, 2})),
              HasSubstr("square.npy: has shape (2, 2)"));
  EXPECT_THAT(Refusal(WriteTrack("empty.npy", {})), HasSubstr("empty.npy"));
  EXPECT_THAT(Refusal(WriteTrack("nan.npy", {kNan, kNan})), HasSubstr("all 2 entries are NaN"));
  EXPECT_THAT(Refusal(WriteTrack("minus.npy", {kNan, -3})), HasSubstr("minus.npy: entry 1 is -3"));
  const std::string whole = Contents(WriteTrack("whole.npy", Losses(100)));
  EXPECT_THAT(Refusal(WriteText("cut.npy", whole.substr(0, whole.size() - 7))),
              HasSubstr("cut.npy"));
}

TEST_F(PlotFileTest, TheOutputsNameSaysTheFormat) {
  const std::string track = WriteTrack("track.npy", {kNan, 1});
  const auto result = PlotTrack(track, Path("out.png"), {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(Path("out.png")));
}

}  // namespace
}  // namespace longwave::plot

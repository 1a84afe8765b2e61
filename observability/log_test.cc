#include "observability/log.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "boost/json/parse.hpp"

namespace longwave::log {
namespace {

using std::chrono::system_clock;

const system_clock::time_point kTime =
    system_clock::from_time_t(1772366400) + std::chrono::milliseconds(7);

std::string JsonLine(absl::string_view message, Fields fields) {
  return Line(Format::kJson, kTime, Level::kInfo, message, {fields.begin(), fields.size()});
}

TEST(Log, AJsonLine) {
  const std::string job = "4f1c";
  EXPECT_EQ(JsonLine("chunk committed", {{"job", job},
                                         {"chunk", 3},
                                         {"epoch", int64_t{1} << 40},
                                         {"worker", "w 1"},
                                         {"seconds", 0.5},
                                         {"final", true}}),
            R"({"ts":"2026-03-01T12:00:00.007Z","level":"info","message":"chunk committed",)"
            R"("job":"4f1c","chunk":3,"epoch":1099511627776,"worker":"w 1","seconds":0.5,)"
            R"("final":true})");
}

TEST(Log, ATextLine) {
  const std::vector<Field> fields = {
      {"job", "4f1c"}, {"chunk", 3}, {"error", "a \"b\"\n"}, {"worker", ""}};
  EXPECT_EQ(Line(Format::kText, kTime, Level::kWarning, "chunk\nfailed", fields),
            "2026-03-01T12:00:00.007Z warning chunk failed job=4f1c chunk=3 "
            "error=\"a \\\"b\\\"\\n\" worker=\"\"");
}

TEST(Log, AnyBytesAreOneLineOfValidJson) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    const std::string line = JsonLine(bytes, {{"error", bytes}, {bytes, 1.5}});
    EXPECT_EQ(line.find_first_of("\r\n"), std::string::npos);
    boost::system::error_code code;
    const boost::json::value value = boost::json::parse(line, code);
    ASSERT_FALSE(code) << line;
    EXPECT_EQ(value.at("message"), value.at("error"));
    const std::string text = Line(Format::kText, kTime, Level::kInfo, bytes, {});
    EXPECT_EQ(text.find_first_of("\r\n"), std::string::npos);
  }
}

TEST(Log, NumbersThatAreNone) {
  const std::string line = JsonLine("x", {{"seconds", std::numeric_limits<double>::quiet_NaN()},
                                          {"bytes", std::numeric_limits<int64_t>::min()}});
  EXPECT_EQ(boost::json::parse(line).at("seconds"), nullptr);
  EXPECT_EQ(boost::json::parse(line).at("bytes"), std::numeric_limits<int64_t>::min());
}

TEST(Log, LinesGoToStandardErrorFromTheirLevelOn) {
  ASSERT_TRUE(Configure("json", "warning").ok());
  testing::internal::CaptureStderr();
  Debug("a");
  Info("b", {{"job", "x"}});
  Warning("c", {{"job", "x"}});
  Error("{} %s");
  const std::string lines = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(Configure("text", "info").ok());
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2) << lines;
  EXPECT_NE(lines.find("\"message\":\"c\",\"job\":\"x\"}\n"), std::string::npos) << lines;
  EXPECT_NE(lines.find("\"level\":\"error\",\"message\":\"{} %s\"}\n"), std::string::npos) << lines;
}

TEST(Log, OptionsThatAreNone) {
  EXPECT_EQ(Configure("xml", "info").message(), "--log-format xml: must be text or json");
  EXPECT_EQ(Configure("json", "loud").message(),
            "--log-level loud: must be debug, info, warning or error");
}

}  // namespace
}  // namespace longwave::log

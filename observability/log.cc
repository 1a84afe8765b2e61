#include "observability/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <cmath>
#include <ctime>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "boost/json/serialize.hpp"
#include "boost/json/string.hpp"
#include "boost/json/value.hpp"
#include "formats/utf8.h"

namespace longwave::log {
namespace {

std::atomic<Format> the_format = Format::kText;

spdlog::logger& Logger() {
  static spdlog::logger* const kLogger = [] {
    auto* logger =
        new spdlog::logger("longwave", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_pattern("%v");
    logger->set_level(spdlog::level::info);
    logger->flush_on(spdlog::level::trace);
    return logger;
  }();
  return *kLogger;
}

constexpr struct {
  const char* name;
  spdlog::level::level_enum level;
} kLevels[] = {{"debug", spdlog::level::debug},
               {"info", spdlog::level::info},
               {"warning", spdlog::level::warn},
               {"error", spdlog::level::err}};

// With its quotes.
std::string JsonString(absl::string_view bytes) {
  return boost::json::serialize(boost::json::string(ToUtf8(bytes)));
}

std::string JsonValue(const Field::Value& value) {
  if (const auto* truth = std::get_if<bool>(&value)) return *truth ? "true" : "false";
  if (const auto* whole = std::get_if<int64_t>(&value)) return absl::StrCat(*whole);
  if (const auto* number = std::get_if<double>(&value)) {
    return std::isfinite(*number) ? absl::StrCat(*number) : "null";
  }
  return JsonString(std::get<absl::string_view>(value));
}

std::string TextValue(const Field::Value& value) {
  if (const auto* number = std::get_if<double>(&value)) return absl::StrCat(*number);
  const auto* text = std::get_if<absl::string_view>(&value);
  if (text == nullptr) return JsonValue(value);
  bool plain = !text->empty() && ToUtf8(*text) == *text;
  for (const unsigned char c : *text) plain = plain && c > ' ' && c != '"' && c != 0x7f;
  return plain ? std::string(*text) : JsonString(*text);
}

std::string TimeText(std::chrono::system_clock::time_point time) {
  const int64_t ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = ms / 1000;
  std::tm day = {};
  gmtime_r(&seconds, &day);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", day.tm_year + 1900, day.tm_mon + 1,
                         day.tm_mday, day.tm_hour, day.tm_min, day.tm_sec, ms % 1000);
}

void Write(Level level, absl::string_view message, Fields fields) {
  const auto of_spdlog = kLevels[static_cast<int>(level)].level;
  if (!Logger().should_log(of_spdlog)) return;
  const std::string line = Line(the_format, std::chrono::system_clock::now(), level, message,
                                absl::MakeConstSpan(fields.begin(), fields.size()));
  Logger().log(of_spdlog, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

std::string Line(Format format, std::chrono::system_clock::time_point time, Level level,
                 absl::string_view message, absl::Span<const Field> fields) {
  const char* name = kLevels[static_cast<int>(level)].name;
  if (format == Format::kText) {
    std::string text = ToUtf8(message);
    for (char& c : text) c = static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    std::string line = absl::StrCat(TimeText(time), " ", name, " ", text);
    for (const Field& field : fields) {
      absl::StrAppend(&line, " ", field.name, "=", TextValue(field.value));
    }
    return line;
  }
  std::string line = absl::StrCat("{\"ts\":\"", TimeText(time), "\",\"level\":\"", name,
                                  "\",\"message\":", JsonString(message));
  for (const Field& field : fields) {
    absl::StrAppend(&line, ",", JsonString(field.name), ":", JsonValue(field.value));
  }
  return line + "}";
}

void Debug(absl::string_view message, Fields fields) { Write(Level::kDebug, message, fields); }
void Info(absl::string_view message, Fields fields) { Write(Level::kInfo, message, fields); }
void Warning(absl::string_view message, Fields fields) { Write(Level::kWarning, message, fields); }
void Error(absl::string_view message, Fields fields) { Write(Level::kError, message, fields); }

void Configure(Format format, Level level) {
  the_format = format;
  Logger().set_level(kLevels[static_cast<int>(level)].level);
}

absl::Status Configure(absl::string_view format, absl::string_view level) {
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-format ", format, ": must be text or json"));
  }
  for (int i = 0; i < 4; ++i) {
    if (level != kLevels[i].name) continue;
    Configure(format == "json" ? Format::kJson : Format::kText, static_cast<Level>(i));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--log-level ", level, ": must be debug, info, warning or error"));
}

}  // namespace longwave::log

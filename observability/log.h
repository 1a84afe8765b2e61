// Structured logs on standard error, one line an event:
//
//   log::Info("chunk committed", {{"job", id}, {"chunk", 3}, {"epoch", 5}, {"worker", name}});
//
//   {"ts":"2026-03-01T12:00:00.123Z","level":"info","message":"chunk committed","job":"4f1c",...}
//   2026-03-01T12:00:00.123Z info chunk committed job=4f1c chunk=3 epoch=5 worker=w1
//
// The names of fields are the same everywhere: job, chunk, epoch, worker, error, seconds, bytes.
//
// Thread safety: safe, but for Configure(), which comes first. Lines are whole. What cannot be
// written to standard error is lost.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace longwave::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJson };

// A name, not one of ts, level and message, and its value: a number, a truth, any bytes. Lives as
// long as the call it is an argument of.
class Field {
 public:
  using Value = std::variant<bool, int64_t, double, absl::string_view>;
  template <typename T>
  Field(absl::string_view name, const T& value) : name(name), value(Convert(value)) {}

  absl::string_view name;
  Value value;

 private:
  template <typename T>
  static Value Convert(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      return value;
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<int64_t>(value);
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<double>(value);
    } else {
      return absl::string_view(value);
    }
  }
};
using Fields = std::initializer_list<Field>;

void Debug(absl::string_view message, Fields fields = {});
void Info(absl::string_view message, Fields fields = {});
void Warning(absl::string_view message, Fields fields = {});
void Error(absl::string_view message, Fields fields = {});

// Lines below `level` are left out. Until this is called: text, info.
void Configure(Format format, Level level);
// From "text" or "json"; "debug", "info", "warning" or "error". InvalidArgument names the option
// and the value.
absl::Status Configure(absl::string_view format, absl::string_view level);

// One line, without its end. Not UTF-8: U+FFFD. In text, values with blanks, quotes or control
// characters are quoted as in JSON; a number that is not finite is null in JSON.
std::string Line(Format format, std::chrono::system_clock::time_point time, Level level,
                 absl::string_view message, absl::Span<const Field> fields);

}  // namespace longwave::log

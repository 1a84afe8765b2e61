#include "services/log_options.h"

#include <CLI/CLI.hpp>

#include "observability/log.h"

namespace longwave {

absl::Status LogOptions::Apply() const { return log::Configure(format, level); }

void AddLogOptions(CLI::App& app, LogOptions& options) {
  app.add_option("--log-format", options.format, "Of lines on standard error: text or json")
      ->capture_default_str();
  app.add_option("--log-level", options.level,
                 "Of lines on standard error: debug, info, warning or error")
      ->capture_default_str();
}

}  // namespace longwave

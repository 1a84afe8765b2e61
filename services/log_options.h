// How a process that stays logs: options that all of them have.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace longwave {

struct LogOptions {
  std::string format = "text", level = "info";

  absl::Status Apply() const;  // names a refused option and its value
};
// `options` must outlive the parsing.
void AddLogOptions(CLI::App& app, LogOptions& options);

}  // namespace longwave

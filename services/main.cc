// longwave: the program. Parses, runs what was asked for, maps its status to the exit code.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "absl/strings/str_replace.h"
#include "services/commands.h"
#include "services/signals.h"

namespace longwave {
namespace {

constexpr int kInternalFault = 1, kRefused = 2, kStopped = 128;  // + the signal

constexpr char kExamples[] = R"(Examples:
  longwave inspect examples/h3-dna
  longwave run examples/h3-dna examples/ecoli536.fna.gz --out track.npy
  longwave plot track.npy --out track.html
  longwave bench ops

longwave COMMAND --help says all of a command, with more examples.)";

int Fail(int code, absl::string_view message) {
  const std::string line = absl::StrReplaceAll(message, {{"\r", " "}, {"\n", " "}});
  std::fprintf(stderr, "longwave: %s\n", line.c_str());
  return code;
}

int Run(const Action& action) try {
  const absl::Status status = action();
  if (status.ok()) return 0;
  if (StopSignal() != 0) return Fail(kStopped + StopSignal(), CheckStop().message());
  return Fail(absl::IsInternal(status) ? kInternalFault : kRefused, status.message());
} catch (const std::bad_alloc&) {
  return Fail(kRefused, "out of memory (a smaller --chunk needs less)");
} catch (const std::exception& e) {
  return Fail(kInternalFault, e.what());
}

int Main(int argc, char** argv) {
  IgnoreWriteSignals();
  Action action;
  CLI::App app("Longwave runs state-space models over sequences of any length.", "longwave");
  app.set_version_flag("--version", "longwave " LONGWAVE_VERSION);
  app.require_subcommand(0, 1);  // the lack of one is said below, after what was typed instead
  app.footer(kExamples);
  AddRunCommand(app, action);
  AddInspectCommand(app, action);
  AddPlotCommand(app, action);
  AddBenchCommand(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return Fail(kRefused, std::string(e.what()) + " (see longwave --help)");
  }
  if (!action) return Fail(kRefused, "no command given (see longwave --help)");
  return Run(action);
}

}  // namespace
}  // namespace longwave

int main(int argc, char** argv) { return longwave::Main(argc, argv); }

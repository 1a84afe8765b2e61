// longwave: the program. Parses, runs what was asked for.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "services/commands.h"
#include "services/exit_code.h"
#include "services/signals.h"

namespace {

constexpr char kExamples[] = R"(Examples:
  longwave inspect examples/h3-dna
  longwave run examples/h3-dna examples/ecoli536.fna.gz --out track.npy
  longwave plot track.npy --out track.html
  longwave bench ops
  longwave serve --data DIR --models examples --workers 2
  longwave submit h3-dna genome.fa --wait

longwave COMMAND --help says all of a command, with more examples.)";

}  // namespace

int main(int argc, char** argv) {
  using namespace longwave;
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
  AddServeCommand(app, action);
  AddWorkerCommand(app, action);
  AddClientCommands(app, action);
  AddTokenCommand(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    const int code = app.exit(e);
    return std::cout.flush() ? code : Fail(kRefused, "cannot write standard output");
  } catch (const CLI::ParseError& e) {
    return Fail(kRefused, std::string(e.what()) + " (see longwave --help)");
  }
  if (!action) return Fail(kRefused, "no command given (see longwave --help)");
  return RunAction(action);
}

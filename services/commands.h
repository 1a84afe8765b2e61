// The subcommands of `longwave`. Each Add...Command adds itself and its options to `app`; when the
// command line names it, parsing sets `action` to the work to do: main() runs it and maps its
// status to the exit code (0; 2 for anything the caller can mend; 1 for a fault of ours; 128 + the
// signal that stopped it).
//
//   void AddFooCommand(CLI::App& app, Action& action) {
//     CLI::App* foo = app.add_subcommand("foo", "Does foo");
//     auto options = std::make_shared<FooOptions>();
//     foo->add_option("MODEL", options->model, "A model folder")->required();
//     foo->callback([options, &action] { action = [options] { return RunFoo(*options); }; });
//   }
#pragma once

#include <functional>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace longwave {

using Action = std::function<absl::Status()>;

void AddRunCommand(CLI::App& app, Action& action);
void AddInspectCommand(CLI::App& app, Action& action);
void AddPlotCommand(CLI::App& app, Action& action);
void AddBenchCommand(CLI::App& app, Action& action);
void AddServeCommand(CLI::App& app, Action& action);
void AddWorkerCommand(CLI::App& app, Action& action);
// submit, status, result, trace, cancel, list, workers, events
void AddClientCommands(CLI::App& app, Action& action);
void AddTokenCommand(CLI::App& app, Action& action);         // token create, list, revoke
void AddBenchModelCommand(CLI::App& bench, Action& action);  // `bench model`

}  // namespace longwave

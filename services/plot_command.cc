// `longwave plot`: a track of `longwave run --task score` as a picture.
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "services/commands.h"
#include "services/plot/plot.h"
#include "services/text.h"

namespace longwave {
namespace {

struct PlotArguments {
  std::string track, out, unit = "bits";
  plot::PlotOptions options;
};

absl::Status Plot(PlotArguments arguments) {
  arguments.options.bits = arguments.unit == "bits";
  auto summary = plot::PlotTrack(arguments.track, arguments.out, arguments.options);
  if (!summary.ok()) return summary.status();
  return PrintOut(*summary + "\n");
}

}  // namespace

void AddPlotCommand(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("plot", "Draws a track of per-base losses over the sequence");
  auto arguments = std::make_shared<PlotArguments>();
  command
      ->add_option("TRACK", arguments->track,
                   "Negative log-likelihoods in nats, 1-D float32 .npy (- for standard input)")
      ->required();
  command->add_option("--out", arguments->out, "Picture to write: .html (hover and zoom) or .svg")
      ->required();
  command->add_option("--title", arguments->options.title,
                      "Heading; the track's name when left out");
  command->add_option("--bins", arguments->options.bins, "Windows at the closest zoom, at most")
      ->check(CLI::Range(10, 20000))
      ->capture_default_str();
  command->add_option("--unit", arguments->unit, "bits or nats per base")
      ->check(CLI::IsMember({"bits", "nats"}))
      ->capture_default_str();
  command->add_option("--input", arguments->options.genome,
                      "The sequence scored (FASTA, plain or gzip), for its name and GC content");
  command->callback([arguments, &action] { action = [arguments] { return Plot(*arguments); }; });
}

}  // namespace longwave

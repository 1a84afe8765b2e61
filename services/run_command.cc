// `longwave run`: options, and what is printed.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "boost/json/serialize.hpp"
#include "services/commands.h"
#include "services/local_run.h"
#include "services/signals.h"
#include "services/text.h"

namespace longwave {
namespace {

constexpr char kExamples[] = R"(Examples:
  # Bits per base of a genome, and each base's negative log-likelihood (nats) in a file
  longwave run examples/h3-dna examples/ecoli536.fna.gz --out track.npy
  # The same of whatever comes down a pipe; one JSON object as the answer
  zcat genome.fa.gz | longwave run examples/h3-dna - --json
  # One vector for each 1000 tokens
  longwave run examples/h3-dna genome.fa --task embed --window 1000 --out vectors.npy
  # Continue a text, greedily or by sampling
  longwave run examples/h3-text --task generate --prompt "In the beginning "
  longwave run examples/h3-text story.txt --task generate --temperature 0.8 --top-p 0.95 --seed 7

Outputs are .npy files that appear whole or not at all:
  score     (L) float32      nats of each token given all before it; entry 0 is NaN
  embed     (ceil(L/W), d)   mean of the last hidden states over windows of W tokens
  logits    (L, vocabulary)
  generate  (N) int32        the new tokens, or their bytes where OUT does not end in .npy
  transform (L, width)       a stack of layers over float32 values of the same shape
An input (batch, L) gives each of these the same leading axis.

Typed again after an interruption, score, embed and logits over a file go on from OUT.resume, if
nothing has changed, and give the same bytes. A model with attention starts anew.

Exit code: 0; 2 for anything wrong with the command line, the model, the input or the output, said
in one line on standard error; 130 or 143 when stopped by a signal; 1 for a fault of this program.)";

// Generated text owns standard output: there, what is said of it goes to standard error.
absl::Status Say(const RunOptions& options, const std::string& line) {
  if (options.json || options.quiet) return absl::OkStatus();
  if (!options.StreamsText()) return PrintOut(line);
  std::fputs(line.c_str(), stderr);
  return absl::OkStatus();
}

absl::Status Run(const RunOptions& options) {
  const bool at_terminal = options.StreamsText() && isatty(STDOUT_FILENO);
  CatchStopSignals();
  LocalRun run(options);
  absl::StatusOr<RunReport> report = run.Run([&](const SequenceReport& sequence) {
    absl::Status ended = at_terminal ? PrintOut("\n") : absl::OkStatus();
    return ended.ok() ? Say(options, SequenceLine(sequence)) : ended;
  });
  if (!report.ok()) return report.status();
  if (options.json) return PrintOut(boost::json::serialize(ToJson(*report)) + "\n");
  return Say(options, TotalLine(*report));
}

}  // namespace

void AddRunCommand(CLI::App& app, Action& action) {
  CLI::App* run = app.add_subcommand("run", "Run a model over a sequence of any length");
  auto options = std::make_shared<RunOptions>();
  AddRunOptions(*run, *options);
  run->footer(kExamples);
  run->callback([run, options, &action] {
    action = [run, options] {
      absl::Status finished = FinishRunOptions(*run, *options);
      return finished.ok() ? Run(*options) : finished;
    };
  });
}

}  // namespace longwave

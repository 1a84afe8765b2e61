// `longwave inspect`: what a model is, and what running it takes.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "formats/safetensors.h"
#include "kernels/thread_pool.h"
#include "services/commands.h"
#include "services/run_limits.h"
#include "services/run_options.h"
#include "services/text.h"
#include "worker/model/model.h"

namespace longwave {
namespace {

namespace json = boost::json;

struct InspectOptions {
  std::string model;
  int64_t chunk = JobSpec().chunk;
  int threads = 0;
  bool json = false;
};

struct Inspection {
  std::shared_ptr<const Model> model;
  int64_t chunk, threads;
  int64_t file_bytes = 0;
  std::map<std::string, int64_t> dtypes;  // elements of each
  int64_t chunk_bytes = 0;
  int64_t cache_bytes_per_token = 0;

  const ModelConfig& config() const { return model->config(); }
  std::string type() const { return config().type == ModelConfig::Type::kH3 ? "h3" : "s4d"; }
};

absl::StatusOr<Inspection> Inspect(const InspectOptions& options) {
  JobSpec job;  // for its check of the chunk
  job.model = job.input = options.model;
  job.chunk = options.chunk;
  absl::Status valid = job.Validate();
  if (valid.ok()) valid = CheckThreads(options.threads);
  if (!valid.ok()) return valid;
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(options.model);
  if (!model.ok()) return model.status();
  const std::string path = options.model + "/model.safetensors";
  absl::StatusOr<std::shared_ptr<const Safetensors>> weights = Safetensors::Open(path);
  if (!weights.ok()) return weights.status();

  Inspection found;
  found.model = *model;
  found.chunk = options.chunk;
  found.threads = ThreadPool(options.threads).threads();
  found.file_bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  for (const auto& [name, tensor] : (*weights)->tensors()) {
    found.dtypes[Name(tensor.dtype)] += tensor.elements();
  }
  absl::Status fits = CheckChunkFits(**model, options.chunk, found.threads, PhysicalMemoryBytes());
  if (!fits.ok()) return fits;
  found.chunk_bytes = (*model)->workspace_bytes(options.chunk, found.threads);
  constexpr int64_t kMany = 1 << 20;  // caches grow by pages
  found.cache_bytes_per_token = (*model)->cache_bytes(kMany) / kMany;
  return found;
}

json::object ToJson(const Inspection& found) {
  const ModelConfig& config = found.config();
  json::object object;
  object["model"] = ToUtf8(found.model->folder());
  object["type"] = found.type();
  object["layers"] = config.n_layer;
  object["width"] = config.d_model;
  object["vocabulary"] = config.vocab_size;
  object["tokenizer"] = config.tokenizer;
  object["attention_layers"] =
      json::array(config.attn_layer_idx.begin(), config.attn_layer_idx.end());
  object["parameters"] = found.model->parameters();
  object["weight_file_bytes"] = found.file_bytes;
  json::object& dtypes = object["weight_dtypes"].emplace_object();
  for (const auto& [dtype, elements] : found.dtypes) dtypes[dtype] = elements;
  object["weight_memory_bytes"] = found.model->weight_bytes();
  object["state_bytes"] = found.model->state_bytes();
  json::array& state = object["state"].emplace_array();
  for (const StateTensorSpec& spec : found.model->state_specs()) {
    state.push_back(json::object{{"name", spec.name},
                                 {"shape", json::array(spec.shape.begin(), spec.shape.end())},
                                 {"bytes", spec.elements() * int64_t{sizeof(float)}}});
  }
  object["chunk"] = found.chunk;
  object["threads"] = found.threads;
  object["chunk_memory_bytes"] = found.chunk_bytes;
  object["cache_bytes_per_token"] = found.cache_bytes_per_token;
  return object;
}

std::string ExactBytes(int64_t bytes) {
  return absl::StrCat(HumanBytes(bytes), " (", WithCommas(bytes), " bytes)");
}

std::string ToText(const Inspection& found) {
  const ModelConfig& config = found.config();
  std::string text;
  const auto line = [&](absl::string_view label, absl::string_view value) {
    absl::StrAppendFormat(&text, "%-18s %s\n", label, value);
  };
  line("model", found.model->folder());
  line("type", found.type());
  line("layers",
       absl::StrCat(config.n_layer, config.attn_layer_idx.empty() ? "" : ", attention in ",
                    absl::StrJoin(config.attn_layer_idx, ", ")));
  line("width", absl::StrCat(config.d_model));
  if (config.vocab_size > 0) {
    line("vocabulary", absl::StrCat(config.vocab_size, config.tokenizer.empty()
                                                           ? ", token ids only"
                                                           : ", tokens are " + config.tokenizer));
  }
  line("parameters", WithCommas(found.model->parameters()));
  std::string dtypes;
  for (const auto& [dtype, elements] : found.dtypes) {
    absl::StrAppend(&dtypes, ", ", WithCommas(elements), " ", dtype);
  }
  line("weight file", ExactBytes(found.file_bytes) + dtypes);
  line("weights in memory", ExactBytes(found.model->weight_bytes()));
  line("memory of a chunk",
       absl::StrCat(ExactBytes(found.chunk_bytes), ", ", WithCommas(found.chunk), " tokens on ",
                    found.threads, " threads"));
  if (found.cache_bytes_per_token > 0) {
    line("attention cache",
         absl::StrCat(WithCommas(found.cache_bytes_per_token), " bytes a token"));
  }
  line("state", absl::StrCat(ExactBytes(found.model->state_bytes()), " a sequence:"));
  for (const StateTensorSpec& spec : found.model->state_specs()) {
    absl::StrAppendFormat(&text, "  %-24s %-22s %s\n", spec.name, ShapeString(spec.shape),
                          HumanBytes(spec.elements() * int64_t{sizeof(float)}));
  }
  return text;
}

absl::Status RunInspect(const InspectOptions& options) {
  absl::StatusOr<Inspection> found = Inspect(options);
  if (!found.ok()) return found.status();
  return PrintOut(options.json ? json::serialize(ToJson(*found)) + "\n" : ToText(*found));
}

}  // namespace

void AddInspectCommand(CLI::App& app, Action& action) {
  CLI::App* inspect =
      app.add_subcommand("inspect", "Say what a model is, and the memory that running it takes");
  auto options = std::make_shared<InspectOptions>();
  inspect->add_option("MODEL", options->model, "A folder with config.json and model.safetensors")
      ->required();
  inspect->add_option("--chunk", options->chunk, "Tokens of the chunk whose memory is told")
      ->capture_default_str();
  inspect->add_option("--threads", options->threads, "Threads; 0: one for each processor")
      ->capture_default_str();
  inspect->add_flag("--json", options->json, "Print one JSON object");
  inspect->footer("Example:\n  longwave inspect examples/h3-text --chunk 65536");
  inspect->callback([options, &action] { action = [options] { return RunInspect(*options); }; });
}

}  // namespace longwave

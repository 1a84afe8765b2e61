// The models that there are.
#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "services/cluster/api.h"
#include "services/text.h"

namespace longwave {
namespace {

boost::json::object ToJson(const std::string& name, const ModelEntry& entry) {
  const ModelConfig& config = entry.config;
  const bool h3 = config.type == ModelConfig::Type::kH3;
  boost::json::object object = {{"name", name},
                                {"sha256", entry.hash},
                                {"type", h3 ? "h3" : "s4d"},
                                {"layers", config.n_layer},
                                {"d_model", config.d_model},
                                {"d_state", config.d_state},
                                {"bytes", entry.bytes}};
  if (h3) {
    object["vocabulary"] = config.vocab_size;
    object["tokenizer"] = config.tokenizer.empty() ? "none" : config.tokenizer;
    object["attention_layers"] = config.attn_layer_idx.size();
  }
  object["sessions"] = h3 && config.attn_layer_idx.empty();
  return object;
}

}  // namespace

Api::Answer Api::ListModels(const Call& call) {
  boost::json::array list;
  for (const std::string& name : models_.Names()) {
    const absl::StatusOr<ModelEntry> entry = models_.Find(name);
    if (entry.ok()) {
      list.push_back(ToJson(name, *entry));
    } else {  // it is there, but cannot be used
      list.push_back({{"name", name}, {"error", ToUtf8(entry.status().message())}});
    }
  }
  return JsonResponse(200, {{"models", std::move(list)}});
}

Api::Answer Api::GetModel(const Call& call) {
  const std::string& name = call.ids[0];
  const absl::StatusOr<ModelEntry> entry = models_.Find(name);
  if (absl::IsInvalidArgument(entry.status()) && !models_.Has(name)) {
    return absl::NotFoundError(entry.status().message());  // it lists those that there are
  }
  if (!entry.ok()) return entry.status();
  return JsonResponse(200, ToJson(name, *entry));
}

}  // namespace longwave

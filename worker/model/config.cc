#include "worker/model/config.h"

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <limits>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace longwave {
namespace {

namespace json = boost::json;

// A value for a message, cut where it is long.
std::string Shown(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() > 80) text.replace(77, std::string::npos, "...");
  return text;
}

// Reads one object's fields; the first error stays.
class Fields {
 public:
  Fields(const json::object& object, const std::string& name) : object_(object), name_(name) {}

  const absl::Status& status() const { return status_; }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(name_, ": ", what));
  }

  // `out` keeps its value where the field is absent and not required.
  void Integer(const char* key, bool required, int64_t least, int64_t most, int64_t* out) {
    const json::value* value = Get(key, required);
    if (value == nullptr) return;
    if (!value->is_int64() || value->get_int64() < least || value->get_int64() > most) {
      return Fail(absl::StrCat("\"", key, "\" is ", Shown(*value), ", not a whole number from ",
                               least, " to ", most));
    }
    *out = value->get_int64();
  }

  void Positive(const char* key, double* out) {
    const json::value* value = Get(key, false);
    if (value == nullptr) return;
    const double number = value->is_number() ? value->to_number<double>() : 0;
    if (!(number >= std::numeric_limits<float>::min() &&
          number <= std::numeric_limits<float>::max())) {
      return Fail(absl::StrCat("\"", key, "\" is ", Shown(*value),
                               ", not a positive number within float32"));
    }
    *out = value->to_number<double>();
  }

  void Boolean(const char* key, bool* out) {
    const json::value* value = Get(key, false);
    if (value == nullptr) return;
    if (!value->is_bool()) {
      return Fail(absl::StrCat("\"", key, "\" is ", Shown(*value), ", not true or false"));
    }
    *out = value->get_bool();
  }

  // A string out of `allowed`, or any where that is empty.
  void String(const char* key, bool required, const std::vector<std::string>& allowed,
              std::string* out) {
    const json::value* value = Get(key, required);
    if (value == nullptr || (value->is_null() && !required)) return;
    const bool fits =
        value->is_string() && (allowed.empty() || std::count(allowed.begin(), allowed.end(),
                                                             std::string(value->get_string())) > 0);
    if (!fits) {
      std::string expected = allowed.empty() ? "a string" : "";
      for (const std::string& a : allowed) {
        absl::StrAppend(&expected, expected.empty() ? "\"" : " or \"", a, "\"");
      }
      return Fail(absl::StrCat("\"", key, "\" is ", Shown(*value), ", not ", expected));
    }
    *out = std::string(value->get_string());
  }

  void Layers(const char* key, int64_t n_layer, std::vector<int64_t>* out) {
    const json::value* value = Get(key, false);
    if (value == nullptr) return;
    std::set<int64_t> seen;
    bool good = value->is_array();
    if (good) {
      for (const json::value& v : value->get_array()) {
        good = good && v.is_int64() && v.get_int64() >= 0 && v.get_int64() < n_layer &&
               seen.insert(v.get_int64()).second;
      }
    }
    if (!good) {
      return Fail(absl::StrCat("\"", key, "\" is ", Shown(*value),
                               ", not a list of different layers from 0 to ", n_layer - 1));
    }
    out->assign(seen.begin(), seen.end());
  }

 private:
  const json::value* Get(const char* key, bool required) {
    const json::value* value = object_.if_contains(key);
    if (value == nullptr && required) Fail(absl::StrCat("\"", key, "\" is missing"));
    return value;
  }

  const json::object& object_;
  const std::string& name_;
  absl::Status status_;
};

constexpr int64_t kMostWidth = 1 << 20;
constexpr int64_t kMostHead = 1 << 16;  // heads of attention, and features of one

void ParseH3(Fields& fields, ModelConfig* config) {
  std::string ignored;
  bool tied = true;
  fields.Integer("d_state", false, 2, 1024, &config->d_state);  // the shift filter's taps too
  fields.Integer("vocab_size", true, 1, 1 << 24, &config->vocab_size);
  config->d_inner = 4 * config->d_model;
  fields.Integer("d_inner", false, 1, 4 * kMostWidth, &config->d_inner);
  fields.Integer("head_dim", false, 1, std::min<int64_t>(config->d_model, 4096), &config->head_dim);
  fields.Layers("attn_layer_idx", config->n_layer, &config->attn_layer_idx);
  fields.Integer("attn_num_heads", false, 0, std::min<int64_t>(config->d_model, kMostHead),
                 &config->attn_num_heads);
  fields.Integer("rotary_emb_dim", false, 0, config->d_model, &config->rotary_emb_dim);
  fields.Positive("layer_norm_epsilon", &config->layer_norm_epsilon);
  fields.String("activation", false, {"gelu_tanh"}, &ignored);
  fields.String("ssm_discretization", false, {"bilinear"}, &ignored);
  fields.String("tokenizer", false, {}, &config->tokenizer);
  fields.Boolean("tie_word_embeddings", &tied);
  if (!fields.status().ok()) return;
  const ModelConfig& c = *config;
  if (!tied) fields.Fail("\"tie_word_embeddings\" is false; the output matrix is the embedding");
  if (c.d_model % c.head_dim != 0) {
    fields.Fail(absl::StrCat("\"d_model\" = ", c.d_model,
                             " is not a multiple of \"head_dim\" = ", c.head_dim));
  }
  if (c.attn_layer_idx.empty()) return;
  if (c.attn_num_heads < 1 || c.d_model % c.attn_num_heads != 0) {
    fields.Fail(absl::StrCat("\"d_model\" = ", c.d_model,
                             " is not a multiple of \"attn_num_heads\" = ", c.attn_num_heads));
  } else if (c.d_model / c.attn_num_heads > kMostHead) {
    fields.Fail(absl::StrCat("\"attn_num_heads\" = ", c.attn_num_heads, " gives heads of ",
                             c.d_model / c.attn_num_heads, " features, more than ", kMostHead));
  } else if (c.rotary_emb_dim % 2 != 0 || c.rotary_emb_dim > c.d_model / c.attn_num_heads) {
    fields.Fail(absl::StrCat("\"rotary_emb_dim\" = ", c.rotary_emb_dim,
                             " is not even and at most the head size, ",
                             c.d_model / c.attn_num_heads));
  }
}

void ParseS4d(Fields& fields, ModelConfig* config) {
  std::string norm = "none", ignored;
  fields.String("norm", false, {"none", "pre", "post"}, &norm);
  fields.Boolean("residual", &config->residual);
  fields.Positive("layer_norm_epsilon", &config->layer_norm_epsilon);
  fields.String("activation", false, {"gelu_erf"}, &ignored);
  fields.String("ssm_discretization", false, {"zoh"}, &ignored);
  config->norm = norm == "pre"    ? ModelConfig::Norm::kPre
                 : norm == "post" ? ModelConfig::Norm::kPost
                                  : ModelConfig::Norm::kNone;
}

}  // namespace

bool ModelConfig::IsAttention(int64_t layer) const {
  return std::count(attn_layer_idx.begin(), attn_layer_idx.end(), layer) > 0;
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text, const std::string& name) {
  json::parse_options options;
  options.max_depth = 32;
  json::error_code error;
  json::value root = json::parse({text.data(), text.size()}, error, {}, options);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not JSON: ", error.message()));
  }
  if (!root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a JSON object"));
  }
  Fields fields(root.get_object(), name);
  ModelConfig config;
  std::string type;
  fields.String("model_type", true, {"h3", "s4d"}, &type);
  fields.Integer("d_model", true, 1, kMostWidth, &config.d_model);
  fields.Integer("n_layer", true, 1, 4096, &config.n_layer);
  fields.Integer("d_state", false, 2, 8192, &config.d_state);
  if (fields.status().ok() && config.d_state % 2 != 0) {
    fields.Fail(absl::StrCat("\"d_state\" is ", config.d_state, ", not even"));
  }
  if (!fields.status().ok()) return fields.status();
  if (type == "h3") {
    config.type = ModelConfig::Type::kH3;
    ParseH3(fields, &config);
  } else {
    config.type = ModelConfig::Type::kS4d;
    ParseS4d(fields, &config);
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::string text;
  char part[4096];
  while (file.read(part, sizeof(part)) || file.gcount() > 0) {
    text.append(part, static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return ParseModelConfig(text, path);
}

absl::StatusOr<ModelConfig> NamedShape(const std::string& name) {
  // https://huggingface.co/danfu09: GPT-2's vocabulary, padded.
  const struct {
    const char* name;
    int64_t d_model, n_layer;
    std::vector<int64_t> attention;
  } shapes[] = {{"h3-125m", 768, 12, {}},
                {"h3-355m", 1024, 24, {}},
                {"h3-1.3b", 2048, 24, {}},
                {"h3-1.3b-hybrid", 2048, 24, {8, 16}}};
  std::string names;
  for (const auto& shape : shapes) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", shape.name);
    if (name != shape.name) continue;
    ModelConfig config;
    config.d_model = shape.d_model;
    config.n_layer = shape.n_layer;
    config.d_inner = 4 * shape.d_model;
    config.vocab_size = 50264;
    config.attn_layer_idx = shape.attention;
    config.attn_num_heads = shape.attention.empty() ? 0 : 16;
    return config;
  }
  return absl::InvalidArgumentError(absl::StrCat("shape ", name, ": must be one of ", names));
}

}  // namespace longwave

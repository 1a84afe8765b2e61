// What config.json says of a model: see docs/models.md for every field.
//
// Thread safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longwave {

struct ModelConfig {
  enum class Type { kH3, kS4d };
  enum class Norm { kNone, kPre, kPost };

  Type type = Type::kH3;
  int64_t d_model = 0;
  int64_t n_layer = 0;
  int64_t d_state = 64;  // twice the stored conjugate pairs

  // H3
  int64_t d_inner = 0;
  int64_t vocab_size = 0;
  int64_t head_dim = 1;
  std::vector<int64_t> attn_layer_idx;
  int64_t attn_num_heads = 0;
  int64_t rotary_emb_dim = 0;
  double layer_norm_epsilon = 1e-5;
  std::string tokenizer;  // "bytes"; anything else: token ids only

  // S4D
  bool residual = true;
  Norm norm = Norm::kNone;

  int64_t pairs() const { return d_state / 2; }
  bool IsAttention(int64_t layer) const;
};

// Errors name the field, its value and what was expected; `name` stands in messages.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json, const std::string& name);
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);
// The shape of a published model: h3-125m, h3-355m, h3-1.3b (without attention), h3-1.3b-hybrid
// (as published, two attention layers). InvalidArgument names all of them.
absl::StatusOr<ModelConfig> NamedShape(const std::string& name);

}  // namespace longwave

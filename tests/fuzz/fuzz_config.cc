// Any bytes as config.json: refused in one line, or every field is what layers, kernels and the
// estimates of memory take for granted.
#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "tests/fuzz/fuzz_check.h"
#include "worker/model/config.h"

namespace longwave {
namespace {

using Wide = __int128;  // every product below fits

// The largest chunk to be asked for: SequenceRunner's, while an array of it has up to 2^44 floats.
int64_t LargestChunk(int64_t width) {
  return std::min(int64_t{1} << 32, (int64_t{1} << 44) / width);
}

void CheckFits(Wide floats) {
  FUZZ_CHECK(floats >= 0 && floats <= std::numeric_limits<int64_t>::max() / int64_t{sizeof(float)});
}

// What Model and its layers compute in int64 from the fields alone.
void CheckMemory(const ModelConfig& c) {
  const Wide d = c.d_model, layers = c.n_layer, attention = c.attn_layer_idx.size();
  const Wide chunk = LargestChunk(c.d_model), stride = chunk + 32;
  if (c.type == ModelConfig::Type::kH3) {
    CheckFits(c.vocab_size * d + layers * (4 * d * d + 2 * d * c.d_inner + 2 * d * c.d_state));
    CheckFits(layers * (d * (c.d_state - 1) + d * c.head_dim * c.d_state));  // halo, ssm
    CheckFits(attention * 2 * d * (chunk + 256));                            // caches
    CheckFits(chunk * d + 6 * stride * d + chunk * d);  // x; a, b, c, wide; hidden
  } else {
    CheckFits(layers * (2 * d * d + 2 * d * c.d_state));
    CheckFits(layers * d * c.d_state);                      // ssm
    CheckFits(chunk * d + 2 * stride * d + 2 * chunk * d);  // x; a, b; wide
  }
}

void CheckH3(const ModelConfig& c) {
  FUZZ_CHECK(c.vocab_size >= 1 && c.vocab_size <= int64_t{1} << 31);  // ids are int32
  FUZZ_CHECK(c.d_inner >= 1);
  FUZZ_CHECK(c.head_dim >= 1 && c.d_model % c.head_dim == 0);
  int64_t before = -1, counted = 0;
  for (int64_t layer : c.attn_layer_idx) {
    FUZZ_CHECK(layer > before && layer < c.n_layer);
    before = layer;
  }
  for (int64_t layer = 0; layer < c.n_layer; ++layer) counted += c.IsAttention(layer);
  FUZZ_CHECK(counted == static_cast<int64_t>(c.attn_layer_idx.size()));
  if (counted == 0) return;
  FUZZ_CHECK(c.attn_num_heads >= 1 && c.d_model % c.attn_num_heads == 0);
  FUZZ_CHECK(c.rotary_emb_dim >= 0 && c.rotary_emb_dim % 2 == 0);
  FUZZ_CHECK(c.rotary_emb_dim <= c.d_model / c.attn_num_heads);
}

// The program tells the types apart by their vocabularies, and asks for caches by attn_layer_idx.
void CheckS4d(const ModelConfig& c) {
  FUZZ_CHECK(c.vocab_size == 0 && c.attn_layer_idx.empty() && c.tokenizer.empty());
}

void CheckAccepted(const ModelConfig& c) {
  FUZZ_CHECK(c.d_model >= 1 && c.n_layer >= 1);
  FUZZ_CHECK(c.d_state >= 2 && c.d_state % 2 == 0 && 2 * c.pairs() == c.d_state);
  // The kernels take it as float32, where zero makes NaN of a constant row.
  FUZZ_CHECK(c.layer_norm_epsilon >= std::numeric_limits<float>::min());
  FUZZ_CHECK(c.layer_norm_epsilon <= std::numeric_limits<float>::max());
  if (c.type == ModelConfig::Type::kH3) {
    CheckH3(c);
  } else {
    CheckS4d(c);
  }
  CheckMemory(c);
}

void CheckRefusal(const absl::Status& status, size_t size) {
  const absl::string_view message = status.message();
  FUZZ_CHECK(absl::IsInvalidArgument(status) && absl::StartsWith(message, "fuzz: "));
  FUZZ_CHECK(message.size() < 1000 + 2 * size);  // 0.1 is shown as 1E-1
  for (char c : message) FUZZ_CHECK(static_cast<unsigned char>(c) >= ' ');
}

}  // namespace
}  // namespace longwave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config =
      longwave::ParseModelConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (config.ok()) {
    longwave::CheckAccepted(*config);
  } else {
    longwave::CheckRefusal(config.status(), size);
  }
  return 0;
}

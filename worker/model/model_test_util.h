// Models of random weights, written as files and loaded, and their runs, for tests.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/format_test_util.h"
#include "gtest/gtest.h"
#include "worker/executor/sequence_runner.h"
#include "worker/model/model.h"
#include "worker/model/relative_error_test_util.h"

namespace longwave {

using Floats = std::vector<float>;

// ---- Files of weights ----

enum class Stored { kF32, kF16, kBF16, kF64 };

// Rounds to nearest, ties to even. REQUIRES: within half precision's range.
inline uint16_t ToHalf(float x) {
  int exponent;
  std::frexp(x, &exponent);
  exponent = std::max(exponent - 1, -14);
  // From 1024 to 2048, below 1024 for a subnormal: its top bit adds one to the exponent.
  const int fraction = static_cast<int>(std::nearbyint(std::ldexp(std::abs(x), 10 - exponent)));
  return static_cast<uint16_t>((std::signbit(x) ? 0x8000 : 0) + ((exponent + 14) << 10) + fraction);
}

inline uint16_t ToBrain(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <typename T>
void Append(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  Floats values;
};

// A model folder's contents before they are written.
struct ModelFiles {
  std::string config;
  std::vector<Tensor> tensors;

  Tensor& Find(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const Tensor& tensor) { return tensor.name == name; });
  }
  int64_t parameters() const {
    return std::accumulate(
        tensors.begin(), tensors.end(), int64_t{0},
        [](int64_t sum, const Tensor& t) { return sum + static_cast<int64_t>(t.values.size()); });
  }
};

// `misaligned`: bytes from an 8-byte border to the data.
inline std::string SafetensorsBytes(const std::vector<Tensor>& tensors,
                                    Stored stored = Stored::kF32, size_t misaligned = 0) {
  std::string header = "{", data;
  for (const Tensor& tensor : tensors) {
    const size_t begin = data.size();
    for (float x : tensor.values) {
      if (stored == Stored::kF32) Append(x, &data);
      if (stored == Stored::kF64) Append(double{x}, &data);
      if (stored == Stored::kF16) Append(ToHalf(x), &data);
      if (stored == Stored::kBF16) Append(ToBrain(x), &data);
    }
    const char* const names[] = {"F32", "F16", "BF16", "F64"};
    absl::StrAppend(&header, header.size() > 1 ? "," : "", "\"", tensor.name, "\":{\"dtype\":\"",
                    names[static_cast<int>(stored)], "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", begin, ",",
                    data.size(), "]}");
  }
  header += "}";
  while (header.size() % 8 != misaligned) header += ' ';
  std::string bytes;
  Append(uint64_t{header.size()}, &bytes);
  return bytes + header + data;
}

inline absl::StatusOr<std::shared_ptr<const Model>> LoadFrom(const ModelFiles& files,
                                                             Stored stored = Stored::kF32,
                                                             size_t misaligned = 0) {
  const ScratchFolder folder;
  WriteFile(folder / "config.json", files.config);
  WriteFile(folder / "model.safetensors", SafetensorsBytes(files.tensors, stored, misaligned));
  return Model::Load(folder / ".");
}

inline std::shared_ptr<const Model> Loaded(const ModelFiles& files, Stored stored = Stored::kF32,
                                           size_t misaligned = 0) {
  absl::StatusOr<std::shared_ptr<const Model>> model = LoadFrom(files, stored, misaligned);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

// ---- Random models ----

class Builder {
 public:
  explicit Builder(uint64_t seed) : random_(seed) {}

  void Normal(const std::string& name, const std::vector<int64_t>& shape, double scale,
              double mean = 0) {
    Add(name, shape, [&](int64_t) { return mean + scale * normal_(random_); });
  }
  void Add(const std::string& name, const std::vector<int64_t>& shape,
           const std::function<double(int64_t)>& value) {
    Tensor tensor{name, shape, {}};
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    for (int64_t i = 0; i < count; ++i) tensor.values.push_back(static_cast<float>(value(i)));
    files.tensors.push_back(std::move(tensor));
  }
  void Norm(const std::string& prefix, int64_t width) {
    Normal(prefix + "weight", {width}, 0.1, 1);
    Normal(prefix + "bias", {width}, 0.1);
  }
  void Linear(const std::string& prefix, int64_t in, int64_t out) {
    Normal(prefix + "weight", {out, in}, 1 / std::sqrt(static_cast<double>(in)));
    Normal(prefix + "bias", {out}, 0.1);
  }
  // dt log-uniform from 1e-3 to 1e-1, A = -1/2 + i pi n moved a little.
  void Poles(const std::string& prefix, const std::string& real, int64_t filters, int64_t pairs) {
    Add(prefix + "log_dt", {filters},
        [&](int64_t) { return std::log(1e-3) + std::log(100.0) * uniform_(random_); });
    Normal(prefix + real, {filters, pairs}, 0.1, std::log(0.5));
    Add(prefix + "A_imag", {filters, pairs},
        [&](int64_t i) { return M_PI * static_cast<double>(i % pairs) + 0.1 * normal_(random_); });
  }

  ModelFiles files;

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_;
};

struct H3Shape {
  int64_t d = 8, layers = 3, vocab = 11, d_state = 16, head_dim = 1, inner = 20;
  int64_t heads = 2, rotary = 0;
  std::vector<int64_t> attention = {};
};

inline ModelFiles RandomH3(const H3Shape& s, uint64_t seed = 1) {
  Builder b(seed);
  b.files.config = absl::StrCat(
      "{\"model_type\":\"h3\",\"d_model\":", s.d, ",\"n_layer\":", s.layers,
      ",\"vocab_size\":", s.vocab, ",\"d_state\":", s.d_state, ",\"head_dim\":", s.head_dim,
      ",\"d_inner\":", s.inner, ",\"attn_num_heads\":", s.heads, ",\"rotary_emb_dim\":", s.rotary,
      ",\"attn_layer_idx\":[", absl::StrJoin(s.attention, ","), "]}");
  const int64_t H = s.d / s.head_dim, P = s.d_state / 2;
  b.Normal("backbone.embeddings.word_embeddings.weight", {s.vocab, s.d}, 1);
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, "."), mixer = prefix + "mixer.";
    b.Norm(prefix + "norm1.", s.d);
    if (std::count(s.attention.begin(), s.attention.end(), i) > 0) {
      b.Linear(mixer + "Wqkv.", s.d, 3 * s.d);
      b.Linear(mixer + "out_proj.", s.d, s.d);
    } else {
      for (const char* name : {"q_proj.", "k_proj.", "v_proj.", "output_linear."}) {
        b.Linear(mixer + name, s.d, s.d);
      }
      b.Normal(mixer + "ssm_k_kernel.kernel.B", {s.d, s.d_state}, 0.3);
      b.Normal(mixer + "ssm_k_kernel.kernel.C", {1, s.d, s.d_state}, 0.3);
      b.Normal(mixer + "ssm_k_D", {s.d}, 1);
      b.Normal(mixer + "kernel.kernel.B", {H, P, 2}, 0.1, 1);
      b.Normal(mixer + "kernel.kernel.C", {1, H, P, 2}, 1);
      b.Poles(mixer + "kernel.kernel.", "inv_A_real", H, P);
      b.Normal(mixer + "D", {H}, 1);
    }
    b.Norm(prefix + "norm2.", s.d);
    b.Linear(prefix + "mlp.fc1.", s.d, s.inner);
    b.Linear(prefix + "mlp.fc2.", s.inner, s.d);
  }
  b.Norm("backbone.ln_f.", s.d);
  return std::move(b.files);
}

struct S4dShape {
  int64_t d = 6, layers = 3, d_state = 16;
  bool residual = true;
  std::string norm = "none";
};

constexpr double kS4dEpsilon = 1e-3;

inline ModelFiles RandomS4d(const S4dShape& s, uint64_t seed = 1) {
  Builder b(seed);
  b.files.config =
      absl::StrCat("{\"model_type\":\"s4d\",\"d_model\":", s.d, ",\"n_layer\":", s.layers,
                   ",\"d_state\":", s.d_state, ",\"residual\":", s.residual ? "true" : "false",
                   ",\"norm\":\"", s.norm, "\",\"layer_norm_epsilon\":", kS4dEpsilon, "}");
  const int64_t P = s.d_state / 2;
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = absl::StrCat("layers.", i, ".");
    b.Normal(prefix + "D", {s.d}, 1);
    b.Poles(prefix + "kernel.", "log_A_real", s.d, P);
    b.Normal(prefix + "kernel.C", {s.d, P, 2}, 1);
    b.Normal(prefix + "output_linear.0.weight", {2 * s.d, s.d, 1},
             2 / std::sqrt(static_cast<double>(s.d)));
    b.Normal(prefix + "output_linear.0.bias", {2 * s.d}, 0.1);
    if (s.norm != "none") b.Norm(prefix + "norm.", s.d);
  }
  return std::move(b.files);
}

// A small one of each type.
inline std::vector<ModelFiles> BothTypes() {
  return {RandomH3({.layers = 2, .rotary = 2, .attention = {1}}),
          RandomS4d({.layers = 2, .norm = "post"})};
}

// Every kind of layer and stack.
inline std::vector<ModelFiles> EveryKind() {
  return {RandomH3({.d_state = 64}),
          RandomH3({.head_dim = 4, .attention = {1}}),
          RandomH3({.d = 16, .rotary = 6, .attention = {0, 2}}),
          RandomS4d({}),
          RandomS4d({.residual = false}),
          RandomS4d({.norm = "pre"}),
          RandomS4d({.residual = false, .norm = "post"}),
          RandomS4d({.norm = "post"})};
}

// ---- Runs ----

inline bool IsH3(const Model& model) { return model.config().type == ModelConfig::Type::kH3; }

inline std::unique_ptr<SequenceRunner> Runner(const std::shared_ptr<const Model>& model,
                                              int64_t chunk, ThreadPool& pool) {
  auto runner = SequenceRunner::Create(model, {.chunk = chunk}, &pool);
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

// What a model is run on: ids of its vocabulary, or rows of floats.
struct Input {
  std::vector<int32_t> ids;
  Floats x;

  Input(const Model& model, int64_t length, uint64_t seed = 3) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    if (IsH3(model)) {
      for (int64_t t = 0; t < length; ++t) ids.push_back(random() % model.config().vocab_size);
    } else {
      for (int64_t i = 0; i < length * model.config().d_model; ++i) x.push_back(normal(random));
    }
  }
};

inline Floats HiddenOf(SequenceRunner& runner) {
  const absl::StatusOr<absl::Span<const float>> hidden = runner.hidden();
  EXPECT_TRUE(hidden.ok()) << hidden.status();
  return hidden.ok() ? Floats(hidden->begin(), hidden->end()) : Floats();
}

// The outputs of tokens [begin, begin + count): hidden rows, or the stack's.
inline Floats Step(SequenceRunner& runner, const Input& input, int64_t begin, int64_t count) {
  const size_t d = runner.model().config().d_model, at = begin, n = count;
  if (IsH3(runner.model())) {
    EXPECT_EQ(runner.Forward({input.ids.data() + at, n}), absl::OkStatus());
    return HiddenOf(runner);
  }
  Floats y(n * d);
  EXPECT_EQ(runner.Transform({input.x.data() + at * d, n * d}, absl::MakeSpan(y)),
            absl::OkStatus());
  return y;
}

// All outputs, in pieces of these sizes.
inline Floats RunPieces(SequenceRunner& runner, const Input& input,
                        const std::vector<int64_t>& pieces) {
  Floats all;
  int64_t begin = 0;
  for (int64_t count : pieces) {
    const Floats rows = Step(runner, input, begin, count);
    all.insert(all.end(), rows.begin(), rows.end());
    begin += count;
  }
  EXPECT_EQ(runner.position(), begin);
  return all;
}

inline Floats RunWhole(const std::shared_ptr<const Model>& model, const Input& input,
                       int64_t length, int threads = 1) {
  ThreadPool pool(threads);
  return RunPieces(*Runner(model, length, pool), input, {length});
}

inline bool SameBytes(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace longwave

// Models of random weights, written here as files: loading, what they declare, and their runs chunk
// by chunk. The published code's outputs are compared in tests/golden.
#include "worker/model/model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "formats/format_test_util.h"
#include "formats/shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/executor/sequence_runner.h"

namespace longwave {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Floats = std::vector<float>;

// ---- Files of weights ----

enum class Stored { kF32, kF16, kBF16, kF64 };

// Rounds to nearest, ties to even. REQUIRES: within half precision's range.
uint16_t ToHalf(float x) {
  int exponent;
  std::frexp(x, &exponent);
  exponent = std::max(exponent - 1, -14);
  // From 1024 to 2048, below 1024 for a subnormal: its top bit adds one to the exponent.
  const int fraction = static_cast<int>(std::nearbyint(std::ldexp(std::abs(x), 10 - exponent)));
  return static_cast<uint16_t>((std::signbit(x) ? 0x8000 : 0) + ((exponent + 14) << 10) + fraction);
}

uint16_t ToBrain(float x) {
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
std::string SafetensorsBytes(const std::vector<Tensor>& tensors, Stored stored = Stored::kF32,
                             size_t misaligned = 0) {
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

absl::StatusOr<std::shared_ptr<const Model>> LoadFrom(const ModelFiles& files,
                                                      Stored stored = Stored::kF32,
                                                      size_t misaligned = 0) {
  const ScratchFolder folder;
  WriteFile(folder / "config.json", files.config);
  WriteFile(folder / "model.safetensors", SafetensorsBytes(files.tensors, stored, misaligned));
  return Model::Load(folder / ".");
}

std::shared_ptr<const Model> Loaded(const ModelFiles& files, Stored stored = Stored::kF32,
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

ModelFiles RandomH3(const H3Shape& s, uint64_t seed = 1) {
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

ModelFiles RandomS4d(const S4dShape& s, uint64_t seed = 1) {
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

// Every kind of layer and stack.
std::vector<ModelFiles> EveryKind() {
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

bool IsH3(const Model& model) { return model.config().type == ModelConfig::Type::kH3; }

std::unique_ptr<SequenceRunner> Runner(const std::shared_ptr<const Model>& model, int64_t chunk,
                                       ThreadPool& pool) {
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

Floats HiddenOf(SequenceRunner& runner) {
  const absl::StatusOr<absl::Span<const float>> hidden = runner.hidden();
  EXPECT_TRUE(hidden.ok()) << hidden.status();
  return hidden.ok() ? Floats(hidden->begin(), hidden->end()) : Floats();
}

// The outputs of tokens [begin, begin + count): hidden rows, or the stack's.
Floats Step(SequenceRunner& runner, const Input& input, int64_t begin, int64_t count) {
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
Floats RunPieces(SequenceRunner& runner, const Input& input, const std::vector<int64_t>& pieces) {
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

Floats RunWhole(const std::shared_ptr<const Model>& model, const Input& input, int64_t length,
                int threads = 1) {
  ThreadPool pool(threads);
  return RunPieces(*Runner(model, length, pool), input, {length});
}

template <typename T>
double RelativeError(const Floats& got, const std::vector<T>& want) {
  if (got.size() != want.size() || got.empty()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? INFINITY : error;
}

bool SameBytes(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// ---- Loading ----

std::vector<ModelFiles> BothTypes() {
  return {RandomH3({.layers = 2, .rotary = 2, .attention = {1}}),
          RandomS4d({.layers = 2, .norm = "post"})};
}

TEST(ModelLoad, CountsParameters) {
  for (const ModelFiles& files : BothTypes()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    ASSERT_NE(model, nullptr);
    EXPECT_EQ(model->parameters(), files.parameters());
    EXPECT_GE(model->weight_bytes(), 4 * files.parameters());
  }
}

TEST(ModelLoad, EveryMissingTensorIsNamed) {
  for (const ModelFiles& files : BothTypes()) {
    for (size_t i = 0; i < files.tensors.size(); ++i) {
      ModelFiles spoilt = files;
      spoilt.tensors.erase(spoilt.tensors.begin() + static_cast<int64_t>(i));
      const auto model = LoadFrom(spoilt);
      EXPECT_TRUE(absl::IsNotFound(model.status())) << model.status();
      EXPECT_THAT(MessageOf(model),
                  AllOf(HasSubstr("model.safetensors: "),
                        HasSubstr(absl::StrCat("'", files.tensors[i].name, "'"))));
    }
  }
}

TEST(ModelLoad, EveryWrongShapeIsNamedWithBoth) {
  for (const ModelFiles& files : BothTypes()) {
    for (size_t i = 0; i < files.tensors.size(); ++i) {
      const Tensor& right = files.tensors[i];
      Tensor longer = right, deeper = right, turned = right;
      longer.shape[0] *= 2;
      longer.values.insert(longer.values.end(), right.values.begin(), right.values.end());
      deeper.shape.push_back(1);
      std::reverse(turned.shape.begin(), turned.shape.end());
      for (const Tensor& wrong : {longer, deeper, turned}) {
        if (wrong.shape == right.shape) continue;  // a square turned
        ModelFiles spoilt = files;
        spoilt.tensors[i] = wrong;
        const auto model = LoadFrom(spoilt);
        EXPECT_TRUE(absl::IsInvalidArgument(model.status())) << model.status();
        EXPECT_THAT(
            MessageOf(model),
            AllOf(HasSubstr("model.safetensors: "), HasSubstr(absl::StrCat("'", right.name, "'")),
                  HasSubstr(ShapeString(wrong.shape)), HasSubstr(ShapeString(right.shape))));
      }
    }
  }
}

TEST(ModelLoad, EveryNonFiniteTensorIsNamed) {
  for (const ModelFiles& files : BothTypes()) {
    for (size_t i = 0; i < files.tensors.size(); ++i) {
      const size_t at = i * 7 % files.tensors[i].values.size();
      ModelFiles spoilt = files;
      spoilt.tensors[i].values[at] = i % 2 == 0 ? NAN : -INFINITY;
      const auto model = LoadFrom(spoilt);
      EXPECT_TRUE(absl::IsInvalidArgument(model.status())) << model.status();
      EXPECT_THAT(MessageOf(model), AllOf(HasSubstr("model.safetensors: "),
                                          HasSubstr(absl::StrCat("'", files.tensors[i].name, "'")),
                                          testing::EndsWith(absl::StrCat(" at element ", at))));
    }
  }
}

// Finite numbers whose discretised filter is not.
TEST(ModelLoad, FiltersBeyondRangeAreNamed) {
  ModelFiles h3 = RandomH3({}), s4d = RandomS4d({});
  const std::string h3_kernel = "backbone.layers.1.mixer.kernel.kernel.";
  h3.Find(h3_kernel + "log_dt").values[3] = 1e4f;  // exp of it is infinite
  s4d.Find("layers.2.kernel.log_A_real").values[8] = -1e4f;
  s4d.Find("layers.2.kernel.A_imag").values[8] = 0;  // A = 0
  for (const auto& [files, kernel, filter] :
       {std::tuple(h3, h3_kernel, "filter 3"),
        std::tuple(s4d, std::string("layers.2.kernel."), "filter 1, pair 0")}) {
    const auto model = LoadFrom(files);
    EXPECT_TRUE(absl::IsInvalidArgument(model.status())) << model.status();
    EXPECT_THAT(MessageOf(model),
                AllOf(HasSubstr("model.safetensors: "), HasSubstr(kernel), HasSubstr(filter)));
  }
}

TEST(ModelLoad, FilesThatAreNotThere) {
  const ModelFiles files = RandomS4d({.layers = 1});
  const ScratchFolder folder;
  EXPECT_TRUE(absl::IsNotFound(Model::Load(folder / "none").status()));
  EXPECT_THAT(MessageOf(Model::Load(folder / "none")), HasSubstr(folder / "none"));
  EXPECT_TRUE(absl::IsNotFound(Model::Load(folder / ".").status()));
  EXPECT_THAT(MessageOf(Model::Load(folder / ".")), HasSubstr("config.json"));
  WriteFile(folder / "config.json", files.config);
  EXPECT_TRUE(absl::IsNotFound(Model::Load(folder / ".").status()));
  EXPECT_THAT(MessageOf(Model::Load(folder / ".")), HasSubstr("model.safetensors"));
  EXPECT_TRUE(absl::IsNotFound(Model::Load(folder / "config.json").status()));
}

TEST(ModelLoad, TensorsOfOthersAreIgnored) {
  ModelFiles files = RandomS4d({.layers = 1});
  const int64_t parameters = files.parameters();
  files.tensors.push_back({"optimizer.step", {2}, {NAN, 1}});
  EXPECT_EQ(Loaded(files)->parameters(), parameters);
}

// ---- Types of stored weights ----

TEST(StoredWeights, AnyTypeAndAlignmentOfTheSameValuesIsTheSameModel) {
  constexpr int64_t kLength = 70;
  for (const ModelFiles& files : BothTypes()) {
    for (const Stored stored : {Stored::kF16, Stored::kBF16, Stored::kF64, Stored::kF32}) {
      ModelFiles rounded = files;
      for (Tensor& tensor : rounded.tensors) {
        for (float& x : tensor.values) {
          if (stored == Stored::kBF16) x = std::bit_cast<float>(uint32_t{ToBrain(x)} << 16);
          if (stored != Stored::kF16 || x == 0) continue;
          const double unit = std::ldexp(1.0, std::max(std::ilogb(x), -14) - 10);
          x = static_cast<float>(std::nearbyint(x / unit) * unit);
        }
      }
      const std::shared_ptr<const Model> plain = Loaded(rounded);
      const Input input(*plain, kLength);
      const Floats want = RunWhole(plain, input, kLength);
      for (const size_t misaligned : {0, 1, 2, 7}) {
        const std::shared_ptr<const Model> model = Loaded(files, stored, misaligned);
        ASSERT_NE(model, nullptr);
        EXPECT_TRUE(SameBytes(RunWhole(model, input, kLength), want))
            << static_cast<int>(stored) << " " << misaligned;
        EXPECT_EQ(model->weight_bytes(), plain->weight_bytes());
      }
    }
  }
}

TEST(StoredWeights, RoundingMovesOutputsByAsMuch) {
  constexpr int64_t kLength = 70;
  for (const ModelFiles& files : BothTypes()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength);
    const Floats want = RunWhole(model, input, kLength);
    for (const auto& [stored, unit] :
         {std::pair(Stored::kF16, 0x1p-11), std::pair(Stored::kBF16, 0x1p-8)}) {
      const double error = RelativeError(RunWhole(Loaded(files, stored), input, kLength), want);
      EXPECT_GT(error, unit / 100);
      EXPECT_LT(error, unit * 50);
    }
  }
}

// ---- What a model declares ----

std::vector<std::string> SpecStrings(const Model& model) {
  std::vector<std::string> strings;
  for (const StateTensorSpec& spec : model.state_specs()) {
    strings.push_back(spec.name + " " + ShapeString(spec.shape));
  }
  return strings;
}

TEST(ModelState, NamesAndShapes) {
  EXPECT_THAT(SpecStrings(*Loaded(RandomH3({.d_state = 64, .attention = {1}}))),
              testing::ElementsAre("layers.0.halo (8, 63)", "layers.0.ssm (8, 1, 1, 2, 32)",
                                   "layers.2.halo (8, 63)", "layers.2.ssm (8, 1, 1, 2, 32)"));
  EXPECT_THAT(SpecStrings(*Loaded(RandomH3({.layers = 1, .d_state = 2, .head_dim = 4}))),
              testing::ElementsAre("layers.0.halo (8, 1)", "layers.0.ssm (2, 4, 4, 2, 1)"));
  EXPECT_THAT(SpecStrings(*Loaded(RandomH3({.layers = 1, .attention = {0}}))), testing::IsEmpty());
  EXPECT_THAT(SpecStrings(*Loaded(RandomS4d({.layers = 2, .d_state = 64}))),
              testing::ElementsAre("layers.0.ssm (6, 2, 32)", "layers.1.ssm (6, 2, 32)"));
}

TEST(ModelState, NewStateIsZerosOfTheseShapes) {
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    ThreadPool pool(1);
    Stream stream(&pool);
    absl::StatusOr<ModelState> made = model->NewState(stream);
    ASSERT_TRUE(made.ok()) << made.status();
    const ModelState& state = *made;
    EXPECT_EQ(state.position, 0);
    ASSERT_EQ(state.tensors.size(), model->state_specs().size());
    int64_t bytes = 0;
    for (size_t i = 0; i < state.tensors.size(); ++i) {
      const float* values = state.tensors[i].floats();
      EXPECT_EQ(Floats(values, values + state.tensors[i].bytes() / 4),
                Floats(model->state_specs()[i].elements(), 0.0f));
      bytes += state.tensors[i].bytes();
    }
    EXPECT_EQ(model->state_bytes(), bytes);
    EXPECT_EQ(static_cast<int64_t>(state.caches.size()), model->attention_layers());
  }
}

// 63 tokens of halo and 64 numbers of state for each channel.
TEST(ModelState, BytesOfALayer) {
  for (const int64_t d : {4, 8, 32}) {
    for (const int64_t layers : {1, 3}) {
      EXPECT_EQ(Loaded(RandomH3({.d = d, .layers = layers, .d_state = 64}))->state_bytes(),
                layers * d * 4 * (63 + 64));
      EXPECT_EQ(Loaded(RandomS4d({.d = d, .layers = layers, .d_state = 64}))->state_bytes(),
                layers * d * 4 * 64);
    }
  }
}

TEST(ModelMemory, CachesGrowByPages) {
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.attention = {0, 2}}));
  const int64_t page = 2 * 2 * 8 * 256 * 4;  // layers, keys and values, width, tokens, bytes
  EXPECT_EQ(model->cache_bytes(0), 0);
  EXPECT_EQ(model->cache_bytes(1), page);
  EXPECT_EQ(model->cache_bytes(256), page);
  EXPECT_EQ(model->cache_bytes(257), 2 * page);
  EXPECT_EQ(Loaded(RandomH3({}))->cache_bytes(1 << 20), 0);
  EXPECT_EQ(Loaded(RandomS4d({}))->cache_bytes(1 << 20), 0);
}

TEST(ModelMemory, WorkspaceIsWhatItSays) {
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    for (const int64_t chunk : {1, 16, 17, 1000}) {
      const absl::StatusOr<Workspace> w = model->NewWorkspace(chunk);
      ASSERT_TRUE(w.ok()) << w.status();
      const int64_t hidden = IsH3(*model) ? 4 * chunk * model->config().d_model : 0;
      EXPECT_EQ(model->workspace_bytes(chunk, 0), w->bytes() + hidden);
      const int64_t scratch = model->workspace_bytes(chunk, 1) - model->workspace_bytes(chunk, 0);
      EXPECT_GT(scratch, 0);
      EXPECT_EQ(model->workspace_bytes(chunk, 9) - model->workspace_bytes(chunk, 0), 9 * scratch);
    }
  }
}

// ---- Runs of a sequence ----

TEST(SequenceRunner, ThreadsDoNotChangeABit) {
  constexpr int64_t kLength = 700;
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength);
    const Floats want = RunWhole(model, input, kLength, 1);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(SameBytes(RunWhole(model, input, kLength, threads), want))
          << threads << " threads, " << files.config;
    }
  }
}

// After one token of signal the states of a stack fade until they are subnormal.
TEST(SequenceRunner, ThreadsDoNotChangeABitOfFadedStates) {
  constexpr int64_t kLength = 2000;
  ModelFiles files = RandomS4d({.d = 4, .residual = false});
  for (Tensor& tensor : files.tensors) {
    const bool bias = tensor.name.find("bias") != std::string::npos;
    const bool dt = tensor.name.find("log_dt") != std::string::npos;
    for (float& x : tensor.values) x = bias ? 0.0f : dt ? -1.0f : x;
  }
  const std::shared_ptr<const Model> model = Loaded(files);
  Input input(*model, kLength);
  std::fill(input.x.begin() + 4, input.x.end(), 0.0f);
  const Floats want = RunWhole(model, input, kLength, 1);
  EXPECT_TRUE(std::any_of(want.begin(), want.end(), [](float x) {
    return std::fpclassify(x) == FP_SUBNORMAL;
  })) << "the input does not test what it should";
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(SameBytes(RunWhole(model, input, kLength, threads), want)) << threads;
  }
}

TEST(SequenceRunner, ChunksDoNotMatter) {
  constexpr int64_t kLength = 900;
  ThreadPool pool(1);
  double worst = 0;
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength);
    const Floats want = RunWhole(model, input, kLength);
    const std::unique_ptr<SequenceRunner> runner = Runner(model, kLength, pool);
    std::mt19937_64 random(5);
    for (const int64_t most : {1, 3, 31, 33, 64, 257, 899}) {
      std::vector<int64_t> pieces;
      for (int64_t left = kLength; left > 0; left -= pieces.back()) {
        pieces.push_back(std::min<int64_t>(left, most <= 64 ? most : 1 + random() % most));
      }
      runner->Reset();
      const double error = RelativeError(RunPieces(*runner, input, pieces), want);
      EXPECT_LE(error, 1e-5) << "pieces of " << most << ", " << files.config;
      worst = std::max(worst, error);
    }
  }
  RecordProperty("worst", absl::StrCat(worst));
}

TEST(SequenceRunner, ResetGivesTheSameBytes) {
  constexpr int64_t kLength = 300;
  ThreadPool pool(2);
  for (const ModelFiles& files : EveryKind()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, kLength), other(*model, kLength, 99);
    const std::unique_ptr<SequenceRunner> runner = Runner(model, kLength, pool);
    const std::vector<int64_t> pieces = {100, 1, 150, 49};
    const Floats first = RunPieces(*runner, input, pieces);
    EXPECT_FALSE(SameBytes(Step(*runner, input, 0, kLength), first));  // the state counts
    for (int i = 0; i < 2; ++i) {
      runner->Reset();
      EXPECT_EQ(runner->position(), 0);
      EXPECT_EQ(HiddenOf(*runner).size(), 0u);
      EXPECT_TRUE(SameBytes(RunPieces(*runner, input, pieces), first)) << files.config;
      Step(*runner, other, 0, kLength);
    }
  }
}

TEST(SequenceRunner, IdsOutsideTheVocabularyChangeNothing) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.attention = {1}}));
  const Input input(*model, 60);
  const auto undisturbed = Runner(model, 40, pool), disturbed = Runner(model, 40, pool);
  Step(*undisturbed, input, 0, 20);
  Step(*disturbed, input, 0, 20);
  const Floats hidden = HiddenOf(*disturbed);
  for (const int32_t bad : {-1, 11, 12, INT32_MAX, INT32_MIN}) {
    for (const size_t at : {0, 3, 19}) {
      std::vector<int32_t> ids(input.ids.begin() + 20, input.ids.begin() + 40);
      ids[at] = bad;
      ids[19] = -7;  // the first is said
      const absl::Status refused = disturbed->Forward(ids);
      EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
      EXPECT_THAT(
          MessageOf(refused),
          AllOf(HasSubstr(absl::StrCat("token id ", ids[at], " at position ", 20 + at, " ")),
                HasSubstr("vocabulary of 11")));
      EXPECT_EQ(disturbed->position(), 20);
      EXPECT_TRUE(SameBytes(HiddenOf(*disturbed), hidden));
    }
  }
  EXPECT_TRUE(SameBytes(Step(*disturbed, input, 20, 40), Step(*undisturbed, input, 20, 40)));
}

TEST(SequenceRunner, ChunksTooLongOrEmptyChangeNothing) {
  ThreadPool pool(1);
  for (const ModelFiles& files : {RandomH3({}), RandomS4d({})}) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input input(*model, 40);
    const auto runner = Runner(model, 20, pool), undisturbed = Runner(model, 20, pool);
    EXPECT_TRUE(SameBytes(Step(*runner, input, 0, 20), Step(*undisturbed, input, 0, 20)));
    const size_t d = model->config().d_model;
    for (const size_t n : {0, 21}) {
      Floats y(n * d);
      const absl::Status refused =
          IsH3(*model) ? runner->Forward({input.ids.data(), n})
                       : runner->Transform({input.x.data(), n * d}, absl::MakeSpan(y));
      EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
      EXPECT_THAT(MessageOf(refused), AllOf(HasSubstr(absl::StrCat("= ", n)), HasSubstr("20")));
    }
    EXPECT_TRUE(SameBytes(Step(*runner, input, 20, 20), Step(*undisturbed, input, 20, 20)));
  }
  const std::shared_ptr<const Model> model = Loaded(RandomS4d({}));
  for (const int64_t chunk : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
    const auto runner = SequenceRunner::Create(model, {.chunk = chunk}, &pool);
    EXPECT_TRUE(absl::IsInvalidArgument(runner.status()));
    EXPECT_THAT(MessageOf(runner), HasSubstr(absl::StrCat("chunk = ", chunk)));
  }
}

TEST(SequenceRunner, TokensAndSignalsAreNotMixed) {
  ThreadPool pool(1);
  const auto words = Runner(Loaded(RandomH3({})), 4, pool);
  const auto signals = Runner(Loaded(RandomS4d({})), 4, pool);
  Floats x(2 * 8), y(2 * 8);
  EXPECT_THAT(MessageOf(words->Transform(x, absl::MakeSpan(y))), HasSubstr("takes tokens"));
  EXPECT_THAT(MessageOf(signals->Forward({1, 2})), HasSubstr("takes signals"));
  EXPECT_TRUE(absl::IsInvalidArgument(signals->TokenLoss({1}, absl::MakeSpan(y).first(1))));
  EXPECT_EQ(words->position(), 0);
  EXPECT_EQ(signals->position(), 0);
}

TEST(SequenceRunner, CacheBudget) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.rotary = 4, .attention = {0, 2}}));
  const Input input(*model, 700);
  const int64_t page = model->cache_bytes(1), budget = 2 * page + 5;
  auto created = SequenceRunner::Create(model, {.chunk = 300, .cache_budget_bytes = budget}, &pool);
  ASSERT_TRUE(created.ok()) << created.status();
  SequenceRunner& runner = **created;
  const auto unlimited = Runner(model, 300, pool);
  for (int round = 0; round < 2; ++round) {
    Step(runner, input, 0, 300);
    Step(runner, input, 300, 100);
    for (const int64_t count : {113, 300}) {  // to 513: one beyond two pages
      const absl::Status refused =
          runner.Forward({input.ids.data() + 400, static_cast<size_t>(count)});
      EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
      EXPECT_THAT(MessageOf(refused), AllOf(HasSubstr(absl::StrCat("need ", 3 * page, " bytes")),
                                            HasSubstr(absl::StrCat("at ", 400 + count, " tokens")),
                                            HasSubstr(absl::StrCat("budget is ", budget, " bytes")),
                                            HasSubstr("enough for 512 tokens")));
      EXPECT_EQ(runner.position(), 400);
    }
    unlimited->Reset();
    RunPieces(*unlimited, input, {300, 100});
    EXPECT_TRUE(SameBytes(Step(runner, input, 400, 112), Step(*unlimited, input, 400, 112)));
    EXPECT_TRUE(absl::IsResourceExhausted(runner.Forward({1})));
    runner.Reset();  // gives the caches back
  }
  // Without attention there is nothing to pay for.
  const std::shared_ptr<const Model> pure = Loaded(RandomH3({}));
  auto free = SequenceRunner::Create(pure, {.chunk = 700, .cache_budget_bytes = 0}, &pool);
  ASSERT_TRUE(free.ok());
  EXPECT_EQ((*free)->Forward(input.ids), absl::OkStatus());
}

TEST(SequenceRunner, ASequenceWithAttentionGoesOnInAnotherRunner) {
  ThreadPool pool(1);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.rotary = 4, .attention = {0, 2}}));
  const Input input(*model, 700);
  const auto whole = Runner(model, 300, pool), one = Runner(model, 300, pool),
             other = Runner(model, 300, pool);
  const Floats want = RunPieces(*whole, input, {300, 250, 1, 149});
  std::vector<std::vector<CacheRows>> added;
  Floats got;
  for (const auto& [begin, count] : {std::pair{0, 300}, std::pair{300, 250}}) {
    const Floats values = Step(*one, input, begin, count);
    got.insert(got.end(), values.begin(), values.end());
    added.push_back(*one->ExportCaches(begin));
  }
  Step(*other, input, 0, 17);  // another sequence's caches are there
  EXPECT_TRUE(absl::IsFailedPrecondition(other->Seek(550)));
  ASSERT_EQ(other->Seek(0), absl::OkStatus());
  for (const auto& rows : added) ASSERT_EQ(other->AppendCaches(rows), absl::OkStatus());
  ASSERT_EQ(other->Seek(550), absl::OkStatus());
  ASSERT_EQ(other->ImportState(*one->ExportState()), absl::OkStatus());
  for (const auto& [begin, count] : {std::pair{550, 1}, std::pair{551, 149}}) {
    const Floats values = Step(*other, input, begin, count);
    got.insert(got.end(), values.begin(), values.end());
  }
  EXPECT_TRUE(SameBytes(got, want));
  added[0][0].keys.pop_back();
  EXPECT_FALSE(other->AppendCaches(added[0]).ok());
}

TEST(SequenceRunner, LossesAreThoseOfTheLogits) {
  constexpr int64_t kLength = 50, kVocab = 11;
  ThreadPool pool(2);
  const std::shared_ptr<const Model> model = Loaded(RandomH3({.vocab = kVocab}));
  const Input input(*model, kLength + 1);
  const auto runner = Runner(model, kLength, pool);
  Floats nll(kLength), logits(kLength * kVocab);
  EXPECT_FALSE(runner->TokenLoss({1}, absl::MakeSpan(nll).first(1)).ok());  // nothing has run
  RunPieces(*runner, input, {20, kLength - 20});
  const size_t rows = kLength - 20;
  std::vector<int32_t> targets(input.ids.begin() + 21, input.ids.end());
  ASSERT_EQ(runner->TokenLoss(targets, absl::MakeSpan(nll).first(rows)), absl::OkStatus());
  ASSERT_EQ(runner->Logits(0, rows, absl::MakeSpan(logits).first(rows * kVocab)), absl::OkStatus());
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t v = 0; v < kVocab; ++v) sum += std::exp(double{logits[r * kVocab + v]});
    EXPECT_NEAR(nll[r], std::log(sum) - logits[r * kVocab + targets[r]], 1e-5);
  }
  Floats one(kVocab);
  ASSERT_EQ(runner->Logits(7, 1, absl::MakeSpan(one)), absl::OkStatus());
  EXPECT_LE(RelativeError(one, Floats(logits.begin() + 7 * kVocab, logits.begin() + 8 * kVocab)),
            1e-6);
  EXPECT_TRUE(absl::IsInvalidArgument(runner->Logits(rows, 1, absl::MakeSpan(one))));

  targets[4] = 11;  // follows the token at 24, so stands at 25
  const absl::Status refused = runner->TokenLoss(targets, absl::MakeSpan(nll).first(rows));
  EXPECT_THAT(MessageOf(refused), HasSubstr("token id 11 at position 25 "));
  targets.push_back(1);
  EXPECT_TRUE(absl::IsInvalidArgument(runner->TokenLoss(targets, absl::MakeSpan(nll))));
}

TEST(SequenceRunner, TwoRunnersShareAModel) {
  constexpr int64_t kLength = 400;
  for (const ModelFiles& files : BothTypes()) {
    const std::shared_ptr<const Model> model = Loaded(files);
    const Input inputs[] = {Input(*model, kLength, 1), Input(*model, kLength, 2)};
    Floats got[2];
    const auto run = [&](int i) {
      ThreadPool pool(2);
      const auto runner = Runner(model, kLength, pool);
      for (int round = 0; round < 3; ++round) {
        runner->Reset();
        got[i] = RunPieces(*runner, inputs[i], {kLength - 130, 130});
      }
    };
    std::thread first(run, 0), second(run, 1);
    first.join();
    second.join();
    for (int i = 0; i < 2; ++i) {
      ThreadPool pool(1);
      EXPECT_TRUE(SameBytes(
          got[i], RunPieces(*Runner(model, kLength, pool), inputs[i], {kLength - 130, 130})));
    }
  }
}

// ---- A stack of S4D layers in float64 ----

using Doubles = std::vector<double>;

void ReferenceNorm(const Floats& scale, const Floats& shift, Doubles* x) {
  const size_t d = scale.size();
  for (size_t row = 0; row < x->size(); row += d) {
    double mean = 0, variance = 0;
    for (size_t c = 0; c < d; ++c) mean += (*x)[row + c] / static_cast<double>(d);
    for (size_t c = 0; c < d; ++c) {
      variance += ((*x)[row + c] - mean) * ((*x)[row + c] - mean) / static_cast<double>(d);
    }
    for (size_t c = 0; c < d; ++c) {
      (*x)[row + c] =
          ((*x)[row + c] - mean) / std::sqrt(variance + kS4dEpsilon) * scale[c] + shift[c];
    }
  }
}

// gelu(conv(K, u) + D u), by the recurrence of the zero-order hold.
Doubles ReferenceConv(ModelFiles& files, const std::string& prefix, int64_t d, int64_t pairs,
                      const Doubles& u) {
  const auto get = [&](const char* name) -> const Floats& {
    return files.Find(prefix + name).values;
  };
  const Floats &log_dt = get("kernel.log_dt"), &real = get("kernel.log_A_real"),
               &imag = get("kernel.A_imag"), &C = get("kernel.C"), &skip = get("D");
  Doubles y(u.size());
  for (int64_t h = 0; h < d; ++h) {
    std::vector<std::complex<double>> state(pairs), a(pairs), b(pairs);
    for (int64_t n = 0; n < pairs; ++n) {
      const std::complex<double> A(-std::exp(double{real[h * pairs + n]}), imag[h * pairs + n]);
      a[n] = std::exp(A * std::exp(double{log_dt[h]}));
      b[n] = (a[n] - 1.0) / A;
    }
    for (size_t t = h; t < u.size(); t += d) {
      y[t] = skip[h] * u[t];
      for (int64_t n = 0; n < pairs; ++n) {
        state[n] = a[n] * state[n] + b[n] * u[t];
        const std::complex<double> c(C[2 * (h * pairs + n)], C[2 * (h * pairs + n) + 1]);
        y[t] += 2 * (c * state[n]).real();
      }
      y[t] *= 0.5 * std::erfc(-y[t] / std::sqrt(2.0));
    }
  }
  return y;
}

Doubles ReferenceStack(ModelFiles& files, const S4dShape& s, const Floats& input) {
  Doubles x(input.begin(), input.end());
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = absl::StrCat("layers.", i, ".");
    const auto norm = [&](Doubles* values) {
      ReferenceNorm(files.Find(prefix + "norm.weight").values,
                    files.Find(prefix + "norm.bias").values, values);
    };
    Doubles u = x;
    if (s.norm == "pre") norm(&u);
    const Doubles y = ReferenceConv(files, prefix, s.d, s.d_state / 2, u);
    const Floats& W = files.Find(prefix + "output_linear.0.weight").values;
    const Floats& bias = files.Find(prefix + "output_linear.0.bias").values;
    for (size_t row = 0; row < x.size(); row += s.d) {
      for (int64_t c = 0; c < s.d; ++c) {
        double value = bias[c], gate = bias[s.d + c];
        for (int64_t k = 0; k < s.d; ++k) {
          value += double{W[c * s.d + k]} * y[row + k];
          gate += double{W[(s.d + c) * s.d + k]} * y[row + k];
        }
        x[row + c] = value / (1 + std::exp(-gate)) + (s.residual ? x[row + c] : 0);
      }
    }
    if (s.norm == "post") norm(&x);
  }
  return x;
}

TEST(S4dStack, AgreesWithFloat64) {
  constexpr int64_t kLength = 600;
  ThreadPool pool(2);
  for (const char* norm : {"none", "pre", "post"}) {
    for (const bool residual : {true, false}) {
      const S4dShape shape{.d = 10, .layers = 3, .d_state = 18, .residual = residual, .norm = norm};
      ModelFiles files = RandomS4d(shape, 8);
      const std::shared_ptr<const Model> model = Loaded(files);
      const Input input(*model, kLength);
      const Doubles want = ReferenceStack(files, shape, input.x);
      EXPECT_LE(RelativeError(RunWhole(model, input, kLength, 2), want), 1e-5) << norm << residual;
      const auto runner = Runner(model, 350, pool);
      EXPECT_LE(RelativeError(RunPieces(*runner, input, {1, 349, 29, 221}), want), 1e-5)
          << norm << residual;
    }
  }
}

}  // namespace
}  // namespace longwave

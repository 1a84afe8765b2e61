// Models of random weights: loading, and what they declare. The published code's outputs are
// compared in tests/golden.
#include "worker/model/model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/model_test_util.h"

namespace longwave {
namespace {

using testing::AllOf;
using testing::HasSubstr;

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

}  // namespace
}  // namespace longwave

#include "worker/model/config.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "formats/format_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace longwave {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

using Fields = std::map<std::string, std::string>;  // values as JSON text

const Fields kH3 = {
    {"model_type", "\"h3\""}, {"d_model", "64"}, {"n_layer", "4"}, {"vocab_size", "100"}};
const Fields kS4d = {{"model_type", "\"s4d\""}, {"d_model", "32"}, {"n_layer", "2"}};

// `changes` over `fields`; an empty value removes one.
std::string Json(Fields fields, const Fields& changes = {}) {
  for (const auto& [key, value] : changes) fields[key] = value;
  std::string text = "{";
  for (const auto& [key, value] : fields) {
    if (value.empty()) continue;
    absl::StrAppend(&text, text.size() > 1 ? ", \"" : "\"", key, "\": ", value);
  }
  return text + "}";
}

ModelConfig Parse(const std::string& json) {
  absl::StatusOr<ModelConfig> config = ParseModelConfig(json, "config.json");
  EXPECT_TRUE(config.ok()) << config.status() << "\n" << json;
  return config.ok() ? *config : ModelConfig();
}

// Refused in one line that starts with the file's name and says `said`.
void ExpectRefused(const std::string& json, const std::vector<std::string>& said) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(json, "here/config.json");
  ASSERT_TRUE(absl::IsInvalidArgument(config.status())) << config.status() << "\n" << json;
  EXPECT_THAT(MessageOf(config), StartsWith("here/config.json: "));
  EXPECT_EQ(MessageOf(config).find('\n'), std::string::npos);
  for (const std::string& text : said) EXPECT_THAT(MessageOf(config), HasSubstr(text)) << json;
}

TEST(Config, H3Defaults) {
  const ModelConfig c = Parse(Json(kH3));
  EXPECT_EQ(c.type, ModelConfig::Type::kH3);
  EXPECT_EQ(c.d_model, 64);
  EXPECT_EQ(c.n_layer, 4);
  EXPECT_EQ(c.vocab_size, 100);
  EXPECT_EQ(c.d_inner, 256);
  EXPECT_EQ(c.d_state, 64);
  EXPECT_EQ(c.pairs(), 32);
  EXPECT_EQ(c.head_dim, 1);
  EXPECT_TRUE(c.attn_layer_idx.empty());
  EXPECT_EQ(c.layer_norm_epsilon, 1e-5);
  EXPECT_EQ(c.tokenizer, "");
}

TEST(Config, H3EveryField) {
  const ModelConfig c = Parse(Json(kH3, {{"d_inner", "96"},
                                         {"d_state", "16"},
                                         {"head_dim", "8"},
                                         {"attn_layer_idx", "[3, 1]"},
                                         {"attn_num_heads", "4"},
                                         {"rotary_emb_dim", "16"},
                                         {"layer_norm_epsilon", "0.001"},
                                         {"activation", "\"gelu_tanh\""},
                                         {"ssm_discretization", "\"bilinear\""},
                                         {"tie_word_embeddings", "true"},
                                         {"tokenizer", "\"bytes\""}}));
  EXPECT_EQ(c.d_inner, 96);
  EXPECT_EQ(c.d_state, 16);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_THAT(c.attn_layer_idx, ElementsAre(1, 3));
  EXPECT_EQ(c.attn_num_heads, 4);
  EXPECT_EQ(c.rotary_emb_dim, 16);
  EXPECT_EQ(c.layer_norm_epsilon, 0.001);
  EXPECT_EQ(c.tokenizer, "bytes");
  for (int64_t layer = 0; layer < 4; ++layer) EXPECT_EQ(c.IsAttention(layer), layer % 2 == 1);
}

TEST(Config, S4d) {
  const ModelConfig least = Parse(Json(kS4d));
  EXPECT_EQ(least.type, ModelConfig::Type::kS4d);
  EXPECT_EQ(least.vocab_size, 0);
  EXPECT_TRUE(least.residual);
  EXPECT_EQ(least.norm, ModelConfig::Norm::kNone);

  const ModelConfig pre = Parse(
      Json(kS4d, {{"norm", "\"pre\""}, {"residual", "false"}, {"layer_norm_epsilon", "1e-3"}}));
  EXPECT_EQ(pre.norm, ModelConfig::Norm::kPre);
  EXPECT_FALSE(pre.residual);
  EXPECT_EQ(pre.layer_norm_epsilon, 1e-3);
  EXPECT_EQ(Parse(Json(kS4d, {{"norm", "\"post\""}})).norm, ModelConfig::Norm::kPost);
}

TEST(Config, FieldsOfOthersAreIgnored) {
  Parse(Json(kH3, {{"_name", "\"x\""}, {"dropout", "[1, {\"a\": null}]"}, {"norm", "3"}}));
  Parse(Json(kS4d, {{"vocab_size", "\"none\""}, {"head_dim", "-1"}}));
  EXPECT_EQ(Parse(Json(kH3, {{"tokenizer", "null"}})).tokenizer, "");
}

// Attention's fields matter where there is attention.
TEST(Config, HeadsWithoutAttention) {
  Parse(Json(kH3, {{"attn_layer_idx", "[]"}, {"attn_num_heads", "3"}, {"rotary_emb_dim", "5"}}));
}

TEST(Config, NotAnObject) {
  for (const char* text :
       {"", " ", "{", "hello", "{\"d_model\": }", "{} {}", "\xff\xfe", "{\"a\": 01}"}) {
    ExpectRefused(text, {"not JSON"});
  }
  for (const char* text : {"[]", "null", "3", "\"h3\""}) ExpectRefused(text, {"not a JSON object"});
  ExpectRefused(std::string(100, '['), {"not JSON"});
  ExpectRefused(Json(kH3, {{"deep", std::string(100, '[') + std::string(100, ']')}}), {"not JSON"});
}

TEST(Config, MissingFields) {
  for (const auto& [key, value] : kH3) {
    ExpectRefused(Json(kH3, {{key, ""}}), {"\"" + key + "\" is missing"});
  }
  for (const auto& [key, value] : kS4d) {
    ExpectRefused(Json(kS4d, {{key, ""}}), {"\"" + key + "\" is missing"});
  }
}

// Every whole number's field refuses these; its message has the field, the value and the range.
TEST(Config, WholeNumbers) {
  const Fields ranges = {{"d_model", "from 1 to 1048576"},   {"n_layer", "from 1 to 4096"},
                         {"vocab_size", "from 1 to "},       {"d_inner", "from 1 to "},
                         {"d_state", "from 2 to "},          {"head_dim", "from 1 to 64"},
                         {"attn_num_heads", "from 0 to 64"}, {"rotary_emb_dim", "from 0 to 64"}};
  for (const auto& [key, range] : ranges) {
    for (const char* value : {"-1", "\"64\"", "null", "[64]", "true", "9223372036854775807",
                              "18446744073709551615", "-9223372036854775808"}) {
      ExpectRefused(Json(kH3, {{key, value}}),
                    {absl::StrCat("\"", key, "\" is ", value, ", not a whole number "), range});
    }
    ExpectRefused(Json(kH3, {{key, "64.5"}}), {"\"" + key + "\" is 6.45E1"});
    ExpectRefused(Json(kH3, {{key, "1e400"}}), {});
  }
  for (const char* key : {"d_model", "n_layer", "vocab_size", "d_inner", "d_state", "head_dim"}) {
    ExpectRefused(Json(kH3, {{key, "0"}}), {absl::StrCat("\"", key, "\" is 0")});
  }
  ExpectRefused(Json(kH3, {{"d_state", "63"}}), {"\"d_state\" is 63, not even"});
  // What the kernels of H3 take; S4D's take more.
  ExpectRefused(Json(kH3, {{"d_state", "1026"}}), {"\"d_state\" is 1026", "from 2 to 1024"});
  ExpectRefused(Json(kH3, {{"d_model", "8192"}, {"head_dim", "8192"}}),
                {"\"head_dim\" is 8192", "from 1 to 4096"});
  EXPECT_EQ(Parse(Json(kS4d, {{"d_state", "8192"}})).pairs(), 4096);
}

TEST(Config, Choices) {
  struct Choice {
    const Fields& base;
    const char *key, *expected;
  };
  for (const Choice& choice : {Choice{kH3, "model_type", "not \"h3\" or \"s4d\""},
                               Choice{kH3, "activation", "not \"gelu_tanh\""},
                               Choice{kH3, "ssm_discretization", "not \"bilinear\""},
                               Choice{kS4d, "activation", "not \"gelu_erf\""},
                               Choice{kS4d, "ssm_discretization", "not \"zoh\""},
                               Choice{kS4d, "norm", "not \"none\" or \"pre\" or \"post\""}}) {
    for (const char* value : {"\"mamba\"", "\"\"", "3", "[\"h3\"]", "\"H3\""}) {
      ExpectRefused(Json(choice.base, {{choice.key, value}}),
                    {absl::StrCat("\"", choice.key, "\" is ", value, ", "), choice.expected});
    }
  }
  ExpectRefused(Json(kH3, {{"model_type", "null"}}), {"\"model_type\" is null"});
  ExpectRefused(Json(kH3, {{"tokenizer", "7"}}), {"\"tokenizer\" is 7, not a string"});
  ExpectRefused(Json(kH3, {{"model_type", "\"a\\nb\""}}), {"\"a\\nb\""});  // stays one line
}

TEST(Config, TrueOrFalse) {
  for (const char* value : {"1", "\"true\"", "null"}) {
    ExpectRefused(Json(kS4d, {{"residual", value}}),
                  {absl::StrCat("\"residual\" is ", value, ", not true or false")});
    ExpectRefused(Json(kH3, {{"tie_word_embeddings", value}}),
                  {absl::StrCat("\"tie_word_embeddings\" is ", value)});
  }
  ExpectRefused(Json(kH3, {{"tie_word_embeddings", "false"}}),
                {"\"tie_word_embeddings\" is false"});
}

TEST(Config, Epsilon) {
  for (const Fields& base : {kH3, kS4d}) {
    // Beyond float32, too: a layer's epsilon of zero makes NaN of a constant row.
    for (const char* value : {"0", "-1", "null", "\"1e-5\"", "0.0", "1e-60", "1e60"}) {
      ExpectRefused(Json(base, {{"layer_norm_epsilon", value}}),
                    {"\"layer_norm_epsilon\" is ", "not a positive number"});
    }
    ExpectRefused(Json(base, {{"layer_norm_epsilon", "-2"}}), {"\"layer_norm_epsilon\" is -2"});
    EXPECT_EQ(Parse(Json(base, {{"layer_norm_epsilon", "1"}})).layer_norm_epsilon, 1.0);
  }
}

TEST(Config, AttentionLayers) {
  for (const char* value :
       {"[4]", "[-1]", "[1,1]", "[0,1.5]", "\"1\"", "1", "{}", "[[1]]", "null"}) {
    ExpectRefused(Json(kH3, {{"attn_layer_idx", value}, {"attn_num_heads", "4"}}),
                  {"\"attn_layer_idx\" is ", "different layers from 0 to 3"});
  }
  ExpectRefused(Json(kH3, {{"attn_layer_idx", "[7]"}, {"attn_num_heads", "4"}}),
                {"\"attn_layer_idx\" is [7]"});
}

TEST(Config, Divisibility) {
  ExpectRefused(Json(kH3, {{"head_dim", "7"}}),
                {"\"d_model\" = 64 is not a multiple of \"head_dim\" = 7"});
  const auto attention = [](const char* heads, const char* rotary) {
    return Json(kH3,
                {{"attn_layer_idx", "[0]"}, {"attn_num_heads", heads}, {"rotary_emb_dim", rotary}});
  };
  for (const char* heads : {"0", "3", "63"}) {
    ExpectRefused(
        attention(heads, "0"),
        {absl::StrCat("\"d_model\" = 64 is not a multiple of \"attn_num_heads\" = ", heads)});
  }
  ExpectRefused(Json(kH3, {{"attn_layer_idx", "[0]"}}), {"\"attn_num_heads\" = 0"});
  for (const char* rotary : {"1", "15", "18", "64"}) {  // heads of 16
    ExpectRefused(attention("4", rotary),
                  {absl::StrCat("\"rotary_emb_dim\" = ", rotary, " is not even"), "16"});
  }
  EXPECT_EQ(Parse(attention("4", "16")).rotary_emb_dim, 16);
}

TEST(Config, TheFirstErrorIsTheOneSaid) {
  ExpectRefused(Json(kH3, {{"d_model", "0"}, {"n_layer", "0"}}), {"\"d_model\" is 0"});
}

TEST(Config, FromAFile) {
  const ScratchFolder folder;
  const std::string path = WriteFile(folder / "config.json", Json(kS4d));
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(path);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->d_model, 32);

  WriteFile(path, Json(kS4d, {{"n_layer", "0"}}));
  EXPECT_THAT(MessageOf(LoadModelConfig(path)), StartsWith(path + ": \"n_layer\" is 0"));

  std::filesystem::remove(path);
  EXPECT_TRUE(absl::IsNotFound(LoadModelConfig(path).status()));
  EXPECT_THAT(MessageOf(LoadModelConfig(path)), StartsWith(path + ": "));
}

}  // namespace
}  // namespace longwave

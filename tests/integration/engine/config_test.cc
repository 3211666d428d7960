#include "integration/engine/config.h"

#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/base/status.h"

namespace kdn::engine {
namespace {

using testing::HasSubstr;

nlohmann::json PlainConfig() {
  return {{"model_type", "llama"},     {"vocab_size", 64},        {"hidden_size", 32},
          {"intermediate_size", 48},   {"num_hidden_layers", 2},  {"num_attention_heads", 4},
          {"num_key_value_heads", 2},  {"rms_norm_eps", 1e-6},    {"rope_theta", 500000.0},
          {"rope_scaling", nullptr},   {"hidden_act", "silu"},    {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"}, {"attention_bias", false}, {"max_position_embeddings", 4096}};
}

// RoPE of heads of 8 dims.
RopeSpec WholeHeads(double theta) { return {.kind = RopeKind::kHalfSplit, .rotary_dim = 8, .theta = theta}; }

RopeSpec RopeOf(const nlohmann::json& patch) {
  nlohmann::json json = PlainConfig();
  json.merge_patch(patch);
  const absl::StatusOr<ModelConfig> config = ParseHfConfig(json.dump());
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config->rope : RopeSpec{};
}

TEST(ConfigTest, ReadsWhatDecidesTheForwardPass) {
  const absl::StatusOr<ModelConfig> config = ParseHfConfig(PlainConfig().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, (ModelConfig{.vocab_size = 64,
                                  .hidden_size = 32,
                                  .intermediate_size = 48,
                                  .layers = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .max_positions = 4096,
                                  .rms_norm_eps = 1e-6,
                                  .rope = WholeHeads(500000.0)}));
}

TEST(ConfigTest, TakesKeyHeadsForHeadsWhereTheFileDoesNotSay) {
  nlohmann::json json = PlainConfig();
  json.erase("num_key_value_heads");
  EXPECT_EQ(ParseHfConfig(json.dump())->kv_heads, 4u);
}

TEST(ConfigTest, ReadsRopeInItsOldAndItsNewForm) {
  RopeSpec want = WholeHeads(500000.0);
  want.scaling = RopeScaling::kLinear;
  want.factor = 4.0;
  EXPECT_EQ(RopeOf({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}), want);
  want.theta = 1000.0;
  EXPECT_EQ(RopeOf({{"rope_theta", nullptr},
                    {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 1000.0}}}}),
            want);
}

TEST(ConfigTest, PositionsDividedByOneAreNoScaling) {
  EXPECT_EQ(RopeOf({{"rope_scaling", {{"type", "linear"}, {"factor", 1.0}}}}), WholeHeads(500000.0));
}

TEST(ConfigTest, ReadsEveryScalingOfRope) {
  RopeSpec want = WholeHeads(500000.0);
  want.scaling = RopeScaling::kNtk;
  want.factor = 2.0;
  EXPECT_EQ(RopeOf({{"rope_scaling", {{"type", "ntk"}, {"factor", 2.0}}}}), want);

  want.scaling = RopeScaling::kLlama3;
  want.factor = 8.0;
  want.low_freq_factor = 1.0;
  want.high_freq_factor = 4.0;
  want.original_max_position = 8192;
  EXPECT_EQ(RopeOf({{"rope_scaling",
                     {{"rope_type", "llama3"},
                      {"factor", 8.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 8192}}}}),
            want);

  want.scaling = RopeScaling::kYarn;
  want.low_freq_factor = 1.0;
  want.high_freq_factor = 32.0;
  want.attention_factor = 0.1 * std::log(8.0) + 1.0;
  want.original_max_position = 4096;  // of the model, where YaRN names none
  EXPECT_EQ(RopeOf({{"rope_scaling", {{"type", "yarn"}, {"factor", 8.0}}}}), want);
  want.low_freq_factor = 2.0;
  want.high_freq_factor = 16.0;
  want.attention_factor = 1.5;
  want.original_max_position = 100;
  nlohmann::json yarn = {{"type", "yarn"},    {"factor", 8.0},           {"beta_slow", 2.0},
                         {"beta_fast", 16.0}, {"attention_factor", 1.5}, {"original_max_position_embeddings", 100}};
  EXPECT_EQ(RopeOf({{"rope_scaling", yarn}}), want);
  yarn.erase("attention_factor");
  yarn["mscale"] = 1.0;
  yarn["mscale_all_dim"] = 0.5;
  want.attention_factor = (0.1 * std::log(8.0) + 1.0) / (0.05 * std::log(8.0) + 1.0);
  EXPECT_DOUBLE_EQ(RopeOf({{"rope_scaling", yarn}}).attention_factor, want.attention_factor);
}

TEST(ConfigTest, ReadsTheShareOfAHeadThatIsRotated) {
  EXPECT_EQ(RopeOf({{"partial_rotary_factor", 0.5}}).rotary_dim, 4u);
  EXPECT_EQ(RopeOf({{"rope_parameters", {{"partial_rotary_factor", 0.25}}}}).rotary_dim, 2u);
}

TEST(ConfigTest, FamiliesDifferInBiasesAndNorms) {
  nlohmann::json json = PlainConfig();
  json["model_type"] = "qwen2";
  EXPECT_TRUE(ParseHfConfig(json.dump())->qkv_bias);
  EXPECT_FALSE(ParseHfConfig(json.dump())->qk_norm);
  json["model_type"] = "qwen3";
  json["head_dim"] = 16;
  EXPECT_FALSE(ParseHfConfig(json.dump())->qkv_bias);
  EXPECT_TRUE(ParseHfConfig(json.dump())->qk_norm);
  EXPECT_EQ(ParseHfConfig(json.dump())->rope.rotary_dim, 16u);
}

TEST(ConfigTest, SmolLm3HasLayersWithoutRope) {
  nlohmann::json json = PlainConfig();
  json["model_type"] = "smollm3";
  json["num_hidden_layers"] = 9;
  EXPECT_EQ(ParseHfConfig(json.dump())->nope_layers, (std::vector<uint32_t>{3, 7}));
  json["no_rope_layer_interval"] = 3;
  EXPECT_EQ(ParseHfConfig(json.dump())->nope_layers, (std::vector<uint32_t>{2, 5, 8}));
  json["no_rope_layers"] = {0, 1, 1, 1, 1, 0, 1, 1, 1};
  const absl::StatusOr<ModelConfig> config = ParseHfConfig(json.dump());
  EXPECT_EQ(config->nope_layers, (std::vector<uint32_t>{0, 5}));
  EXPECT_FALSE(config->HasRope(5));
  EXPECT_TRUE(config->HasRope(6));
}

struct BadField {
  const char* field;  // what the message names
  nlohmann::json patch;
};

class BadConfigTest : public testing::TestWithParam<BadField> {};

TEST_P(BadConfigTest, IsRefusedNamingTheField) {
  nlohmann::json json = PlainConfig();
  json.merge_patch(GetParam().patch);  // null removes
  const absl::StatusOr<ModelConfig> config = ParseHfConfig(json.dump());
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(MessageOf(config.status()), HasSubstr(GetParam().field));
  EXPECT_THAT(MessageOf(config.status()), HasSubstr("config.json"));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfigTest,
    testing::Values(
        BadField{"vocab_size", {{"vocab_size", nullptr}}}, BadField{"hidden_size", {{"hidden_size", 0}}},
        BadField{"hidden_size", {{"hidden_size", "wide"}}}, BadField{"num_hidden_layers", {{"num_hidden_layers", -2}}},
        BadField{"num_hidden_layers", {{"num_hidden_layers", 1.5}}},
        BadField{"num_hidden_layers", {{"num_hidden_layers", 4294967295}}},
        BadField{"intermediate_size", {{"intermediate_size", 99999999999}}},
        BadField{"num_attention_heads", {{"num_attention_heads", 0}}},
        BadField{"num_key_value_heads", {{"num_key_value_heads", 3}}},
        BadField{"num_key_value_heads", {{"num_key_value_heads", 8}}}, BadField{"head_dim", {{"head_dim", 7}}},
        BadField{"rms_norm_eps", {{"rms_norm_eps", 0}}}, BadField{"rope_theta", {{"rope_theta", -1}}},
        BadField{"rope_scaling", {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}}},
        BadField{"longrope", {{"rope_scaling", {{"type", "longrope"}, {"factor", 2}}}}},
        BadField{"rope_scaling.factor", {{"rope_scaling", {{"type", "yarn"}}}}},
        BadField{"rope_scaling.factor", {{"rope_scaling", {{"type", "linear"}, {"factor", 0}}}}},
        BadField{"rope_scaling.truncate", {{"rope_scaling", {{"type", "yarn"}, {"factor", 2}, {"truncate", false}}}}},
        BadField{"attention_factor", {{"rope_scaling", {{"type", "yarn"}, {"factor", 2}, {"attention_factor", 0}}}}},
        BadField{"rope_scaling.low_freq_factor", {{"rope_scaling", {{"type", "llama3"}, {"factor", 2}}}}},
        BadField{"low_freq_factor",
                 {{"rope_scaling",
                   {{"type", "llama3"},
                    {"factor", 2},
                    {"low_freq_factor", 4},
                    {"high_freq_factor", 1},
                    {"original_max_position_embeddings", 99}}}}},
        BadField{"rope_scaling.beta_fast", {{"rope_scaling", {{"type", "linear"}, {"factor", 2}, {"beta_fast", 8}}}}},
        BadField{"rope_parameters.full_attention", {{"rope_parameters", {{"full_attention", {{"factor", 2}}}}}}},
        BadField{"rope_scaling and rope_parameters",
                 {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}, {"rope_parameters", {{"type", "default"}}}}},
        BadField{"use_sliding_window", {{"use_sliding_window", true}}},
        BadField{"layer_types", {{"layer_types", {"full_attention", "sliding_attention"}}}},
        BadField{"no_rope_layers", {{"no_rope_layers", {1, 0}}}},
        BadField{"no_rope_layers", {{"model_type", "smollm3"}, {"no_rope_layers", {1, 0, 1}}}},
        BadField{"no_rope_layers[1]", {{"model_type", "smollm3"}, {"no_rope_layers", {1, 2}}}},
        BadField{"no_rope_layers", {{"model_type", "smollm3"}, {"no_rope_layers", 3}}},
        BadField{"no_rope_layer_interval", {{"model_type", "smollm3"}, {"no_rope_layer_interval", 0}}},
        BadField{"head_dim", {{"model_type", "qwen3"}}},
        BadField{"rope_scaling.factor", {{"rope_scaling", {{"type", "linear"}}}}},
        BadField{"rope_scaling", {{"rope_scaling", 2}}},
        BadField{"partial_rotary_factor", {{"partial_rotary_factor", 0.4}}},
        BadField{"partial_rotary_factor", {{"partial_rotary_factor", 0}}},
        BadField{"partial_rotary_factor", {{"partial_rotary_factor", 1.5}}},
        BadField{"hidden_act", {{"hidden_act", "gelu"}}}, BadField{"attention_bias", {{"attention_bias", true}}},
        BadField{"mlp_bias", {{"mlp_bias", true}}}, BadField{"model_type", {{"model_type", "mamba"}}},
        BadField{"tie_word_embeddings", {{"tie_word_embeddings", 1}}}));

TEST(ConfigTest, RefusesWhatIsNotAJsonObject) {
  for (const char* text : {"", "[]", "{\"vocab_size\": 3", "null"}) {
    EXPECT_THAT(MessageOf(ParseHfConfig(text).status()), HasSubstr("not a JSON object")) << text;
  }
}

TEST(RandomModelSpecTest, ReadsShapeAndSeedAndFillsInTheRest) {
  const absl::StatusOr<RandomModelSpec> spec = ParseRandomModel("layers=3,hidden=96,heads=6,kv_heads=2,seed=9");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->seed, 9u);
  EXPECT_EQ(spec->config.layers, 3u);
  EXPECT_EQ(spec->config.head_dim, 16u);
  EXPECT_EQ(spec->config.intermediate_size, 256u);
}

TEST(RandomModelSpecTest, ReadsFamiliesAndRope) {
  const absl::StatusOr<RandomModelSpec> spec = ParseRandomModel(
      "family=qwen3,layers=8,hidden=64,heads=4,head_dim=32,rope=yarn,rope_factor=2,rope_original=64,rotary=0.25,"
      "rope_pairs=interleaved,nope_every=4");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const ModelConfig& config = spec->config;
  EXPECT_EQ(config.model_id, "random-qwen3");
  EXPECT_TRUE(config.qk_norm);
  EXPECT_EQ(config.nope_layers, (std::vector<uint32_t>{3, 7}));
  EXPECT_EQ(config.rope, (RopeSpec{.kind = RopeKind::kInterleaved,
                                   .scaling = RopeScaling::kYarn,
                                   .rotary_dim = 8,
                                   .theta = 10000.0,
                                   .factor = 2.0,
                                   .low_freq_factor = 1.0,
                                   .high_freq_factor = 32.0,
                                   .attention_factor = 0.1 * std::log(2.0) + 1.0,
                                   .original_max_position = 64}));
}

// Caches out there are under revisions that come from this text: it stays what it was before there were other families.
TEST(RandomModelSpecTest, TextOfAnOldShapeNeverChanges) {
  const auto text = [](const char* spec) { return CanonicalText(ParseRandomModel(spec)->config); };
  EXPECT_EQ(text("layers=3,hidden=96,heads=6,kv_heads=2,theta=500000,tied=1"),
            "llama vocab=260 hidden=96 intermediate=256 layers=3 heads=6 kv_heads=2 head_dim=16 eps=1e-05 theta=500000 "
            "rope_linear_factor=1 tied=true");
  EXPECT_THAT(text("rope_factor=2.5"), HasSubstr(" rope_linear_factor=2.5 tied=false"));
  EXPECT_EQ(text("rope=linear,rope_factor=2.5"), text("rope_factor=2.5"));
}

TEST(RandomModelSpecTest, EveryTermIsInTheText) {
  const std::string plain = CanonicalText(ParseRandomModel("layers=4")->config);
  std::set<std::string> texts = {plain};
  for (const char* term : {"family=qwen2", "family=qwen3", "rope=linear", "rope=ntk", "rope=yarn", "rope=llama3",
                           "rope=llama3,rope_original=100", "rope=yarn,rope_factor=3", "rotary=0.5",
                           "rope_pairs=interleaved", "nope_every=2", "nope_every=3", "theta=5"}) {
    EXPECT_TRUE(texts.insert(CanonicalText(ParseRandomModel(fmt::format("layers=4,{}", term))->config)).second) << term;
  }
}

TEST(RandomModelSpecTest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(MessageOf(ParseRandomModel("layres=3").status()), HasSubstr("layres"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers").status()), HasSubstr("key=value"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers=8,layers=9").status()), HasSubstr("twice"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers=8x").status()), HasSubstr("layers=8x"));
  for (const char* bad : {"family=gpt2", "rope=dynamic", "rope_pairs=thirds", "rotary=0", "rotary=0.3", "rotary=nan",
                          "nope_every=0", "rope=default,rope_factor=2", "rope=ntk,rope_original=64",
                          "rope=yarn,rope_original=0", "theta=nan", "theta=-1"}) {
    EXPECT_THAT(MessageOf(ParseRandomModel(bad).status()), HasSubstr("random model: ")) << bad;
  }
  EXPECT_THAT(MessageOf(ParseRandomModel("heads=0").status()), HasSubstr("num_attention_heads"));
}

}  // namespace
}  // namespace kdn::engine

#include "integration/engine/config.h"

#include <nlohmann/json.hpp>

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
                                  .rope_theta = 500000.0}));
}

TEST(ConfigTest, TakesKeyHeadsForHeadsWhereTheFileDoesNotSay) {
  nlohmann::json json = PlainConfig();
  json.erase("num_key_value_heads");
  EXPECT_EQ(ParseHfConfig(json.dump())->kv_heads, 4u);
}

TEST(ConfigTest, ReadsLinearRopeScalingInItsOldAndItsNewForm) {
  nlohmann::json json = PlainConfig();
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(ParseHfConfig(json.dump())->rope_linear_factor, 4.0);
  json = PlainConfig();
  json.erase("rope_theta");
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1000.0}};
  EXPECT_EQ(ParseHfConfig(json.dump())->rope_linear_factor, 8.0);
  EXPECT_EQ(ParseHfConfig(json.dump())->rope_theta, 1000.0);
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
        BadField{"rope_scaling", {{"rope_scaling", {{"type", "yarn"}, {"factor", 2}}}}},
        BadField{"rope_scaling.factor", {{"rope_scaling", {{"type", "linear"}}}}},
        BadField{"rope_scaling", {{"rope_scaling", 2}}},
        BadField{"partial_rotary_factor", {{"partial_rotary_factor", 0.5}}},
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

TEST(RandomModelSpecTest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(MessageOf(ParseRandomModel("layres=3").status()), HasSubstr("layres"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers").status()), HasSubstr("key=value"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers=8,layers=9").status()), HasSubstr("twice"));
  EXPECT_THAT(MessageOf(ParseRandomModel("layers=8x").status()), HasSubstr("layers=8x"));
  EXPECT_THAT(MessageOf(ParseRandomModel("heads=0").status()), HasSubstr("num_attention_heads"));
}

}  // namespace
}  // namespace kdn::engine

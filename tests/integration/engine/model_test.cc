#include "integration/engine/model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/engine/safetensors.h"
#include "integration/engine/space.h"
#include "integration/process/child_process.h"
#include "storage/base/status.h"
#include "storage/format/digest.h"
#include "tests/integration/engine/fixtures.h"

namespace kdn::engine {
namespace {

using testing::HasSubstr;

class FixtureTest : public testing::TestWithParam<std::string> {};

// The fixtures come from an independent forward pass: make_fixtures.py.
TEST_P(FixtureTest, LogitsEqualAnIndependentForwardPass) {
  const absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(FixturePath(GetParam()));
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::StatusOr<SafetensorsFile> expected =
      SafetensorsFile::Open(FixturePath(GetParam() + "/expected.safetensors"));
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::vector<uint64_t> shape = expected->tensors().at("logits").shape;
  std::vector<float> logits(shape[0] * shape[1]);
  std::vector<float> ids(shape[0]);
  ASSERT_TRUE(expected->ReadFloats("logits", shape, logits).ok());
  ASSERT_TRUE(expected->ReadFloats("tokens", std::vector<uint64_t>{shape[0]}, ids).ok());

  const std::unique_ptr<Session> session =
      NewSession(*model, {.kv_dtype = DType::kF32, .chunk_tokens = 16, .capacity = 64});
  std::vector<float> got;
  ASSERT_TRUE(session->Append(std::vector<Token>(ids.begin(), ids.end()), &got).ok());
  ASSERT_EQ(got.size(), logits.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], logits[i], 1e-4) << "token " << i / shape[1] << ", vocabulary entry " << i % shape[1];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FixtureTest,
                         testing::Values("gqa_f32", "scaled_bf16", "tied_f16", "sharded_bf16", "qwen2_bf16",
                                         "qwen3_f32", "llama3_bf16", "yarn_bf16", "ntk_f16", "nope_bf16"),
                         [](const auto& test) { return test.param; });

class LoadTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* file : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(FixturePath("gqa_f32") + "/" + file, directory_.path() / file);
    }
  }
  std::string Error() const { return MessageOf(Model::Load(directory_.path().string()).status()); }
  // Puts `to` where the config says `from`.
  void EditConfig(const std::string& from, const std::string& to) const {
    std::string text = *ReadTextFile((directory_.path() / "config.json").string(), 1 << 20);
    ASSERT_NE(text.find(from), std::string::npos);
    WriteFile(directory_.path(), "config.json", text.replace(text.find(from), from.size(), to));
  }

  TemporaryDirectory directory_{"kdn-model-"};
};

TEST_F(LoadTest, RevisionChangesWithOneBitOfTheWeights) {
  const std::string before = (*Model::Load(directory_.path().string()))->revision();
  EXPECT_EQ((*Model::Load(directory_.path().string()))->revision(), before);
  std::string bytes = *ReadTextFile((directory_.path() / "model.safetensors").string(), 1 << 20);
  bytes.back() ^= 1;
  WriteFile(directory_.path(), "model.safetensors", bytes);
  EXPECT_NE((*Model::Load(directory_.path().string()))->revision(), before);
}

TEST_F(LoadTest, RevisionChangesWithTheConfig) {
  const std::string before = (*Model::Load(directory_.path().string()))->revision();
  EditConfig("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e-06");
  EXPECT_NE((*Model::Load(directory_.path().string()))->revision(), before);
}

TEST_F(LoadTest, NamesTheTensorThatIsMissing) {
  EditConfig("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  EXPECT_THAT(Error(), HasSubstr("model.layers.2.input_layernorm.weight"));
}

TEST_F(LoadTest, NamesTheTensorThatIsNoPartOfTheModel) {
  EditConfig("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  EXPECT_THAT(Error(), HasSubstr("tensor 'model.layers.1."));
}

TEST_F(LoadTest, NamesTheBiasThatIsMissing) {
  EditConfig("\"llama\"", "\"qwen2\"");
  EXPECT_THAT(Error(), HasSubstr("no tensor 'model.layers.0.self_attn.q_proj.bias'"));
}

TEST_F(LoadTest, NamesTheNormThatIsMissing) {
  EditConfig("\"llama\"", "\"qwen3\", \"head_dim\": 8");
  EXPECT_THAT(Error(), HasSubstr("no tensor 'model.layers.0.self_attn.q_norm.weight'"));
}

// A model whose biases are left out gives plausible nonsense.
TEST_F(LoadTest, RefusesBiasesAndNormsThatTheConfigDoesNotHave) {
  for (const auto& [fixture, family] : {std::pair("qwen2_bf16", "qwen2"), std::pair("qwen3_f32", "qwen3")}) {
    for (const char* file : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(FixturePath(fixture) + "/" + file, directory_.path() / file,
                                 std::filesystem::copy_options::overwrite_existing);
    }
    EditConfig(fmt::format("\"{}\"", family), "\"llama\"");
    EXPECT_THAT(Error(), HasSubstr("is no part of the model that config.json describes")) << fixture;
    EXPECT_THAT(Error(), HasSubstr("self_attn.k_")) << fixture;
  }
}

TEST_F(LoadTest, NamesTheTensorWhoseShapeIsNotTheConfigs) {
  EditConfig("\"intermediate_size\": 48", "\"intermediate_size\": 47");
  EXPECT_THAT(Error(),
              HasSubstr("'model.layers.0.mlp.gate_proj.weight' has shape [48, 32]; config.json makes it [47, 32]"));
}

TEST_F(LoadTest, AConfigThatClaimsTerabytesIsRefusedBeforeMemoryIsTaken) {
  EditConfig("\"hidden_size\": 32", "\"hidden_size\": 131072, \"head_dim\": 8");
  EXPECT_THAT(Error(), HasSubstr("has shape"));
}

TEST_F(LoadTest, RefusesAnIndexThatLeavesTheDirectory) {
  for (const char* shard : {"../model.safetensors", "/etc/passwd", "..", ""}) {
    WriteFile(directory_.path(), "model.safetensors.index.json",
              fmt::format(R"({{"weight_map": {{"model.norm.weight": "{}"}}}})", shard));
    EXPECT_THAT(Error(), HasSubstr("must name a file beside the index")) << shard;
  }
}

TEST_F(LoadTest, SaysWhichFileIsMissing) {
  std::filesystem::remove(directory_.path() / "model.safetensors");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors"));
  std::filesystem::remove(directory_.path() / "config.json");
  EXPECT_THAT(Error(), HasSubstr("config.json"));
}

// Golden: the same seed must give the same model on every machine, or caches made on one are strangers on another.
TEST(RandomWeightsTest, AreTheSameBitsEverywhere) {
  const RandomModelSpec spec = *ParseRandomModel("layers=1,hidden=32,heads=2,intermediate=40,vocab=48,seed=3");
  const Weights weights = *RandomWeights(spec.config, spec.seed);
  const auto digest = [](const FloatArray& array) {
    return ChunkKey{Sha256({{reinterpret_cast<const uint8_t*>(array.data()), array.size() * sizeof(float)}})}.ToHex();
  };
  EXPECT_EQ(digest(weights.layers[0].qkv), "9180f0d1212aac992e2cab91d2e2d5a11a10b8b07ec61bf8960191d66b9b1e52");
  EXPECT_EQ(digest(weights.embedding), "7f4d735be0212380e258499953db13f20ee1a0588258a55a0e32e0bb991298b3");
  EXPECT_EQ(weights.revision, "40a073b28c6b8a6860f61b3036bcfb754988e335980d4eae7861f239c0aa2a8f");
}

TEST(RandomWeightsTest, HaveTheSpreadThatKeepsActivationsTame) {
  const RandomModelSpec spec = *ParseRandomModel("layers=1,hidden=256,heads=4,vocab=260");
  const Weights weights = *RandomWeights(spec.config, spec.seed);
  double sum = 0;
  double squares = 0;
  for (const float w : weights.layers[0].qkv.span()) {
    sum += w;
    squares += double{w} * w;
  }
  const auto n = static_cast<double>(weights.layers[0].qkv.size());
  EXPECT_NEAR(sum / n, 0, 1e-3);
  EXPECT_NEAR(std::sqrt(squares / n), 1.0 / 16, 1e-3);
}

TEST(RandomWeightsTest, SeedAndShapeDecideTheRevision) {
  const auto revision = [](const std::string& spec) { return SmallModel(spec)->revision(); };
  const std::string base = revision("layers=1,hidden=32,heads=2,vocab=48,seed=3");
  EXPECT_EQ(revision("layers=1,hidden=32,heads=2,vocab=48,seed=3"), base);
  EXPECT_NE(revision("layers=1,hidden=32,heads=2,vocab=48,seed=4"), base);
  EXPECT_NE(revision("layers=1,hidden=32,heads=2,vocab=49,seed=3"), base);
  EXPECT_NE(revision("layers=1,hidden=32,heads=2,vocab=48,seed=3,theta=20000"), base);
}

TEST(RandomWeightsTest, FamiliesGetBiasesAndNorms) {
  const auto qwen2 = SmallModel("family=qwen2,layers=1,hidden=64,heads=4,kv_heads=2,vocab=48");
  const LayerWeights& biased = qwen2->weights().layers[0];
  ASSERT_EQ(biased.qkv_bias.size(), 128u);
  EXPECT_TRUE(biased.q_norm.empty());
  const auto qwen3 = SmallModel("family=qwen3,layers=1,hidden=64,heads=4,kv_heads=2,vocab=48");
  const LayerWeights& normed = qwen3->weights().layers[0];
  ASSERT_EQ(normed.q_norm.size(), 16u);
  ASSERT_EQ(normed.k_norm.size(), 16u);
  EXPECT_TRUE(normed.qkv_bias.empty());
  for (const FloatArray* array : {&biased.qkv_bias, &normed.q_norm, &normed.k_norm}) {
    const auto [low, high] = std::ranges::minmax(array->span());
    EXPECT_LT(low, high) << "all the same would hide a wrong index";
  }
}

TEST(SpaceTest, OfAPlainModelIsWhatItAlwaysWas) {
  const auto model = SmallModel("layers=3,hidden=64,heads=4,kv_heads=2,vocab=48,theta=500");
  KvSpace want;
  want.model_id = "random-llama";
  want.weights_revision = model->revision();
  want.dtype = DType::kF16;
  want.chunk_tokens = 32;
  want.layers = {{.count = 3,
                  .kv_heads = 2,
                  .k_dim = 16,
                  .v_dim = 16,
                  .rope = {.kind = RopeKind::kHalfSplit, .rotary_dim = 16, .theta = 500}}};
  EXPECT_EQ(SpaceOf(*model, {.kv_dtype = DType::kF16, .chunk_tokens = 32}), want);
}

TEST(SpaceTest, LayersWithoutRopeAreRunsOfTheirOwn) {
  const auto model = SmallModel("layers=5,hidden=64,heads=4,vocab=48,nope_every=3,rope=yarn");
  const KvSpace space = SpaceOf(*model, {});
  ASSERT_EQ(space.layers.size(), 3u);
  EXPECT_EQ(space.layers[0].count, 2u);
  EXPECT_EQ(space.layers[0].rope, model->config().rope);
  EXPECT_EQ(space.layers[1].count, 1u);
  EXPECT_EQ(space.layers[1].rope, RopeSpec());
  EXPECT_TRUE(ValidateSpace(space).ok());
}

TEST(RandomWeightsTest, RefusesAModelThatFillsTheMachine) {
  const absl::StatusOr<RandomModelSpec> spec = ParseRandomModel("layers=1000,hidden=8192,heads=64");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(Model::Random(*spec).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace kdn::engine

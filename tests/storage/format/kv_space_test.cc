#include "storage/format/kv_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "storage/base/status.h"
#include "tests/storage/format/test_spaces.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

RopeSpec Yarn() {
  return {.kind = RopeKind::kHalfSplit,
          .scaling = RopeScaling::kYarn,
          .rotary_dim = 8,
          .theta = 10000,
          .factor = 40,
          .low_freq_factor = 1,
          .high_freq_factor = 32,
          .attention_factor = 1.25,
          .original_max_position = 4096};
}

TEST(KvSpaceTest, DTypesHaveSizesAndNames) {
  EXPECT_EQ(DTypeSize(DType::kBf16), 2u);
  EXPECT_EQ(DTypeSize(DType::kF32), 4u);
  EXPECT_EQ(DTypeSize(DType::kF8E5M2), 1u);
  EXPECT_EQ(DTypeName(DType::kI8), "i8");
  EXPECT_FALSE(IsKnownDType(0));
  EXPECT_TRUE(IsKnownDType(6));
  EXPECT_FALSE(IsKnownDType(7));
}

TEST(KvSpaceTest, EveryFieldDecidesTheId) {
  const std::vector<std::function<void(KvSpace&)>> changes = {
      [](KvSpace&) {},
      [](KvSpace& s) { s.model_id += "x"; },
      [](KvSpace& s) { s.weights_revision = "r2"; },
      [](KvSpace& s) { s.adapter_id = "a", s.adapter_revision = "1"; },
      [](KvSpace& s) { s.adapter_id = "a", s.adapter_revision = "2"; },
      [](KvSpace& s) { s.adapter_id = "a1", s.adapter_revision = "1"; },
      [](KvSpace& s) { s.tenant_salt = "t"; },
      [](KvSpace& s) { s.dtype = DType::kF16; },
      [](KvSpace& s) { s.layers[0].count = 4; },
      [](KvSpace& s) { s.layers[0].kv_heads = 4; },
      [](KvSpace& s) { s.layers[0].k_dim = 16; },
      [](KvSpace& s) { s.layers[0].v_dim = 16; },
      [](KvSpace& s) { s.layers[0].stored = StoredKind::kKOnly, s.layers[0].v_dim = 0; },
      [](KvSpace& s) { s.layers[0].stored = StoredKind::kLatent, s.layers[0].v_dim = 0; },
      [](KvSpace& s) { s.layers[0].sliding_window = 128; },
      [](KvSpace& s) { s.layers[0].rope = {}; },
      [](KvSpace& s) { s.layers[0].rope.kind = RopeKind::kInterleaved; },
      [](KvSpace& s) { s.layers[0].rope.rotary_dim = 4; },
      [](KvSpace& s) { s.layers[0].rope.theta = 500000; },
      [](KvSpace& s) { s.layers[0].rope.scaling = RopeScaling::kLinear, s.layers[0].rope.factor = 2; },
      [](KvSpace& s) { s.layers[0].rope.scaling = RopeScaling::kNtk, s.layers[0].rope.factor = 2; },
      [](KvSpace& s) { s.layers[0].rope = Yarn(); },
      [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.factor = 41; },
      [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.low_freq_factor = 2; },
      [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.high_freq_factor = 33; },
      [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.attention_factor = 1; },
      [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.original_max_position = 8192; },
      [](KvSpace& s) { s.layers.push_back({.count = 1, .kv_heads = 1, .k_dim = 8, .v_dim = 8, .rope = {}}); },
      [](KvSpace& s) {
        s.layer_map = {0, 1, 3};
      },
      [](KvSpace& s) { s.keys_after_rope = false; },
      [](KvSpace& s) { s.tp_world = 2; },
      [](KvSpace& s) { s.tp_world = 2, s.tp_rank = 1; },
      [](KvSpace& s) { s.pp_first_layer = 3; },
      [](KvSpace& s) { s.chunk_tokens = 17; },
  };
  std::set<SpaceId> ids;
  for (size_t i = 0; i < changes.size(); ++i) {
    KvSpace space = SmallSpace();
    changes[i](space);
    const auto bytes = EncodeSpace(space);
    ASSERT_TRUE(bytes.ok()) << i << ": " << bytes.status();
    EXPECT_EQ(DecodeSpace(AsBytes(*bytes)).value(), space) << i;
    EXPECT_TRUE(ids.insert(ComputeSpaceId(space).value()).second) << "change " << i << " does not change the id";
  }
}

TEST(KvSpaceTest, StringsCannotRunIntoOneAnother) {
  KvSpace a = SmallSpace(), b = SmallSpace();
  a.model_id = "ab", a.weights_revision = "c";
  b.model_id = "a", b.weights_revision = "bc";
  EXPECT_NE(ComputeSpaceId(a).value(), ComputeSpaceId(b).value());
}

TEST(KvSpaceTest, EqualNeighbouringRunsAreOneRun) {
  KvSpace split = SmallSpace();
  split.layers = {RopeRun(1), RopeRun(2)};
  EXPECT_EQ(ComputeSpaceId(split).value(), ComputeSpaceId(SmallSpace()).value());
  EXPECT_EQ(DecodeSpace(AsBytes(EncodeSpace(split).value())).value(), SmallSpace());
  EXPECT_EQ(LayerCount(split), 3u);
}

TEST(KvSpaceTest, TheIdentityLayerMapIsNoMap) {
  KvSpace mapped = SmallSpace();
  mapped.layer_map = {0, 1, 2};
  EXPECT_EQ(ComputeSpaceId(mapped).value(), ComputeSpaceId(SmallSpace()).value());

  KvSpace stage = SmallSpace();
  stage.pp_first_layer = 5;
  KvSpace mapped_stage = stage;
  mapped_stage.layer_map = {5, 6, 7};
  EXPECT_EQ(ComputeSpaceId(mapped_stage).value(), ComputeSpaceId(stage).value());
}

struct Invalid {
  std::string names;  // what the message must name
  std::function<void(KvSpace&)> change;
};

TEST(KvSpaceTest, WhatIsMissingOrOutOfBoundsIsNamed) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<Invalid> cases = {
      {"model_id", [](KvSpace& s) { s.model_id.clear(); }},
      {"model_id", [](KvSpace& s) { s.model_id.assign(kMaxSpaceString + 1, 'x'); }},
      {"weights_revision", [](KvSpace& s) { s.weights_revision.clear(); }},
      {"adapter_revision", [](KvSpace& s) { s.adapter_id = "a"; }},
      {"adapter_id", [](KvSpace& s) { s.adapter_revision = "1"; }},
      {"tenant_salt", [](KvSpace& s) { s.tenant_salt.assign(kMaxSpaceString + 1, 'x'); }},
      {"dtype", [](KvSpace& s) { s.dtype = static_cast<DType>(9); }},
      {"layers", [](KvSpace& s) { s.layers.clear(); }},
      {"count", [](KvSpace& s) { s.layers[0].count = 0; }},
      {"layers", [](KvSpace& s) { s.layers[0].count = kMaxLayers + 1; }},
      {"layers",
       [](KvSpace& s) {
         s.layers = {RopeRun(kMaxLayers), RopeRun(UINT32_MAX)};
       }},
      {"kv_heads", [](KvSpace& s) { s.layers[0].kv_heads = 0; }},
      {"kv_heads", [](KvSpace& s) { s.layers[0].kv_heads = kMaxHeads + 1; }},
      {"k_dim", [](KvSpace& s) { s.layers[0].k_dim = kMaxHeadDim + 1; }},
      {"v_dim", [](KvSpace& s) { s.layers[0].v_dim = 0; }},
      {"v_dim", [](KvSpace& s) { s.layers[0].stored = StoredKind::kKOnly; }},
      {"v_dim", [](KvSpace& s) { s.layers[0].stored = StoredKind::kLatent; }},
      {"stored", [](KvSpace& s) { s.layers[0].stored = static_cast<StoredKind>(0); }},
      {"RoPE", [](KvSpace& s) { s.layers[0].rope.kind = static_cast<RopeKind>(3); }},
      {"theta", [](KvSpace& s) { s.layers[0].rope = {.theta = 1}; }},
      {"theta", [](KvSpace& s) { s.layers[0].rope = {.theta = -0.0}; }},
      {"rotary_dim", [](KvSpace& s) { s.layers[0].rope = {.rotary_dim = 2}; }},
      {"rotary_dim", [](KvSpace& s) { s.layers[0].rope.rotary_dim = 0; }},
      {"rotary_dim", [](KvSpace& s) { s.layers[0].rope.rotary_dim = 7; }},
      {"rotary_dim", [](KvSpace& s) { s.layers[0].rope.rotary_dim = 10; }},
      {"theta", [](KvSpace& s) { s.layers[0].rope.theta = kNan; }},
      {"theta", [](KvSpace& s) { s.layers[0].rope.theta = kInfinity; }},
      {"theta", [](KvSpace& s) { s.layers[0].rope.theta = 0; }},
      {"theta", [](KvSpace& s) { s.layers[0].rope.theta = -1; }},
      {"scaling", [](KvSpace& s) { s.layers[0].rope.scaling = static_cast<RopeScaling>(5); }},
      {"factor", [](KvSpace& s) { s.layers[0].rope.factor = 2; }},
      {"factor", [](KvSpace& s) { s.layers[0].rope.factor = -0.0; }},
      {"factor", [](KvSpace& s) { s.layers[0].rope.scaling = RopeScaling::kLinear; }},
      {"low_freq_factor", [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.low_freq_factor = 32; }},
      {"low_freq_factor", [](KvSpace& s) { s.layers[0].rope.low_freq_factor = 1; }},
      {"attention_factor", [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.attention_factor = 0; }},
      {"attention_factor", [](KvSpace& s) { s.layers[0].rope.attention_factor = 1; }},
      {"original_max_position",
       [](KvSpace& s) { s.layers[0].rope = Yarn(), s.layers[0].rope.original_max_position = 0; }},
      {"original_max_position", [](KvSpace& s) { s.layers[0].rope.original_max_position = 1; }},
      {"keys_after_rope", [](KvSpace& s) { s.layers[0].rope = {}, s.keys_after_rope = false; }},
      {"tp_rank", [](KvSpace& s) { s.tp_rank = 1; }},
      {"tp_rank", [](KvSpace& s) { s.tp_world = 0; }},
      {"pp_first_layer", [](KvSpace& s) { s.pp_first_layer = kMaxLayers; }},
      {"chunk_tokens", [](KvSpace& s) { s.chunk_tokens = 0; }},
      {"chunk_tokens", [](KvSpace& s) { s.chunk_tokens = kMaxChunkTokens + 1; }},
      {"chunk_tokens", [](KvSpace& s) { s.chunk_tokens = 65536, s.layers[0].v_dim = 8192; }},
      {"chunk_tokens", [](KvSpace& s) { s.chunk_tokens = 65536, s.layers[0].v_dim = 1024, s.layers[0].count = 20; }},
      {"layer_map has 2",
       [](KvSpace& s) {
         s.layer_map = {0, 2};
       }},
      {"layer_map[2]",
       [](KvSpace& s) {
         s.layer_map = {0, 2, 2};
       }},
      {"layer_map[0]",
       [](KvSpace& s) {
         s.layer_map = {0, 2, 3}, s.pp_first_layer = 1;
       }},
      {"layer_map[2]",
       [](KvSpace& s) {
         s.layer_map = {0, 2, kMaxLayers};
       }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    KvSpace space = SmallSpace();
    cases[i].change(space);
    const absl::Status status = ValidateSpace(space);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(MessageOf(status), HasSubstr(cases[i].names)) << i;
    EXPECT_EQ(EncodeSpace(space).status(), status) << i;
    EXPECT_EQ(ComputeSpaceId(space).status(), status) << i;
  }
}

TEST(KvSpaceTest, EveryTruncationIsRefused) {
  const std::string bytes = EncodeSpace(SmallSpace()).value();
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(DecodeSpace(AsBytes(bytes).first(n)).status().code(), absl::StatusCode::kDataLoss) << n;
  }
  EXPECT_EQ(DecodeSpace(AsBytes(bytes + '\0')).status().code(), absl::StatusCode::kDataLoss);
}

// A space has no checksum: its name is its hash. So a flipped bit is refused or makes another space, never the same
// one.
TEST(KvSpaceTest, AFlippedBitNeverGivesTheSameSpace) {
  const std::string bytes = EncodeSpace(SmallSpace()).value();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const auto decoded = DecodeSpace(AsBytes(flipped));
    if (!decoded.ok()) continue;
    EXPECT_NE(*decoded, SmallSpace()) << bit;
    EXPECT_EQ(EncodeSpace(*decoded).value(), flipped) << bit;
  }
}

TEST(KvSpaceTest, BytesThatAreNotCanonicalAreRefused) {
  // keys_after_rope is 2: true in another spelling.
  std::string bytes = EncodeSpace(SmallSpace()).value();
  const size_t flag = bytes.size() - 4 - 71 - 4 - 16 - 1;
  ASSERT_EQ(bytes[flag], 1);
  bytes[flag] = 2;
  EXPECT_EQ(DecodeSpace(AsBytes(bytes)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(DecodeSpace(AsBytes(bytes)).status()), HasSubstr("canonical"));

  // The identity, written out.
  bytes = EncodeSpace(SmallSpace()).value();
  bytes.replace(bytes.size() - 4, 4, std::string("\3\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0", 16));
  EXPECT_EQ(DecodeSpace(AsBytes(bytes)).status().code(), absl::StatusCode::kInvalidArgument);

  // Two runs that are one: 3 layers as 1 + 2.
  bytes = EncodeSpace(SmallSpace()).value();
  const std::string run = bytes.substr(bytes.size() - 4 - 71, 71);
  std::string one = run, two = run;
  one[0] = 1, two[0] = 2;
  bytes.replace(bytes.size() - 4 - 71 - 4, 4 + 71, std::string("\2\0\0\0", 4) + one + two);
  EXPECT_EQ(DecodeSpace(AsBytes(bytes)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(KvSpaceTest, ALyingCountAllocatesNothing) {
  std::string bytes = EncodeSpace(SmallSpace()).value();
  bytes.replace(bytes.size() - 4, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(DecodeSpace(AsBytes(bytes)).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kdn

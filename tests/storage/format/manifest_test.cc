#include "storage/format/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "tests/storage/format/test_spaces.h"

namespace kdn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// `bytes` with a checksum that fits, as someone would write it who wants to be believed.
std::string Resealed(std::string bytes) {
  const size_t body = bytes.size() - 8;
  StoreLe(SlabChecksum(AsBytes(bytes).first(body)), reinterpret_cast<uint8_t*>(&bytes[body]));
  return bytes;
}

TEST(ManifestTest, RoundTrips) {
  Manifest manifest = SmallManifest();
  manifest.first_token = 32;
  manifest.parent = manifest.key;
  manifest.fidelity = Fidelity::kApproximate;
  manifest.slabs[1].codec = CodecId::kZstd;
  manifest.slabs[1].encoded_size = 77;
  manifest.slabs[2].shape.dim = 4;
  manifest.slabs[2].encoded_size /= 2;
  const auto bytes = EncodeManifest(manifest);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(DecodeManifest(AsBytes(*bytes)).value(), manifest);
  EXPECT_EQ(manifest.RawBytes(), 5u * 160 + 80);
  EXPECT_EQ(manifest.EncodedBytes(), 4u * 160 + 80 + 77);
}

TEST(ManifestTest, AManifestIsSmall) {
  Manifest manifest = SmallManifest();
  KvSpace space = SmallSpace();
  space.layers[0].count = 80;
  manifest.slabs = SlabsOf(space, 5);
  EXPECT_LE(EncodeManifest(manifest).value().size(), 160u * 18 + 140);
}

TEST(ManifestTest, EveryTruncationIsRefused) {
  const std::string bytes = EncodeManifest(SmallManifest()).value();
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(DecodeManifest(AsBytes(bytes).first(n)).status().code(), absl::StatusCode::kDataLoss) << n;
    if (n >= 8) {
      EXPECT_EQ(DecodeManifest(AsBytes(Resealed(bytes.substr(0, n)))).status().code(), absl::StatusCode::kDataLoss)
          << n;
    }
  }
}

TEST(ManifestTest, EveryFlippedBitIsRefused) {
  const std::string bytes = EncodeManifest(SmallManifest()).value();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(DecodeManifest(AsBytes(flipped)).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
}

TEST(ManifestTest, AFlippedBitUnderAFittingChecksumIsRefusedOrAnotherManifest) {
  const std::string bytes = EncodeManifest(SmallManifest()).value();
  for (size_t bit = 0; bit < (bytes.size() - 8) * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    flipped = Resealed(flipped);
    const auto decoded = DecodeManifest(AsBytes(flipped));
    if (!decoded.ok()) continue;
    EXPECT_NE(*decoded, SmallManifest()) << bit;
    EXPECT_EQ(EncodeManifest(*decoded).value(), flipped) << bit;
  }
}

TEST(ManifestTest, TrailingBytesAreRefused) {
  const std::string bytes = EncodeManifest(SmallManifest()).value();
  EXPECT_EQ(DecodeManifest(AsBytes(bytes + '\0')).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeManifest(AsBytes(Resealed(bytes + '\0'))).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeManifest(AsBytes(std::string(kMaxManifestBytes + 1, '\0'))).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(ManifestTest, AShapeListedTwiceIsNotCanonical) {
  // Layout: 110 bytes up to the counts, u16 shapes, u16 slabs, then 13 bytes a shape.
  std::string bytes = EncodeManifest(SmallManifest()).value();
  constexpr size_t kCounts = 110, kShapes = 114;
  ASSERT_EQ(bytes[kCounts], 1);
  bytes[kCounts] = 2;
  bytes.insert(kShapes, bytes.substr(kShapes, 13));
  const auto decoded = DecodeManifest(AsBytes(Resealed(bytes)));
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(decoded.status()), HasSubstr("canonical"));
}

TEST(ManifestTest, AnUnknownCodecIsRefusedByNumber) {
  Manifest manifest = SmallManifest();
  manifest.slabs[3].codec = static_cast<CodecId>(200);
  const absl::Status status = ValidateManifest(manifest);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(MessageOf(status), HasSubstr("slab 3: codec 200"));

  // 18 bytes a slab, from behind: checksum, slabs 5 and 4, then in slab 3 the codec is byte 5.
  std::string bytes = EncodeManifest(SmallManifest()).value();
  bytes[bytes.size() - 8 - size_t{3} * 18 + 5] = '\xc8';
  EXPECT_EQ(DecodeManifest(AsBytes(Resealed(bytes))).status(), status);
}

TEST(ManifestTest, WhatIsInconsistentIsNamed) {
  struct Inconsistent {
    std::string names;
    std::function<void(Manifest&)> change;
  };
  const std::vector<Inconsistent> cases = {
      {"space", [](Manifest& m) { m.space = {}; }},
      {"key", [](Manifest& m) { m.key = {}; }},
      {"0 tokens", [](Manifest& m) { m.tokens = 0; }},
      {"tokens", [](Manifest& m) { m.tokens = kMaxChunkTokens + 1; }},
      {"first_token", [](Manifest& m) { m.first_token = UINT32_MAX - 4; }},
      {"fidelity", [](Manifest& m) { m.fidelity = static_cast<Fidelity>(0); }},
      {"fidelity", [](Manifest& m) { m.fidelity = static_cast<Fidelity>(4); }},
      {"no slabs", [](Manifest& m) { m.slabs.clear(); }},
      {"slab 0: layer 1 is out of order", [](Manifest& m) { m.slabs.erase(m.slabs.begin(), m.slabs.begin() + 2); }},
      {"slab 2: layer 2 is out of order", [](Manifest& m) { m.slabs.erase(m.slabs.begin() + 2, m.slabs.begin() + 4); }},
      {"slab 0: layer 0 is out of order", [](Manifest& m) { std::swap(m.slabs[0], m.slabs[1]); }},
      {"slab 2: layer 0 is out of order", [](Manifest& m) { m.slabs.insert(m.slabs.begin() + 2, m.slabs[1]); }},
      {"slab 1: layer 0 is out of order", [](Manifest& m) { m.slabs.insert(m.slabs.begin(), m.slabs[0]); }},
      {"slab 1: layer 0 is out of order", [](Manifest& m) { m.slabs[0].kind = SlabKind::kLatent; }},
      {"slab 0: 4 is no slab kind", [](Manifest& m) { m.slabs[0].kind = static_cast<SlabKind>(4); }},
      {"slab 4: it has 6 tokens", [](Manifest& m) { m.slabs[4].shape.tokens = 6; }},
      {"heads", [](Manifest& m) { m.slabs[4].shape.heads = kMaxHeads + 1; }},
      {"dimension", [](Manifest& m) { m.slabs[4].shape.dim = 0; }},
      {"dtype", [](Manifest& m) { m.slabs[4].shape.dtype = static_cast<DType>(0); }},
      {"raw bytes", [](Manifest& m) { m.slabs[4].shape.heads = 4096, m.slabs[4].shape.dim = 65536; }},
      {"slab 0: its encoded size is 0", [](Manifest& m) { m.slabs[0].encoded_size = 0; }},
      {"slab 0: codec q8 is lossy", [](Manifest& m) { m.slabs[0].codec = CodecId::kQ8; }},
      {"slab 0: it is raw", [](Manifest& m) { m.slabs[0].encoded_size -= 1; }},
      {"encoded size",
       [](Manifest& m) { m.slabs[0].codec = CodecId::kZstd, m.slabs[0].encoded_size = kMaxSlabBytes + 1; }},
  };
  ASSERT_TRUE(ValidateManifest(SmallManifest()).ok());
  for (size_t i = 0; i < cases.size(); ++i) {
    Manifest manifest = SmallManifest();
    cases[i].change(manifest);
    const absl::Status status = ValidateManifest(manifest);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(MessageOf(status), HasSubstr(cases[i].names)) << i;
    EXPECT_EQ(EncodeManifest(manifest).status(), status) << i;
  }
}

TEST(ManifestTest, AChunkOverTheLimitIsRefusedThoughEachSlabIsNot) {
  Manifest manifest = SmallManifest();
  KvSpace space = SmallSpace();
  space.layers[0].count = 20;
  manifest.slabs = SlabsOf(space, 5);
  for (SlabInfo& slab : manifest.slabs) slab.codec = CodecId::kZstd, slab.encoded_size = kMaxSlabBytes;
  EXPECT_THAT(MessageOf(ValidateManifest(manifest)), HasSubstr("in all"));
}

TEST(SlabsOfTest, FollowsWhatEachLayerStores) {
  KvSpace space = SmallSpace();
  space.layers = {{.count = 1, .kv_heads = 2, .k_dim = 8, .v_dim = 4, .rope = {}},
                  {.count = 2, .kv_heads = 2, .k_dim = 8, .stored = StoredKind::kKOnly, .rope = {}},
                  {.count = 1, .kv_heads = 1, .k_dim = 9, .stored = StoredKind::kLatent, .rope = {}}};
  const auto slab = [](uint32_t layer, SlabKind kind, uint32_t heads, uint32_t dim) {
    return SlabInfo{.layer = layer,
                    .kind = kind,
                    .shape = {3, heads, dim, DType::kBf16},
                    .encoded_size = uint64_t{6} * heads * dim};
  };
  EXPECT_THAT(SlabsOf(space, 3),
              ElementsAre(slab(0, SlabKind::kK, 2, 8), slab(0, SlabKind::kV, 2, 4), slab(1, SlabKind::kK, 2, 8),
                          slab(2, SlabKind::kK, 2, 8), slab(3, SlabKind::kLatent, 1, 9)));
  Manifest manifest = SmallManifest();
  manifest.tokens = 3;
  manifest.slabs = SlabsOf(space, 3);
  EXPECT_TRUE(ValidateManifest(manifest).ok()) << ValidateManifest(manifest);
}

TEST(CheckGeometryTest, TheFirstDifferenceIsNamed) {
  struct Wrong {
    std::string names;
    std::function<void(Manifest&)> change;
  };
  const std::vector<Wrong> cases = {
      {"belongs to space", [](Manifest& m) { m.space.bytes[0] ^= 1; }},
      {"17 tokens", [](Manifest& m) { m.tokens = 17; }},
      {"begins at token 5", [](Manifest& m) { m.first_token = 5, m.parent = m.key; }},
      {"no parent", [](Manifest& m) { m.first_token = 16; }},
      {"a parent", [](Manifest& m) { m.parent = m.key; }},
      {"5 slabs instead of 6", [](Manifest& m) { m.slabs.pop_back(); }},
      {"slab 1 is of layer 0 and kind 1", [](Manifest& m) { m.slabs[1].kind = SlabKind::kK; }},
      {"slab 2 is 5 x 4 x 8 bf16 instead of 5 x 2 x 8 bf16", [](Manifest& m) { m.slabs[2].shape.heads = 4; }},
      {"5 x 2 x 8 f16 instead", [](Manifest& m) { m.slabs[2].shape.dtype = DType::kF16; }},
  };
  const KvSpace space = SmallSpace();
  const SpaceId id = ComputeSpaceId(space).value();
  ASSERT_TRUE(CheckGeometry(SmallManifest(), id, space).ok());
  for (const Wrong& wrong : cases) {
    Manifest manifest = SmallManifest();
    wrong.change(manifest);
    const absl::Status status = CheckGeometry(manifest, id, space);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << wrong.names;
    EXPECT_THAT(MessageOf(status), HasSubstr(wrong.names));
  }
}

}  // namespace
}  // namespace kdn

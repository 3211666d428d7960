#include "storage/delivery_recode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using testing::MakeChunk;

// As a store hands it out.
FetchedChunk Fetched(const Chunk& chunk, LayerRange layers = {}) {
  FetchedChunk fetched{.miss = {}, .manifest = chunk.manifest, .tier = TierKind::kMemory, .slabs = {}};
  for (uint32_t i = 0; i < chunk.slabs.size(); ++i) {
    if (layers.Contains(chunk.manifest->slabs[i].layer)) fetched.slabs.push_back({i, chunk.slabs[i]});
  }
  fetched.retention = chunk.retention;
  return fetched;
}

FetchedChunk Fetched(Chunk chunk, bool lossy_allowed) {
  chunk.retention.lossy_allowed = lossy_allowed;
  return Fetched(chunk);
}

DeliveryRecoder To(const char* codec, Fidelity least = Fidelity::kExact) {
  return DeliveryRecoder(*FindCodec(codec), least);
}

bool Verifies(const FetchedChunk& fetched) {
  return std::ranges::all_of(
      fetched.slabs, [&](const SlabBytes& slab) { return VerifySlab(*fetched.manifest, slab.index, slab.bytes).ok(); });
}

TEST(DeliveryRecodeTest, WithoutAWishNothingChanges) {
  const Chunk chunk = MakeChunk(testing::MakeSpace(), 1, 256);
  FetchedChunk fetched = Fetched(chunk);
  const DeliveryRecoder none(nullptr, Fidelity::kExact);
  EXPECT_FALSE(none.Wants(*chunk.manifest, {}));
  EXPECT_EQ(none.MostBytes(*chunk.manifest, {}), chunk.manifest->EncodedBytes());
  EXPECT_EQ(none.Recode(fetched), 0u);
  EXPECT_EQ(fetched.manifest, chunk.manifest);
}

TEST(DeliveryRecodeTest, RawIsWhatWasStoredWhateverItGrowsTo) {
  const Chunk raw = MakeChunk(testing::MakeSpace(), 1, 256);
  const Chunk zstd = MakeChunk(testing::MakeSpace(), 1, 256, CodecId::kZstd);
  const DeliveryRecoder recoder = To("raw");
  EXPECT_TRUE(recoder.Wants(*zstd.manifest, {}));
  EXPECT_GE(recoder.MostBytes(*zstd.manifest, {}), raw.manifest->RawBytes());
  FetchedChunk fetched = Fetched(zstd);
  EXPECT_EQ(recoder.Recode(fetched), raw.manifest->RawBytes());
  EXPECT_EQ(*fetched.manifest, *raw.manifest);
  EXPECT_TRUE(Verifies(fetched));
  EXPECT_EQ(zstd.manifest->slabs[0].codec, CodecId::kZstd) << "what is stored stays as it is";
}

TEST(DeliveryRecodeTest, OnlyTheSlabsThatWereReadChange) {
  const Chunk zstd = MakeChunk(testing::MakeSpace(), 1, 256, CodecId::kZstd);
  FetchedChunk fetched = Fetched(zstd, LayerRange{.begin = 1, .end = 2});
  EXPECT_GT(To("raw").Recode(fetched), 0u);
  for (uint32_t i = 0; i < zstd.slabs.size(); ++i) {
    const SlabInfo& slab = fetched.manifest->slabs[i];
    EXPECT_EQ(slab.codec, slab.layer == 1 ? CodecId::kRaw : CodecId::kZstd);
    if (slab.layer != 1) {
      EXPECT_EQ(slab, zstd.manifest->slabs[i]);
    }
  }
  EXPECT_TRUE(ValidateManifest(*fetched.manifest).ok());
}

TEST(DeliveryRecodeTest, LossyNeedsTheRequestsLeaveAndTheStorers) {
  const Chunk raw = MakeChunk(testing::MakeSpace(), 1, 256);
  for (const bool storer : {false, true}) {
    for (const Fidelity least : {Fidelity::kExact, Fidelity::kQuantised}) {
      FetchedChunk fetched = Fetched(raw, storer);
      const bool allowed = storer && least == Fidelity::kQuantised;
      EXPECT_EQ(To("q8", least).Recode(fetched) > 0, allowed);
      EXPECT_EQ(fetched.manifest->fidelity, allowed ? Fidelity::kQuantised : Fidelity::kExact);
      EXPECT_EQ(fetched.manifest->EncodedBytes() < raw.manifest->EncodedBytes(), allowed);
      EXPECT_TRUE(ValidateManifest(*fetched.manifest).ok());
      EXPECT_TRUE(Verifies(fetched));
    }
  }
}

TEST(DeliveryRecodeTest, WhatIsLossyAlreadyStaysAsItIs) {
  FetchedChunk q8 = Fetched(MakeChunk(testing::MakeSpace(), 1, 256), true);
  ASSERT_GT(To("q8", Fidelity::kQuantised).Recode(q8), 0u);
  const ManifestPtr before = q8.manifest;
  for (const char* codec : {"raw", "zstd", "q4", "cachegen"}) {
    EXPECT_FALSE(To(codec, Fidelity::kQuantised).Wants(*before, {})) << codec;
    EXPECT_EQ(To(codec, Fidelity::kQuantised).Recode(q8), 0u) << codec;
    EXPECT_EQ(q8.manifest, before);
  }
}

TEST(DeliveryRecodeTest, DamageKeepsTheChecksumThatRefusesIt) {
  Chunk damaged = testing::WithFlippedByte(MakeChunk(testing::MakeSpace(), 1, 256), 3);
  damaged.retention.lossy_allowed = true;
  FetchedChunk fetched = Fetched(damaged);
  EXPECT_GT(To("q8", Fidelity::kQuantised).Recode(fetched), 0u);
  for (const SlabBytes& slab : fetched.slabs) {
    EXPECT_EQ(VerifySlab(*fetched.manifest, slab.index, slab.bytes).ok(), slab.index != 3);
    EXPECT_EQ(fetched.manifest->slabs[slab.index].codec, slab.index == 3 ? CodecId::kRaw : CodecId::kQ8);
  }
}

// Four heads a layer, of which [1, 3) are asked for, and a layer with a latent, which has one.
class DeliveryCutTest : public ::testing::TestWithParam<const char*> {
 protected:
  static KvSpace Space() {
    KvSpace space = testing::MakeSpace();
    space.layers = {{.count = 2, .kv_heads = 4, .k_dim = 5, .v_dim = 3, .rope = {}},
                    {.count = 1, .kv_heads = 1, .k_dim = 6, .v_dim = 0, .stored = StoredKind::kLatent, .rope = {}}};
    return space;
  }

  // Element by element.
  static std::string Cut(const SlabShape& shape, ByteSpan raw, HeadRange heads) {
    std::string cut;
    const size_t size = DTypeSize(shape.dtype);
    for (size_t element = 0; element < raw.size() / size; ++element) {
      const size_t head = element / shape.dim % shape.heads;
      if (head >= heads.begin && head < heads.end) cut += AsStringView(raw.subspan(element * size, size));
    }
    return cut;
  }

  static std::string Raw(const SlabInfo& slab, ByteSpan bytes) {
    Buffer raw(slab.shape.RawSize());
    EXPECT_TRUE((*FindCodec(slab.codec))->Decode(slab.shape, slab.kind, bytes, raw.span()).ok());
    return std::string(AsStringView(raw.span()));
  }

  const KvSpace space_ = Space();
  const HeadRange heads_ = {.begin = 1, .end = 3};
  const Chunk raw_ = MakeChunk(space_, 1, 256);
  const Chunk chunk_ = MakeChunk(space_, 1, 256, (*FindCodec(std::string_view(GetParam())))->id());
};

INSTANTIATE_TEST_SUITE_P(Stored, DeliveryCutTest, ::testing::Values("raw", "zstd"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(DeliveryCutTest, WhatTravelsAreTheHeadsAskedFor) {
  for (const char* wish : {"", "raw", "zstd"}) {
    SCOPED_TRACE(wish);
    const Codec* const wished = *wish == 0 ? nullptr : *FindCodec(std::string_view(wish));
    const DeliveryRecoder recoder(wished, Fidelity::kExact, heads_);
    EXPECT_TRUE(recoder.MayChange());
    EXPECT_TRUE(recoder.Wants(*chunk_.manifest, {}));
    FetchedChunk fetched = Fetched(chunk_);
    recoder.Recode(fetched);
    EXPECT_TRUE(ValidateManifest(*fetched.manifest).ok());
    EXPECT_TRUE(Verifies(fetched));
    for (const SlabBytes& slab : fetched.slabs) {
      const SlabInfo& whole = raw_.manifest->slabs[slab.index];
      const SlabInfo& cut = fetched.manifest->slabs[slab.index];
      const bool latent = whole.kind == SlabKind::kLatent;
      EXPECT_EQ(cut.shape.heads, latent ? 1u : 2u);
      EXPECT_LE(cut.encoded_size, cut.shape.RawSize() + (latent ? 100 : 0));
      EXPECT_EQ(Raw(cut, slab.bytes),
                latent ? AsStringView(raw_.slabs[slab.index]) : Cut(whole.shape, raw_.slabs[slab.index], heads_));
    }
    EXPECT_LE(fetched.manifest->EncodedBytes(), recoder.MostBytes(*chunk_.manifest, {}));
    EXPECT_EQ(chunk_.manifest->slabs[0].shape.heads, 4u) << "what is stored stays as it is";
  }
}

TEST_P(DeliveryCutTest, RangesThatAreNoneOfTheHeadsOrAllOfThemCutNothing) {
  for (const HeadRange& heads : {HeadRange(), HeadRange{0, 4}, HeadRange{2, 5}, HeadRange{4, 5}, HeadRange{4}}) {
    const DeliveryRecoder recoder(nullptr, Fidelity::kExact, heads);
    EXPECT_FALSE(recoder.Wants(*chunk_.manifest, {}));
    FetchedChunk fetched = Fetched(chunk_);
    EXPECT_EQ(recoder.Recode(fetched), 0u);
    EXPECT_EQ(fetched.manifest, chunk_.manifest);
    EXPECT_TRUE(Verifies(fetched));
  }
}

TEST_P(DeliveryCutTest, OnlyTheLayersThatWereReadAreCut) {
  FetchedChunk fetched = Fetched(chunk_, LayerRange{.begin = 1, .end = 2});
  DeliveryRecoder(nullptr, Fidelity::kExact, {.begin = 3}).Recode(fetched);
  for (uint32_t i = 0; i < chunk_.slabs.size(); ++i) {
    if (chunk_.manifest->slabs[i].layer == 1) {
      EXPECT_EQ(fetched.manifest->slabs[i].shape.heads, 1u);
    } else {
      EXPECT_EQ(fetched.manifest->slabs[i], chunk_.manifest->slabs[i]);
    }
  }
}

TEST_P(DeliveryCutTest, DamageTravelsWholeWithTheChecksumThatRefusesIt) {
  FetchedChunk fetched = Fetched(testing::WithFlippedByte(chunk_, 2));
  DeliveryRecoder(nullptr, Fidelity::kExact, heads_).Recode(fetched);
  for (const SlabBytes& slab : fetched.slabs) {
    EXPECT_EQ(VerifySlab(*fetched.manifest, slab.index, slab.bytes).ok(), slab.index != 2);
  }
  EXPECT_EQ(fetched.manifest->slabs[2], chunk_.manifest->slabs[2]);
  EXPECT_EQ(fetched.manifest->slabs[1].shape.heads, 2u);
}

TEST_P(DeliveryCutTest, ALossyWishIsForTheHeadsAlone) {
  for (const bool allowed : {false, true}) {
    FetchedChunk fetched = Fetched(chunk_, allowed);
    const uint64_t recoded = DeliveryRecoder(*FindCodec("q8"), Fidelity::kQuantised, heads_).Recode(fetched);
    EXPECT_EQ(recoded > 0, allowed);
    EXPECT_EQ(fetched.manifest->fidelity, allowed ? Fidelity::kQuantised : Fidelity::kExact);
    EXPECT_EQ(fetched.manifest->slabs[0].codec, allowed ? CodecId::kQ8 : CodecId::kRaw);
    EXPECT_EQ(fetched.manifest->slabs[0].shape.heads, 2u);
    EXPECT_TRUE(ValidateManifest(*fetched.manifest).ok());
    EXPECT_TRUE(Verifies(fetched));
  }
}

TEST_P(DeliveryCutTest, WhatIsStoredLossilyStaysWhole) {
  FetchedChunk q8 = Fetched(chunk_, true);
  DeliveryRecoder(*FindCodec("q8"), Fidelity::kQuantised).Recode(q8);
  const ManifestPtr stored = q8.manifest;
  ASSERT_EQ(stored->slabs[0].codec, CodecId::kQ8);
  DeliveryRecoder(*FindCodec("zstd"), Fidelity::kQuantised, heads_).Recode(q8);
  EXPECT_EQ(q8.manifest->slabs[0], stored->slabs[0]);
}

TEST(DeliveryCutSizeTest, ASlabThatIsSmallerWholeStaysWholeUnlessRawIsWishedFor) {
  KvSpace space = testing::MakeSpace();
  Chunk chunk = MakeChunk(space, 1, 256);
  auto manifest = std::make_shared<Manifest>(*chunk.manifest);
  const Buffer zeros = [&] {
    Buffer bytes(manifest->slabs[0].shape.RawSize());
    std::ranges::fill(bytes.span(), uint8_t{0});
    return bytes;
  }();
  for (size_t i = 0; i < chunk.slabs.size(); ++i) {
    SlabInfo& slab = manifest->slabs[i];
    const ByteSpan raw = {zeros.data(), zeros.size()};
    chunk.slabs[i] = (*FindCodec("zstd"))->Encode(slab.shape, slab.kind, raw).value().Freeze();
    slab.codec = CodecId::kZstd;
    slab.encoded_size = chunk.slabs[i].size();
    slab.checksum = SlabChecksum(chunk.slabs[i]);
  }
  chunk.manifest = manifest;
  const HeadRange heads = {.begin = 1};
  FetchedChunk fetched = Fetched(chunk);
  DeliveryRecoder(nullptr, Fidelity::kExact, heads).Recode(fetched);
  EXPECT_EQ(fetched.manifest, chunk.manifest);
  DeliveryRecoder(*FindCodec("raw"), Fidelity::kExact, heads).Recode(fetched);
  for (const SlabInfo& slab : fetched.manifest->slabs) {
    EXPECT_EQ(slab.codec, CodecId::kRaw);
    EXPECT_EQ(slab.encoded_size, zeros.size() / 2);
  }
}

}  // namespace
}  // namespace kdn

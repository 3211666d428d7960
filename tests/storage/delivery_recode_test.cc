#include "storage/delivery_recode.h"

#include <gtest/gtest.h>

#include <algorithm>

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

}  // namespace
}  // namespace kdn

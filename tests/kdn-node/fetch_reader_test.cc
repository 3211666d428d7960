#include "kdn-node/fetch_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "storage/tiered_store.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

class FetchReaderTest : public ::testing::TestWithParam<bool> {  // LAYER_MAJOR?
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<TieredStore>> store = TieredStore::Open({});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      chunks_.push_back(testing::MakeChunk(space_, seed));
      ASSERT_TRUE(store_->Put(chunks_.back(), Ack::kMemory).ok());
    }
  }

  FetchCall Call(LayerRange layers = {}) const {
    FetchCall call;
    call.what.space = testing::IdOf(space_);
    for (const Chunk& chunk : chunks_) call.what.keys.push_back(chunk.manifest->key);
    call.layers = layers;
    call.layer_major = GetParam();
    return call;
  }

  uint64_t LayerBytes() const { return chunks_[0].slabs[0].size() + chunks_[0].slabs[1].size(); }

  const KvSpace space_ = testing::MakeSpace();  // 4 layers
  std::unique_ptr<TieredStore> store_;
  std::vector<Chunk> chunks_;
};

TEST_P(FetchReaderTest, WhateverTheStepsEveryByteComesOnceAfterOneResult) {
  for (const uint64_t max_bytes : {uint64_t{0}, LayerBytes(), 2 * LayerBytes(), 3 * LayerBytes(), ~uint64_t{0}}) {
    const auto reader = MakeFetchReader(*store_, Call());
    std::vector<std::string> bytes(chunks_.size());
    std::multiset<uint32_t> answered;
    while (!reader->done()) {
      uint64_t read = 0;
      for (const FetchItem& item : reader->Step(max_bytes)) {
        if (item.is_result) {
          EXPECT_EQ(item.miss.reason, MissReason::kNone) << item.miss.detail;
          answered.insert(item.chunk);
          continue;
        }
        EXPECT_EQ(answered.count(item.chunk), 1u);
        read += item.bytes.size();
        bytes[item.chunk] += AsStringView(item.bytes.span());
      }
      EXPECT_LE(read, std::max(max_bytes, LayerBytes()));
    }
    EXPECT_EQ(answered, (std::multiset<uint32_t>{0, 1, 2}));
    for (size_t i = 0; i < chunks_.size(); ++i) EXPECT_EQ(bytes[i], testing::BytesOf(chunks_[i]));
    EXPECT_EQ(reader->results()[0], chunks_.size());
    EXPECT_EQ(reader->NextBytes(), 0u);
    EXPECT_TRUE(reader->Step(max_bytes).empty());
  }
}

TEST_P(FetchReaderTest, NextBytesIsWhatTheNextStepReads) {
  const auto reader = MakeFetchReader(*store_, Call({.begin = 1, .end = 3}));
  while (!reader->done()) {
    const uint64_t next = reader->NextBytes();
    uint64_t read = 0;
    for (const FetchItem& item : reader->Step(~uint64_t{0})) read += item.bytes.size();
    EXPECT_EQ(read, next);
  }
}

TEST_P(FetchReaderTest, AChunkThatIsReplacedMidwayIsNeverMixedWithItsSuccessor) {
  const auto reader = MakeFetchReader(*store_, Call());
  const Chunk& first = chunks_[0];
  std::vector<FetchItem> items;
  while (items.empty() || items.back().is_result) {  // until some of the first chunk came
    for (FetchItem& item : reader->Step(LayerBytes())) items.push_back(std::move(item));
  }
  Chunk other = testing::WithFidelity(first, Fidelity::kApproximate);
  ASSERT_TRUE(store_->Delete(first.manifest->space, first.manifest->key).ok());
  // The same key, exact as well, but with other bytes.
  auto manifest = std::make_shared<Manifest>(*other.manifest);
  manifest->fidelity = Fidelity::kExact;
  other.manifest = manifest;
  ASSERT_TRUE(store_->Put(other, Ack::kMemory).ok());

  while (!reader->done()) {
    for (FetchItem& item : reader->Step(LayerBytes())) items.push_back(std::move(item));
  }
  size_t results = 0;
  for (const FetchItem& item : items) {
    if (item.chunk != 0) continue;
    if (item.is_result) {
      ++results;
      EXPECT_EQ(item.miss.reason, results == 1 ? MissReason::kNone : MissReason::kNotFound);
    } else {
      EXPECT_EQ(results, 1u);
      EXPECT_TRUE(AsStringView(item.bytes.span()) == AsStringView(first.slabs[item.slab].span()));
    }
  }
  EXPECT_EQ(results, 2u);
  EXPECT_EQ(reader->results()[0], 2u);
}

// Chunks that are wished for by another codec: stored raw, wished lossy, which makes random bytes smaller.
class FetchReaderWishTest : public FetchReaderTest {
 protected:
  void SetUp() override {
    FetchReaderTest::SetUp();
    chunks_.clear();
    for (uint32_t seed = 11; seed <= 13; ++seed) {
      chunks_.push_back(testing::MakeChunk(space_, seed, /*tokens=*/256));
      chunks_.back().retention.lossy_allowed = true;
      ASSERT_TRUE(store_->Put(chunks_.back(), Ack::kMemory).ok());
    }
  }

  FetchCall WishFor(const char* codec, LayerRange layers = {}) const {
    FetchCall call = Call(layers);
    call.codec = *FindCodec(codec);
    call.least = Fidelity::kQuantised;
    return call;
  }

  // What the reader hands out, by chunk; each step is given `max_bytes`, or what it asks for.
  struct Delivered {
    std::map<uint32_t, Manifest> manifests;
    std::map<uint32_t, std::map<uint32_t, SharedBuffer>> slabs;
  };
  static Delivered ReadAll(FetchReader& reader, std::optional<uint64_t> max_bytes = std::nullopt) {
    Delivered delivered;
    while (!reader.done()) {
      const uint64_t next = reader.NextBytes();
      uint64_t bytes = 0;
      for (FetchItem& item : reader.Step(max_bytes.value_or(next))) {
        if (item.is_result) {
          EXPECT_EQ(item.miss.reason, MissReason::kNone) << item.miss.detail;
          delivered.manifests[item.chunk] = DecodeManifest(AsBytes(item.manifest)).value();
        } else {
          bytes += item.bytes.size();
          delivered.slabs[item.chunk][item.slab] = std::move(item.bytes);
        }
      }
      EXPECT_LE(bytes, next);
    }
    for (const auto& [chunk, slabs] : delivered.slabs) {
      for (const auto& [slab, bytes] : slabs) {
        EXPECT_TRUE(VerifySlab(delivered.manifests.at(chunk), slab, bytes).ok()) << chunk << ", " << slab;
      }
    }
    return delivered;
  }
};

TEST_P(FetchReaderWishTest, TheManifestTellsWhatIsSentAndTheStoreKeepsWhatItHas) {
  const auto reader = MakeFetchReader(*store_, WishFor("q8"));
  const Delivered delivered = ReadAll(*reader);
  uint64_t sent = 0;
  for (uint32_t chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(delivered.manifests.at(chunk).fidelity, Fidelity::kQuantised);
    EXPECT_EQ(delivered.slabs.at(chunk).size(), 8u);
    for (const SlabInfo& slab : delivered.manifests.at(chunk).slabs) EXPECT_EQ(slab.codec, CodecId::kQ8);
    sent += delivered.manifests.at(chunk).EncodedBytes();
  }
  EXPECT_EQ(reader->recoded_bytes(), sent);
  EXPECT_EQ(reader->results()[0], 3u);
  const auto again = MakeFetchReader(*store_, Call());
  const Delivered stored = ReadAll(*again);
  for (uint32_t chunk = 0; chunk < 3; ++chunk) EXPECT_EQ(stored.manifests.at(chunk), *chunks_[chunk].manifest);
  EXPECT_EQ(again->codec(), nullptr);
  EXPECT_EQ(again->recoded_bytes(), 0u);
}

TEST_P(FetchReaderWishTest, OfALayerRangeThoseLayersAreRecoded) {
  const auto reader = MakeFetchReader(*store_, WishFor("q8", {.begin = 1, .end = 3}));
  const Delivered delivered = ReadAll(*reader);
  for (uint32_t chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(delivered.slabs.at(chunk).size(), 4u);
    for (const SlabInfo& slab : delivered.manifests.at(chunk).slabs) {
      EXPECT_EQ(slab.codec, slab.layer == 1 || slab.layer == 2 ? CodecId::kQ8 : CodecId::kRaw);
    }
  }
}

TEST_P(FetchReaderWishTest, WithoutRoomAChunkTravelsAsItIsStored) {
  const auto reader = MakeFetchReader(*store_, WishFor("q8"));
  const Delivered delivered = ReadAll(*reader, LayerBytes());
  for (uint32_t chunk = 0; chunk < 3; ++chunk) EXPECT_EQ(delivered.manifests.at(chunk), *chunks_[chunk].manifest);
  EXPECT_EQ(reader->recoded_bytes(), 0u);
}

TEST_P(FetchReaderWishTest, AChunkThatIsReplacedWhileItIsSentIsMissed) {
  const auto reader = MakeFetchReader(*store_, WishFor("q8"));
  std::vector<FetchItem> items;
  while (items.empty()) {
    for (FetchItem& item : reader->Step(reader->NextBytes())) items.push_back(std::move(item));
  }
  // The same key with other bytes.
  const Chunk& first = chunks_[0];
  Chunk other = testing::WithFlippedByte(first, 7);
  auto manifest = std::make_shared<Manifest>(*first.manifest);
  manifest->slabs[7].checksum = SlabChecksum(other.slabs[7]);
  other.manifest = manifest;
  ASSERT_TRUE(store_->Delete(first.manifest->space, first.manifest->key).ok());
  ASSERT_TRUE(store_->Put(other, Ack::kMemory).ok());
  while (!reader->done()) {
    for (FetchItem& item : reader->Step(reader->NextBytes())) items.push_back(std::move(item));
  }
  // CHUNK_MAJOR had it whole already.
  EXPECT_EQ(reader->results()[0], GetParam() ? 2u : 3u);
  EXPECT_EQ(reader->results()[static_cast<size_t>(MissReason::kNotFound)], GetParam() ? 1u : 0u);
}

// Chunks of two heads, of which the second is asked for.
class FetchReaderHeadsTest : public FetchReaderWishTest {
 protected:
  FetchCall Heads(LayerRange layers = {}) const {
    FetchCall call = Call(layers);
    call.heads = {.begin = 1, .end = 2};
    return call;
  }
};

TEST_P(FetchReaderHeadsTest, HalfOfTheHeadsAreHalfOfTheBytesAndTheStoreKeepsWhatItHas) {
  const auto reader = MakeFetchReader(*store_, Heads());
  EXPECT_TRUE(reader->recodes());
  const Delivered delivered = ReadAll(*reader);
  for (uint32_t chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(delivered.slabs.at(chunk).size(), 8u);
    EXPECT_EQ(delivered.manifests.at(chunk).EncodedBytes(), chunks_[chunk].manifest->EncodedBytes() / 2);
    for (const SlabInfo& slab : delivered.manifests.at(chunk).slabs) EXPECT_EQ(slab.shape.heads, 1u);
    // Of each token's two heads of 16 bf16 the second.
    const ByteSpan whole = chunks_[chunk].slabs[5];
    const ByteSpan cut = delivered.slabs.at(chunk).at(5);
    for (size_t token = 0; token < 256; ++token) {
      EXPECT_EQ(AsStringView(cut.subspan(token * 32, 32)), AsStringView(whole.subspan(token * 64 + 32, 32)));
    }
  }
  EXPECT_EQ(reader->recoded_bytes(), 0u) << "no codec was wished for";
  EXPECT_EQ(reader->results()[0], 3u);
  const Delivered stored = ReadAll(*MakeFetchReader(*store_, Call()));
  for (uint32_t chunk = 0; chunk < 3; ++chunk) EXPECT_EQ(stored.manifests.at(chunk), *chunks_[chunk].manifest);
}

TEST_P(FetchReaderHeadsTest, OfALayerRangeThoseLayersAreCut) {
  const Delivered delivered = ReadAll(*MakeFetchReader(*store_, Heads({.begin = 1, .end = 3})));
  for (uint32_t chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(delivered.slabs.at(chunk).size(), 4u);
    for (const SlabInfo& slab : delivered.manifests.at(chunk).slabs) {
      EXPECT_EQ(slab.shape.heads, slab.layer == 1 || slab.layer == 2 ? 1u : 2u);
    }
  }
}

TEST_P(FetchReaderHeadsTest, WithoutRoomAChunkTravelsWhole) {
  const Delivered delivered = ReadAll(*MakeFetchReader(*store_, Heads()), LayerBytes());
  for (uint32_t chunk = 0; chunk < 3; ++chunk) EXPECT_EQ(delivered.manifests.at(chunk), *chunks_[chunk].manifest);
}

TEST_P(FetchReaderHeadsTest, AStepHoldsALayerOfAChunkOrAChunk) {
  const auto reader = MakeFetchReader(*store_, Heads());
  const uint64_t most = GetParam() ? LayerBytes() / 2 : chunks_[0].manifest->EncodedBytes() / 2;
  while (!reader->done()) {
    uint64_t bytes = 0;
    for (const FetchItem& item : reader->Step(reader->NextBytes())) bytes += item.bytes.size();
    EXPECT_LE(bytes, most);
  }
  EXPECT_EQ(reader->results()[0], 3u);
}

TEST_P(FetchReaderHeadsTest, AChunkThatIsReplacedWhileItIsSentIsMissed) {
  const auto reader = MakeFetchReader(*store_, Heads());
  std::vector<FetchItem> items;
  while (items.empty()) {
    for (FetchItem& item : reader->Step(reader->NextBytes())) items.push_back(std::move(item));
  }
  const Chunk& first = chunks_[0];
  Chunk other = testing::WithFlippedByte(first, 7);
  auto manifest = std::make_shared<Manifest>(*first.manifest);
  manifest->slabs[7].checksum = SlabChecksum(other.slabs[7]);
  other.manifest = manifest;
  ASSERT_TRUE(store_->Delete(first.manifest->space, first.manifest->key).ok());
  ASSERT_TRUE(store_->Put(other, Ack::kMemory).ok());
  while (!reader->done()) {
    for (FetchItem& item : reader->Step(reader->NextBytes())) items.push_back(std::move(item));
  }
  EXPECT_EQ(reader->results()[0], GetParam() ? 2u : 3u);  // CHUNK_MAJOR had it whole already
  EXPECT_EQ(reader->results()[static_cast<size_t>(MissReason::kNotFound)], GetParam() ? 1u : 0u);
}

INSTANTIATE_TEST_SUITE_P(Orders, FetchReaderHeadsTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "LayerMajor" : "ChunkMajor"; });

INSTANTIATE_TEST_SUITE_P(Orders, FetchReaderWishTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "LayerMajor" : "ChunkMajor"; });

INSTANTIATE_TEST_SUITE_P(Orders, FetchReaderTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "LayerMajor" : "ChunkMajor"; });

}  // namespace
}  // namespace kdn

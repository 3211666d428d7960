#include "kdn-node/fetch_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

INSTANTIATE_TEST_SUITE_P(Orders, FetchReaderTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "LayerMajor" : "ChunkMajor"; });

}  // namespace
}  // namespace kdn

// Slabs that a transport receives into rooms of the sink, and that are decoded while others arrive.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kdn-client/chunk_encoder.h"
#include "kdn-client/fetch_sink.h"
#include "tests/kdn-client/engine_memory.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

// Slabs of 256 KiB, large enough to be decoded on other threads.
KvSpace LargeSpace() {
  KvSpace space = TinySpace();
  space.layers = {{.count = 3, .kv_heads = 8, .k_dim = 512, .v_dim = 512, .rope = {}}};
  space.chunk_tokens = 32;
  return space;
}

class FetchRoomTest : public testing::Test {
 protected:
  void SetUp() override {
    const KvView source = KvView::Over(space_, computed_.view(), {}).value();
    for (const ChunkRef& ref : refs_) {
      chunks_.push_back(EncodeChunk(id_, space_, ref, source, **FindCodec("zstd")).value());
      for (const SlabInfo& slab : chunks_.back().manifest->slabs) {
        ASSERT_EQ(slab.codec, CodecId::kZstd);
        ASSERT_GE(slab.encoded_size, uint64_t{64} << 10) << "too small to be decoded on another thread";
      }
    }
    NewSink({});
    for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
      ASSERT_TRUE(sink_->OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory));
    }
  }

  void NewSink(FetchSink::Want want) {
    view_.emplace(KvView::Over(space_, fetched_.view(), {}).value());
    sink_.emplace(id_, space_, refs_, *view_, std::move(want));
  }

  // As a transport does: into the room, and then told part by part.
  void Receive(size_t chunk, uint32_t slab, MutableByteSpan room, size_t part_bytes) {
    const ByteSpan bytes = chunks_[chunk].slabs[slab];
    ASSERT_EQ(room.size(), bytes.size());
    for (size_t offset = 0; offset < bytes.size(); offset += part_bytes) {
      const size_t n = std::min(part_bytes, bytes.size() - offset);
      std::copy_n(bytes.data() + offset, n, room.data() + offset);
      sink_->OnPart(chunk, slab, offset, room.subspan(offset, n));
    }
  }

  std::vector<MissReason> Outcome() {
    std::vector<MissReason> reasons;
    for (const ChunkOutcome& chunk : std::move(*sink_).Finish(absl::OkStatus())) reasons.push_back(chunk.miss.reason);
    return reasons;
  }

  static constexpr uint32_t kTokens = 2 * 32;
  const KvSpace space_ = LargeSpace();
  const SpaceId id_ = ComputeSpaceId(space_).value();
  const std::vector<ChunkRef> refs_ = Chain(space_, kTokens);
  const EngineMemory computed_ = EngineMemory::WithKv(space_, kTokens);
  EngineMemory fetched_{space_, kTokens};
  std::vector<Chunk> chunks_;
  std::optional<KvView> view_;
  std::optional<FetchSink> sink_;
};

TEST_F(FetchRoomTest, WhatIsReceivedIntoRoomsIsDecodedBitForBit) {
  for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
      Receive(chunk, slab, sink_->Room(chunk, slab), 10'000);
    }
  }
  EXPECT_THAT(Outcome(), Each(MissReason::kNone));
  EXPECT_TRUE(fetched_ == computed_);
}

TEST_F(FetchRoomTest, RoomsMayBeAskedForAheadAndFilledLater) {
  std::vector<MutableByteSpan> rooms;
  for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) rooms.push_back(sink_->Room(0, slab));
  for (uint32_t slab = 0; slab < rooms.size(); ++slab) Receive(0, slab, rooms[slab], SIZE_MAX);
  // The other chunk comes as spans of the transport's own, whole and in parts.
  for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) {
    const ByteSpan bytes = chunks_[1].slabs[slab];
    const size_t half = slab % 2 == 0 ? bytes.size() : bytes.size() / 2;
    sink_->OnPart(1, slab, 0, bytes.first(half));
    if (half < bytes.size()) sink_->OnPart(1, slab, half, bytes.subspan(half));
  }
  EXPECT_THAT(Outcome(), Each(MissReason::kNone));
  EXPECT_TRUE(fetched_ == computed_);
}

TEST_F(FetchRoomTest, DamageInARoomIsCaughtAndHurtsNoOtherChunk) {
  const MutableByteSpan room = sink_->Room(0, 0);
  const ByteSpan bytes = chunks_[0].slabs[0];
  std::copy(bytes.begin(), bytes.end(), room.data());
  room[bytes.size() / 2] ^= 1;
  sink_->OnPart(0, 0, 0, room);
  for (uint32_t slab = 1; slab < chunks_[0].slabs.size(); ++slab) {
    const MutableByteSpan next = sink_->Room(0, slab);
    if (!next.empty()) Receive(0, slab, next, 50'000);
  }
  for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) Receive(1, slab, sink_->Room(1, slab), 50'000);
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kCorrupt, MissReason::kNone));
}

TEST_F(FetchRoomTest, ALayerIsToldOnceAllItsChunksAreDecoded) {
  std::vector<uint32_t> layers;
  NewSink({.on_layer = [&](uint32_t layer) { layers.push_back(layer); }});
  for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    sink_->OnChunk(chunk, chunks_[chunk].manifest, TierKind::kMemory);
  }
  const auto layer_of = [&](uint32_t slab) { return chunks_[0].manifest->slabs[slab].layer; };
  for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) {
    Receive(0, slab, sink_->Room(0, slab), SIZE_MAX);
    EXPECT_THAT(layers, Not(testing::Contains(layer_of(slab)))) << "the other chunk's slabs are not here yet";
    Receive(1, slab, sink_->Room(1, slab), SIZE_MAX);
  }
  EXPECT_THAT(Outcome(), Each(MissReason::kNone));
  EXPECT_THAT(layers, testing::UnorderedElementsAre(0, 1, 2));
}

TEST_F(FetchRoomTest, ThereIsNoRoomForWhatMayNotCome) {
  EXPECT_THAT(sink_->Room(0, static_cast<uint32_t>(chunks_[0].slabs.size())), IsEmpty());
  EXPECT_THAT(sink_->Room(2, 0), IsEmpty());
  sink_->OnMiss(1, {MissReason::kNotFound, ""});
  EXPECT_THAT(sink_->Room(1, 0), IsEmpty());
  for (uint32_t slab = 0; slab < chunks_[0].slabs.size(); ++slab) {
    Receive(0, slab, sink_->Room(0, slab), SIZE_MAX);
    EXPECT_THAT(sink_->Room(0, slab), IsEmpty()) << "it has come already";
  }
  EXPECT_THAT(Outcome(), ElementsAre(MissReason::kNone, MissReason::kNotFound));
}

TEST_F(FetchRoomTest, ASinkThatGoesEarlyWaitsForWhatIsBeingDecoded) {
  for (int round = 0; round < 20; ++round) {
    NewSink({});
    sink_->OnChunk(0, chunks_[0].manifest, TierKind::kMemory);
    for (uint32_t slab = 0; slab < 3; ++slab) Receive(0, slab, sink_->Room(0, slab), SIZE_MAX);
    sink_.reset();
    fetched_ = EngineMemory(space_, kTokens);  // would be written to after it was freed
  }
}

}  // namespace
}  // namespace kdn

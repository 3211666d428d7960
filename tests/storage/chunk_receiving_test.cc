// Chunks whose slabs are received straight into their memory, and the checksums that are computed on the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "storage/base/shared_arena.h"
#include "storage/base/status.h"
#include "storage/chunk_assembler.h"
#include "storage/format/manifest.h"
#include "storage/format/slab_hasher.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class ChunkReceivingTest : public ::testing::Test {
 protected:
  ChunkAssembler Start(std::shared_ptr<BufferMemory> memory = nullptr) {
    return ChunkAssembler::Start(AsBytes(encoded_), std::move(memory)).value();
  }

  // As a socket would: the next `bytes` of a slab, into the room for them.
  static void Receive(ChunkAssembler& assembler, const Chunk& from, uint32_t slab, size_t bytes) {
    const MutableByteSpan room = assembler.Room(slab);
    ASSERT_LE(bytes, room.size());
    const ByteSpan all = from.slabs[slab].span();
    std::memcpy(room.data(), all.data() + (all.size() - room.size()), bytes);
    assembler.Received(slab, bytes);
  }
  static void ReceiveRest(ChunkAssembler& assembler, const Chunk& from, uint32_t slab) {
    Receive(assembler, from, slab, assembler.Room(slab).size());
  }

  static constexpr auto kSlabs = 8u;
  const Chunk chunk_ = testing::MakeChunk(testing::MakeSpace(), 1, 64);
  const std::string encoded_ = EncodeManifest(*chunk_.manifest).value();
};

TEST_F(ChunkReceivingTest, WholeSlabsMakeTheChunk) {
  ChunkAssembler assembler = Start();
  for (uint32_t slab = 0; slab < kSlabs; ++slab) {
    EXPECT_EQ(assembler.Room(slab).size(), chunk_.slabs[slab].size());
    ReceiveRest(assembler, chunk_, slab);
    EXPECT_TRUE(assembler.Room(slab).empty());
  }
  const absl::StatusOr<Chunk> chunk = std::move(assembler).Finish();
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_TRUE(testing::BytesOf(*chunk) == testing::BytesOf(chunk_));
}

TEST_F(ChunkReceivingTest, SlabsInPiecesOfAnySizeMakeTheChunk) {
  for (const size_t piece : {1u, 7u, 64u, 1000u, 4095u}) {
    ChunkAssembler assembler = Start();
    for (uint32_t slab = 0; slab < kSlabs; ++slab) {
      while (!assembler.Room(slab).empty()) {
        Receive(assembler, chunk_, slab, std::min(piece, assembler.Room(slab).size()));
      }
    }
    const absl::StatusOr<Chunk> chunk = std::move(assembler).Finish();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    EXPECT_TRUE(testing::BytesOf(*chunk) == testing::BytesOf(chunk_)) << piece;
  }
}

TEST_F(ChunkReceivingTest, PiecesOfDifferentSlabsMayTakeTurns) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    ChunkAssembler assembler = Start();
    size_t left = testing::BytesOf(chunk_).size();
    while (left > 0) {
      const uint32_t slab = static_cast<uint32_t>(random() % kSlabs);
      const size_t bytes = std::min<size_t>(random() % 3000, assembler.Room(slab).size());  // none, at times
      if (random() % 4 == 0) {
        const size_t offset = chunk_.slabs[slab].size() - assembler.Room(slab).size();
        ASSERT_TRUE(assembler.Add(slab, offset, chunk_.slabs[slab].span().subspan(offset, bytes)).ok());
      } else {
        Receive(assembler, chunk_, slab, bytes);
      }
      left -= bytes;
    }
    const absl::StatusOr<Chunk> chunk = std::move(assembler).Finish();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    ASSERT_TRUE(testing::BytesOf(*chunk) == testing::BytesOf(chunk_)) << round;
  }
}

// Whether slabs come whole, in pieces, or by turns decides which checksums are computed on the way and which at the
// end.
TEST_F(ChunkReceivingTest, DamagedBytesAreDataLossHoweverTheyCome) {
  for (uint32_t damaged = 0; damaged < kSlabs; ++damaged) {
    const Chunk other = testing::WithFlippedByte(chunk_, damaged);
    for (const int how : {0, 1, 2}) {
      ChunkAssembler assembler = Start();
      if (how == 2) {
        for (uint32_t slab = 0; slab < kSlabs; ++slab) Receive(assembler, other, slab, 100);
      }
      for (uint32_t slab = 0; slab < kSlabs; ++slab) {
        if (how == 1) Receive(assembler, other, slab, 4000);
        ReceiveRest(assembler, other, slab);
      }
      const absl::Status status = std::move(assembler).Finish().status();
      EXPECT_TRUE(absl::IsDataLoss(status)) << how << ": " << status;
      EXPECT_THAT(MessageOf(status), HasSubstr(std::to_string(damaged)));
    }
  }
}

TEST_F(ChunkReceivingTest, AByteTooFewIsNotAChunk) {
  ChunkAssembler assembler = Start();
  for (uint32_t slab = 0; slab < kSlabs; ++slab) {
    Receive(assembler, chunk_, slab, chunk_.slabs[slab].size() - (slab == 5 ? 1 : 0));
  }
  const absl::Status status = std::move(assembler).Finish().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("slab 5"));
}

TEST_F(ChunkReceivingTest, SlabsLieInTheArenaAndGiveItBack) {
  const std::shared_ptr<SharedArena> arena = SharedArena::Create(uint64_t{4} << 20).value();
  const uint64_t used_by_none = arena->used_bytes();
  {
    ChunkAssembler assembler = Start(arena);
    EXPECT_EQ(arena->used_bytes(), used_by_none) << "memory is taken as slabs arrive";
    for (uint32_t slab = 0; slab < kSlabs; ++slab) ReceiveRest(assembler, chunk_, slab);
    const absl::StatusOr<Chunk> chunk = std::move(assembler).Finish();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    for (const SharedBuffer& slab : chunk->slabs) EXPECT_TRUE(arena->OffsetOf(slab).has_value());
    EXPECT_TRUE(testing::BytesOf(*chunk) == testing::BytesOf(chunk_));
  }
  EXPECT_EQ(arena->used_bytes(), used_by_none);
  {
    ChunkAssembler cut_off = Start(arena);
    Receive(cut_off, chunk_, 3, 10);
    EXPECT_GT(arena->used_bytes(), used_by_none);
  }
  EXPECT_EQ(arena->used_bytes(), used_by_none);
}

TEST(SlabHasherTest, AnyPartitionHasTheChecksumOfTheWhole) {
  std::mt19937 random(7);
  std::vector<uint8_t> bytes(200'000);
  std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random()); });
  SlabHasher hasher;
  // Sizes around those at which the hash changes its way: 16, 128, 240, 256, and its stripes and blocks.
  for (const size_t size :
       {0u, 1u, 3u, 8u, 16u, 17u, 128u, 129u, 240u, 241u, 255u, 256u, 257u, 1024u, 1025u, 65'536u, 200'000u}) {
    const ByteSpan whole = ByteSpan(bytes).first(size);
    const uint64_t expected = SlabChecksum(whole);
    for (const size_t most : {size_t{1}, size_t{5}, size_t{255}, size_t{300}, size_t{70'000}}) {
      if (size / most > 5000) continue;
      hasher.Restart();
      for (size_t at = 0; at < size;) {
        const size_t part = std::min<size_t>(random() % (most + 1), size - at);
        hasher.Update(whole.subspan(at, part));
        at += part;
      }
      EXPECT_EQ(hasher.Checksum(), expected) << size << " bytes in parts of up to " << most;
      EXPECT_EQ(hasher.Checksum(), expected) << "asking does not change it";
    }
  }
  EXPECT_NE(SlabChecksum(ByteSpan(bytes).first(999)), SlabChecksum(ByteSpan(bytes).first(1000)));
}

}  // namespace
}  // namespace kdn

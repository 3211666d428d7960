#include "storage/chunk_assembler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/base/status.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

class ChunkAssemblerTest : public ::testing::Test {
 protected:
  ChunkAssembler Start() { return ChunkAssembler::Start(AsBytes(encoded_)).value(); }
  ByteSpan Slab(uint32_t i) const { return chunk_.slabs[i].span(); }

  const Chunk chunk_ = testing::MakeChunk(testing::MakeSpace(), 1);
  const std::string encoded_ = EncodeManifest(*chunk_.manifest).value();
  static constexpr auto kSlabs = 8u;
};

TEST_F(ChunkAssemblerTest, PartsInAnyOrderOfSlabsMakeTheChunk) {
  ChunkAssembler assembler = Start();
  for (uint32_t i = kSlabs; i-- > 0;) ASSERT_TRUE(assembler.Add(i, 0, Slab(i).first(100)).ok());
  for (uint32_t i = 0; i < kSlabs; ++i) ASSERT_TRUE(assembler.Add(i, 100, Slab(i).subspan(100)).ok());
  const absl::StatusOr<Chunk> chunk = std::move(assembler).Finish();
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(*chunk->manifest, *chunk_.manifest);
  EXPECT_EQ(testing::BytesOf(*chunk), testing::BytesOf(chunk_));
}

TEST_F(ChunkAssemblerTest, MalformedManifestIsRefused) {
  std::string damaged = encoded_;
  damaged[damaged.size() / 2] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(ChunkAssembler::Start(AsBytes(damaged)).status()));
  EXPECT_FALSE(ChunkAssembler::Start({}).ok());
}

TEST_F(ChunkAssemblerTest, GapsOverlapsAndExcessAreRefusedByName) {
  ChunkAssembler assembler = Start();
  ASSERT_TRUE(assembler.Add(3, 0, Slab(3).first(10)).ok());
  EXPECT_THAT(MessageOf(assembler.Add(3, 11, Slab(3).first(1))), HasSubstr("slab 3"));
  EXPECT_THAT(MessageOf(assembler.Add(3, 11, Slab(3).first(1))), HasSubstr("gap"));
  EXPECT_THAT(MessageOf(assembler.Add(3, 9, Slab(3).first(1))), HasSubstr("overlaps"));
  EXPECT_THAT(MessageOf(assembler.Add(3, 10, Slab(3))), HasSubstr("exceed"));
  EXPECT_THAT(MessageOf(assembler.Add(kSlabs, 0, Slab(3))), HasSubstr("8 slabs"));
  EXPECT_TRUE(absl::IsInvalidArgument(assembler.Add(3, UINT64_MAX, Slab(3))));
  EXPECT_TRUE(assembler.Add(3, 10, Slab(3).subspan(10)).ok()) << "a refused part leaves the slab as it was";
}

TEST_F(ChunkAssemblerTest, IncompleteSlabIsRefused) {
  ChunkAssembler assembler = Start();
  for (uint32_t i = 0; i < kSlabs; ++i) {
    if (i == 5) continue;
    ASSERT_TRUE(assembler.Add(i, 0, Slab(i)).ok());
  }
  const absl::Status status = std::move(assembler).Finish().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("slab 5"));
}

TEST_F(ChunkAssemblerTest, WrongBytesAreRefused) {
  ChunkAssembler assembler = Start();
  const Chunk wrong = testing::WithFlippedByte(chunk_, 6);
  for (uint32_t i = 0; i < kSlabs; ++i) ASSERT_TRUE(assembler.Add(i, 0, wrong.slabs[i]).ok());
  const absl::Status status = std::move(assembler).Finish().status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("slab 6"));
}

}  // namespace
}  // namespace kdn

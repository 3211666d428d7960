#include "storage/recode.h"

#include <gtest/gtest.h>

#include "storage/base/status.h"
#include "tests/storage/test_chunks.h"

namespace kdn {
namespace {

using testing::MakeChunk;

absl::StatusOr<Chunk> RecodeTo(const Chunk& chunk, std::string_view codec) {
  IoPool pool(3);
  return Recode(chunk, **FindCodec(codec), pool);
}

// The chunk's bytes as an engine gets them.
std::string Decoded(const Chunk& chunk) {
  std::string all;
  for (size_t i = 0; i < chunk.slabs.size(); ++i) {
    const SlabInfo& slab = chunk.manifest->slabs[i];
    Buffer raw(slab.shape.RawSize());
    EXPECT_TRUE((*FindCodec(slab.codec))->Decode(slab.shape, slab.kind, chunk.slabs[i], raw.span()).ok());
    all += AsStringView(raw.span());
  }
  return all;
}

TEST(RecodeTest, LosslessKeepsEveryBitAndNeverGrows) {
  const Chunk raw = MakeChunk(testing::MakeSpace(), 1, 256);
  const absl::StatusOr<Chunk> zstd = RecodeTo(raw, "zstd");
  ASSERT_TRUE(zstd.ok()) << zstd.status();
  EXPECT_TRUE(ValidateManifest(*zstd->manifest).ok());
  EXPECT_TRUE(VerifySlabs(*zstd).ok());
  EXPECT_EQ(zstd->manifest->fidelity, Fidelity::kExact);
  EXPECT_EQ(zstd->manifest->key, raw.manifest->key);
  EXPECT_LE(zstd->manifest->EncodedBytes(), raw.manifest->EncodedBytes());
  EXPECT_EQ(Decoded(*zstd), testing::BytesOf(raw));
}

TEST(RecodeTest, LossyLowersTheFidelityAndKeepsTheRetention) {
  Chunk exact = MakeChunk(testing::MakeSpace(), 1, 256, CodecId::kZstd);
  exact.retention = {.expires = absl::FromUnixSeconds(7), .lossy_allowed = true};
  const absl::StatusOr<Chunk> q4 = RecodeTo(exact, "q4");
  ASSERT_TRUE(q4.ok()) << q4.status();
  EXPECT_TRUE(ValidateManifest(*q4->manifest).ok());
  EXPECT_TRUE(VerifySlabs(*q4).ok());
  EXPECT_EQ(q4->manifest->fidelity, Fidelity::kQuantised);
  EXPECT_EQ(q4->retention, exact.retention);
  EXPECT_LT(q4->manifest->EncodedBytes() * 3, exact.manifest->RawBytes());
  EXPECT_EQ(Decoded(*q4).size(), exact.manifest->RawBytes());
}

TEST(RecodeTest, WhatIsLossyAlreadyIsLeftAlone) {
  const Chunk exact = MakeChunk(testing::MakeSpace(), 1, 256);
  const Chunk q8 = *RecodeTo(exact, "q8");
  const Chunk again = *RecodeTo(q8, "q4");
  EXPECT_EQ(*again.manifest, *q8.manifest);
  EXPECT_EQ(testing::BytesOf(again), testing::BytesOf(q8));
}

TEST(RecodeTest, DamageIsReportedNotEncoded) {
  const Chunk zstd = MakeChunk(testing::MakeSpace(), 1, 256, CodecId::kZstd);
  Chunk damaged = zstd;
  damaged.slabs[0] = SharedBuffer::CopyOf(AsBytes("this is no zstd payload"));
  EXPECT_TRUE(absl::IsDataLoss(RecodeTo(damaged, "q8").status()));
}

}  // namespace
}  // namespace kdn

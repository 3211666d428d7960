#include "storage/tier/index_row.h"

#include <gmock/gmock.h>

namespace kdn {
namespace {

IndexRow MakeRow() {
  IndexRow row;
  row.extent = {.segment = 0x01020304, .first_block = 0xfffffffe, .blocks = 7};
  row.manifest_bytes = 2500;
  row.tokens = 256;
  row.first_token = 4096;
  row.fidelity = Fidelity::kQuantised;
  row.durable = true;
  row.retention = {.expires = absl::FromUnixMillis(0x0102030405), .lossy_allowed = true};
  row.space.bytes.fill(0xaa);
  row.parent.bytes.fill(0xbb);
  return row;
}

TEST(IndexRowTest, WhatIsWrittenIsReadBack) {
  const IndexRow row = MakeRow();
  const absl::StatusOr<IndexRow> read = DecodeIndexRow(EncodeIndexRow(row));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->extent, row.extent);
  EXPECT_EQ(read->manifest_bytes, row.manifest_bytes);
  EXPECT_EQ(read->tokens, row.tokens);
  EXPECT_EQ(read->first_token, row.first_token);
  EXPECT_EQ(read->fidelity, row.fidelity);
  EXPECT_EQ(read->durable, row.durable);
  EXPECT_EQ(read->retention, row.retention);
  EXPECT_EQ(read->space, row.space);
  EXPECT_EQ(read->parent, row.parent);
}

TEST(IndexRowTest, LayoutOnDiskIsTheDocumentedOne) {
  const std::string value = EncodeIndexRow(MakeRow());
  ASSERT_EQ(value.size(), 98u);
  EXPECT_EQ(value.substr(0, 4), "\x04\x03\x02\x01");
  EXPECT_EQ(value.substr(8, 4), std::string("\x07\0\0\0", 4));
  EXPECT_EQ(value[24], 2);
  EXPECT_EQ(value[25], 3);
  EXPECT_EQ(value.substr(26, 8), std::string("\x05\x04\x03\x02\x01\0\0\0", 8));
  EXPECT_EQ(value.substr(34, 32), std::string(32, '\xaa'));
  EXPECT_EQ(value.substr(66), std::string(32, '\xbb'));
}

TEST(IndexRowTest, ExpiryIsKeptInWholeMillisecondsAndNeverShortened) {
  const auto kept = [](absl::Time expires) {
    IndexRow row = MakeRow();
    row.retention.expires = expires;
    return DecodeIndexRow(EncodeIndexRow(row)).value().retention.expires;
  };
  EXPECT_EQ(kept(absl::InfiniteFuture()), absl::InfiniteFuture());
  EXPECT_EQ(kept(absl::FromUnixMillis(7)), absl::FromUnixMillis(7));
  EXPECT_EQ(kept(absl::FromUnixMillis(7) + absl::Nanoseconds(1)), absl::FromUnixMillis(8));
  EXPECT_EQ(kept(absl::InfinitePast()), absl::FromUnixMillis(1));
}

TEST(IndexRowTest, EveryOtherLengthIsDataLoss) {
  const std::string value = EncodeIndexRow(MakeRow());
  for (size_t n = 0; n < value.size(); ++n) EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(value.substr(0, n)).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(value + '\0').status()));
}

TEST(IndexRowTest, ValuesThatNobodyWritesAreDataLoss) {
  const auto with = [](size_t at, size_t n, char byte) { return EncodeIndexRow(MakeRow()).replace(at, n, n, byte); };
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(0, 4, '\0')).status())) << "no segment";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(8, 4, '\0')).status())) << "no blocks";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(12, 4, '\xff')).status())) << "an endless manifest";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(24, 1, '\0')).status())) << "no fidelity";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(24, 1, '\4')).status())) << "an unknown fidelity";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(25, 1, '\4')).status())) << "an unknown flag";
  EXPECT_TRUE(absl::IsDataLoss(DecodeIndexRow(with(33, 1, '\xff')).status())) << "an expiry beyond all time";
}

TEST(IndexRowTest, UploadsOfAChunkSortByGeneration) {
  const ChunkKey key{.bytes = {1, 2, 3}};
  EXPECT_LT(EncodeUploadId({key, 0xff}), EncodeUploadId({key, 0x100}));
  const std::optional<UploadId> id = DecodeUploadId(EncodeUploadId({key, 0x0102030405060708}));
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(id->key, key);
  EXPECT_EQ(id->generation, 0x0102030405060708u);
  EXPECT_FALSE(DecodeUploadId("short").has_value());
}

}  // namespace
}  // namespace kdn

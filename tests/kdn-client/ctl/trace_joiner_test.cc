#include "kdn-client/ctl/trace_joiner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/base/status.h"

namespace kdn::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ChunkKey Numbered(uint8_t n) {
  ChunkKey key;
  key.bytes.fill(n);
  return key;
}

// A piece as a node tells it: of the chunks at these places, the numbers of which are their places + `base`.
v1::RecordedRequest Piece(uint8_t trace, const std::vector<uint32_t>& positions, int64_t unix_us = 0,
                          uint8_t base = 1) {
  v1::RecordedRequest request;
  request.set_unix_us(unix_us);
  request.set_space_id(std::string(32, 's'));
  if (trace != 0) request.set_trace_id(std::string(16, static_cast<char>(trace)));
  for (const uint32_t position : positions) {
    const ChunkKey key = Numbered(static_cast<uint8_t>(base + position));
    request.mutable_keys()->append(reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size());
    request.add_positions(position);
    request.add_prefix_tokens(0);
  }
  return request;
}

class TraceJoinerTest : public ::testing::Test {
 protected:
  void Add(const v1::RecordedRequest& request, int at_ms = 0) {
    const absl::StatusOr<RecordedPiece> piece = PieceFromWire(request);
    ASSERT_TRUE(piece.ok()) << piece.status();
    joiner_.Add(*piece, SteadyClock::Point(std::chrono::milliseconds(at_ms)));
  }
  void EmitUntil(int at_ms) { joiner_.EmitUntil(SteadyClock::Point(std::chrono::milliseconds(at_ms))); }

  std::vector<JoinedRequest> joined_;
  TraceJoiner joiner_{{.window = std::chrono::milliseconds(100), .most_chunks = 8},
                      [this](const JoinedRequest& request) { joined_.push_back(request); }};
};

TEST_F(TraceJoinerTest, PiecesOfOneTraceAreOneRequest) {
  v1::RecordedRequest held = Piece(1, {2, 0}, 5000);
  held.set_prefix_tokens(0, 48);
  held.set_chunk_tokens(16);
  Add(held, 0);
  Add(Piece(1, {1, 3}, 4000), 50);
  Add(Piece(1, {1}, 4500), 60);  // asked again elsewhere
  EmitUntil(99);
  EXPECT_TRUE(joined_.empty());
  EmitUntil(100);
  ASSERT_EQ(joined_.size(), 1u);
  EXPECT_THAT(joined_[0].keys, ElementsAre(Numbered(1), Numbered(2), Numbered(3), Numbered(4)));
  EXPECT_EQ(joined_[0].unix_us, 4000);
  EXPECT_EQ(joined_[0].input_tokens, 64u);
  EXPECT_EQ(joiner_.left_out_chunks(), 0u);
}

TEST_F(TraceJoinerTest, OtherTracesPiecesWithoutOneAndContradictionsStayApart) {
  Add(Piece(1, {0, 1}));
  Add(Piece(2, {0, 1}));
  Add(Piece(0, {0}));
  Add(Piece(0, {0}));
  Add(Piece(1, {0}, 0, /*base=*/100));  // another prompt under the same trace
  joiner_.EmitAll();
  EXPECT_EQ(joined_.size(), 5u);
}

TEST_F(TraceJoinerTest, RequestsComeInTheOrderOfTheirTimes) {
  Add(Piece(1, {0}, 300), 0);
  Add(Piece(2, {0}, 100), 10);
  Add(Piece(3, {0}, 200), 20);
  EmitUntil(200);
  ASSERT_EQ(joined_.size(), 3u);
  EXPECT_EQ(joined_[0].unix_us, 100);
  EXPECT_EQ(joined_[1].unix_us, 200);
  EXPECT_EQ(joined_[2].unix_us, 300);
}

TEST_F(TraceJoinerTest, WhatIsBehindAGapIsLeftOutAndCounted) {
  Add(Piece(1, {0, 1, 3, 4}));
  Add(Piece(2, {5}));
  joiner_.EmitAll();
  ASSERT_EQ(joined_.size(), 1u);
  EXPECT_EQ(joined_[0].keys.size(), 2u);
  EXPECT_EQ(joiner_.left_out_chunks(), 3u);
}

TEST_F(TraceJoinerTest, TheOldestGoEarlyWhenThereAreTooMany) {
  for (uint8_t i = 1; i <= 5; ++i) Add(Piece(i, {0, 1}));
  EXPECT_EQ(joined_.size(), 1u);
  Add(Piece(1, {0, 1}));
  EXPECT_EQ(joined_.size(), 2u) << "a trace that was emitted begins anew";
}

TEST_F(TraceJoinerTest, AFetchIsPlacedByWhatIsKnownOfItsChunks) {
  v1::RecordedRequest fetch = Piece(1, {1, 2});
  fetch.clear_positions();
  fetch.set_fetch(true);
  fetch.set_chunk_tokens(16);
  fetch.set_prefix_tokens(0, 32);
  fetch.set_prefix_tokens(1, 40);
  Add(fetch);
  Add(Piece(1, {0}));
  joiner_.EmitAll();
  ASSERT_EQ(joined_.size(), 1u);
  EXPECT_EQ(joined_[0].keys.size(), 3u);
  EXPECT_EQ(joined_[0].input_tokens, 40u) << "the last chunk is short";
}

TEST(PieceFromWireTest, RefusesWhatMakesNoSense) {
  v1::RecordedRequest bad = Piece(1, {0});
  bad.set_space_id("short");
  EXPECT_THAT(MessageOf(PieceFromWire(bad).status()), HasSubstr("space"));
  bad = Piece(1, {0});
  bad.set_trace_id("short");
  EXPECT_THAT(MessageOf(PieceFromWire(bad).status()), HasSubstr("trace id"));
  bad = Piece(1, {0});
  bad.mutable_keys()->pop_back();
  EXPECT_THAT(MessageOf(PieceFromWire(bad).status()), HasSubstr("keys"));
  EXPECT_TRUE(absl::IsDataLoss(PieceFromWire(Piece(1, {1U << 30})).status()));
}

}  // namespace
}  // namespace kdn::ctl

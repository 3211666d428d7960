#include "storage/format/chunk_key.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "storage/format/kv_space.h"

namespace kdn {
namespace {

SpaceId Space(uint8_t first_byte) {
  SpaceId id;
  id.bytes[0] = first_byte;
  return id;
}

std::vector<Token> Tokens(size_t n) {
  std::vector<Token> tokens(n);
  std::iota(tokens.begin(), tokens.end(), 100u);
  return tokens;
}

TEST(ChunkKeyTest, EverythingThatDecidesTheKvChangesTheKey) {
  const std::vector<Token> tokens = Tokens(4);
  ChunkKey parent;
  parent.bytes[31] = 1;
  const std::vector<std::string> ab = {"a", "b"}, ba = {"b", "a"}, joined = {"ab"}, empty = {""};
  std::vector<Token> swapped = tokens;
  std::swap(swapped[0], swapped[1]);

  const std::set<ChunkKey> keys = {
      ComputeChunkKey(Space(1), {}, tokens),
      ComputeChunkKey(Space(2), {}, tokens),
      ComputeChunkKey(Space(1), parent, tokens),
      ComputeChunkKey(Space(1), {}, swapped),
      ComputeChunkKey(Space(1), {}, std::span(tokens).first(3)),
      ComputeChunkKey(Space(1), {}, {}),
      ComputeChunkKey(Space(1), {}, tokens, ab),
      ComputeChunkKey(Space(1), {}, tokens, ba),
      ComputeChunkKey(Space(1), {}, tokens, joined),
      ComputeChunkKey(Space(1), {}, tokens, empty),
  };
  EXPECT_EQ(keys.size(), 10u);
  EXPECT_EQ(ComputeChunkKey(Space(1), {}, tokens), ComputeChunkKey(Space(1), {}, tokens));
}

TEST(ChunkChainTest, ChunksCoverTheSegmentAndNameTheirParents) {
  const std::vector<Token> tokens = Tokens(10);
  const auto chain = ChunkChain(Space(1), 4, tokens).value();
  ASSERT_EQ(chain.size(), 3u);
  ChunkKey parent;
  uint32_t next = 0;
  for (const ChunkRef& chunk : chain) {
    EXPECT_EQ(chunk.parent, parent);
    EXPECT_EQ(chunk.first_token, next);
    EXPECT_EQ(chunk.key, ComputeChunkKey(Space(1), parent, std::span(tokens).subspan(next, chunk.tokens)));
    parent = chunk.key;
    next += chunk.tokens;
  }
  EXPECT_EQ(next, 10u);
  EXPECT_EQ(chain.back().tokens, 2u);
}

TEST(ChunkChainTest, ALongerPromptSharesTheWholeChunksOfAShorterOne) {
  const std::vector<Token> tokens = Tokens(12);
  const auto shorter = ChunkChain(Space(1), 4, std::span(tokens).first(9), /*whole_only=*/true).value();
  const auto longer = ChunkChain(Space(1), 4, tokens, /*whole_only=*/true).value();
  ASSERT_EQ(shorter.size(), 2u);
  ASSERT_EQ(longer.size(), 3u);
  EXPECT_EQ(shorter[0].key, longer[0].key);
  EXPECT_EQ(shorter[1].key, longer[1].key);
}

TEST(ChunkChainTest, AChangedTokenChangesEveryKeyAfterIt) {
  std::vector<Token> tokens = Tokens(12);
  const auto before = ChunkChain(Space(1), 4, tokens).value();
  tokens[5] ^= 0x80000000u;
  const auto after = ChunkChain(Space(1), 4, tokens).value();
  EXPECT_EQ(before[0].key, after[0].key);
  EXPECT_NE(before[1].key, after[1].key);
  EXPECT_NE(before[2].key, after[2].key);
}

TEST(ChunkChainTest, ChunkSizesOutOfBoundsAreRefused) {
  for (const uint32_t chunk_tokens : {0u, kMaxChunkTokens + 1}) {
    EXPECT_EQ(ChunkChain(Space(1), chunk_tokens, Tokens(3)).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(ChunkChain(Space(1), kMaxChunkTokens, Tokens(3)).ok());
  EXPECT_TRUE(ChunkChain(Space(1), 4, {}).value().empty());
}

}  // namespace
}  // namespace kdn

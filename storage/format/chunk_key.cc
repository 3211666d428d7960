#include "storage/format/chunk_key.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "storage/base/status.h"
#include "storage/format/byte_io.h"
#include "storage/format/kv_space.h"

namespace kdn {
namespace {

constexpr std::string_view kDomain = "kdn/chunk/1";

// Tokens are hashed as they lie in memory, which byte_io.h makes sure is little-endian.
ByteSpan AsBytes(std::span<const Token> tokens) {
  return {reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()};
}

}  // namespace

ChunkKey ComputeChunkKey(const SpaceId& space, const ChunkKey& parent, std::span<const Token> tokens,
                         std::span<const std::string> extras) {
  ByteWriter count;
  count.U32(static_cast<uint32_t>(tokens.size()));
  ByteWriter framed;
  framed.U32(static_cast<uint32_t>(extras.size()));
  for (const std::string& extra : extras) framed.String(extra);

  ChunkKey key;
  key.bytes = Sha256({kdn::AsBytes(kDomain), space.span(), parent.span(), kdn::AsBytes(count.written()),
                      AsBytes(tokens), kdn::AsBytes(framed.written())});
  return key;
}

absl::StatusOr<std::vector<ChunkRef>> ChunkChain(const SpaceId& space, uint32_t chunk_tokens,
                                                 std::span<const Token> tokens, bool whole_only) {
  if (chunk_tokens == 0 || chunk_tokens > kMaxChunkTokens) {
    return InvalidArgument("chunk_tokens is {}; give 1 to {}", chunk_tokens, kMaxChunkTokens);
  }
  if (tokens.size() > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgument("a segment of {} tokens is too long; positions are 32-bit numbers", tokens.size());
  }
  std::vector<ChunkRef> chain;
  chain.reserve(tokens.size() / chunk_tokens + 1);
  ChunkKey parent;
  for (size_t first = 0; first < tokens.size(); first += chunk_tokens) {
    const size_t n = std::min<size_t>(chunk_tokens, tokens.size() - first);
    if (whole_only && n < chunk_tokens) break;
    const ChunkKey key = ComputeChunkKey(space, parent, tokens.subspan(first, n));
    chain.push_back({key, parent, static_cast<uint32_t>(first), static_cast<uint32_t>(n)});
    parent = key;
  }
  return chain;
}

}  // namespace kdn
